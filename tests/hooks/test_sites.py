"""Selections of sites."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import layerprobe as lp
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.selections import parse_sites, select_held
from layerprobe.hooks.sites import SITES, SiteAt


def test_the_sites():
    assert list(SITES) == [
        "embed",
        "resid_pre",
        "resid_mid",
        "resid_post",
        "attn_out",
        "mixer_out",
        "mlp_out",
        "head_out",
        "q",
        "k",
        "v",
        "attn_pattern",
        "mlp_act",
        "router_logits",
        "final_norm",
        "lens",
    ]


@pytest.mark.parametrize(
    ("given_", "layers"),
    [
        ("resid_post", range(8)),
        ("resid_post[3]", [3]),
        ("resid_post[-1]", [7]),
        ("resid_post[2:8:3]", [2, 5]),
        ("resid_post[-2:]", [6, 7]),
        ("resid_post[ 0, 3 ,-1]", [0, 3, 7]),
    ],
)
def test_layers(given_, layers):
    assert parse_sites(given_, 8) == tuple(SiteAt("resid_post", layer) for layer in layers)


def test_order_is_kept_and_doubles_are_dropped():
    assert [str(at) for at in parse_sites(["final_norm", "q[1]", "q[:2]"], 4)] == [
        "final_norm",
        "q[1]",
        "q[0]",
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("residual", "unknown site 'residual'"),
        ("resid_post[8]", "out of range"),
        ("resid_post[-9]", "out of range"),
        ("resid_post[9:]", "selects no layer"),
        ("resid_post[::0]", "step"),
        ("resid_post[a]", "cannot read the layers"),
        ("resid_post[3", "cannot read the site"),
        ("embed[0]", "has no layers"),
        ([], "no sites"),
        ([3], "cannot read the site"),
    ],
)
def test_refused(bad, message):
    with pytest.raises(LayerprobeError, match=message):
        parse_sites(bad, 8)


@given(st.integers(1, 12), st.data())
def test_slices_are_pythons_own(n, data):
    part = st.none() | st.integers(-15, 15)
    start, stop = data.draw(part), data.draw(part)
    step = data.draw(st.none() | st.integers(-4, 4).filter(bool))
    text = ":".join("" if x is None else str(x) for x in (start, stop, step))
    want = list(range(n))[start:stop:step]
    if want:
        assert [at.layer for at in parse_sites(f"q[{text}]", n)] == want
    else:
        with pytest.raises(LayerprobeError):
            parse_sites(f"q[{text}]", n)


HELD = {"final_norm": (), "resid_post": (0, 4, 8), "mlp_out": (4,), "attn_pattern": (0,), "lens": (0, 4)}


@pytest.mark.parametrize(
    ("sites", "layers", "want"),
    [
        (None, None, ["final_norm", "resid_post[0]", "resid_post[4]", "resid_post[8]", "mlp_out[4]"]),
        ("resid_post", 4, ["resid_post[4]"]),
        ("resid_post", (8, 0), ["resid_post[0]", "resid_post[8]"]),
        (["mlp_out", "resid_post[4:]"], None, ["mlp_out[4]", "resid_post[4]", "resid_post[8]"]),
        (["resid_post[0]", "resid_post[-1]"], None, ["resid_post[0]", "resid_post[8]"]),
    ],
)
def test_what_a_store_holds(sites, layers, want):
    assert [str(at) for at in select_held(HELD, sites, layers)] == want


@pytest.mark.parametrize(
    ("sites", "layers", "message"),
    [
        ("attn_pattern", None, "padded where a prompt ends"),
        ("lens", None, "readout of the lens"),
        ("mlp_out", 8, "not among the layers of mlp_out"),
        ("resid_post[1]", None, "are not in this store's resid_post"),
        (["resid_post", "mlp_out"], [0], "not in this store's mlp_out"),
        ("resid", None, "site 'resid' is not in this store"),
        ([], None, "names nothing"),
        (None, [], "names nothing"),
        (None, "all", "expected a whole number"),
        (None, -1, "the last is 8"),
    ],
)
def test_what_a_store_does_not_hold(sites, layers, message):
    with pytest.raises(LayerprobeError, match=message):
        select_held(HELD, sites, layers)


def test_probes_and_separation_read_the_same_places():
    """They disagreed on `layers=1` (a TypeError) and on `attn_pattern` (an error about NaN)."""
    rng = np.random.default_rng(0)
    pattern = np.where(np.arange(6) < 3, 0.3, np.nan) * np.ones((2, 40, 2, 6))
    arrays = {"resid_post": rng.normal(size=(2, 40, 4)), "attn_pattern": pattern}
    store = lp.from_arrays(arrays, labels={"y": np.arange(40) % 2})
    few = {"label": "y", "groups": None, "layers": 1, "n_permutations": 9, "n_bootstrap": 9}
    for analysis in (lp.separation, lp.linear_probe, lp.unsupervised):
        options = {k: v for k, v in few.items() if analysis is not lp.unsupervised or k != "n_bootstrap"}
        table = analysis(store, **options).table
        assert {(site, int(layer)) for site, layer in zip(table.site, table.layer, strict=True)} == {
            ("resid_post", 1)
        }
