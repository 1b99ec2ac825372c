"""Selections of sites."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.sites import SITES, SiteAt, parse_sites


def test_the_fifteen_sites():
    assert list(SITES) == [
        "embed",
        "resid_pre",
        "resid_mid",
        "resid_post",
        "attn_out",
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
