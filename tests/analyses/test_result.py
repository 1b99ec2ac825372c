"""A result says what it found, shows itself, and comes back from disk as it was."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import layerprobe as lp
from layerprobe.analyses.result.analysis import AnalysisResult, Directions, read_result, tidy
from layerprobe.hooks.errors import LayerprobeError


def a_result(**changes) -> AnalysisResult:
    table = tidy(
        [
            {
                "estimate": 0.9,
                "layer": 0,
                "site": "resid_post",
                "model": "<b>m</b>",
                "converged": True,
                "lo": None,
            },
            {
                "estimate": 0.8,
                "layer": None,
                "site": "embed",
                "model": "<b>m</b>",
                "converged": False,
                "lo": None,
            },
        ]
    )
    parts = {
        "kind": "nothing_known",
        "table": table,
        "scores": pd.DataFrame(
            {"site": ["resid_post"] * 3, "layer": [0] * 3, "id": list("abc"), "margin": [0.5, -2.0, 1.0]}
        ),
        "directions": Directions(
            {
                "resid_post": {10: np.ones(3, np.float32), 2: np.zeros(3, np.float32)},
                "embed": {None: np.ones(3)},
            },
            {
                "resid_post": {10: np.float32([1.0])[0:1], 2: np.float32([0.0])},
                "embed": {None: np.float64([2.0])},
            },
            ("yes",),
        ),
        "frames": {"curve": pd.DataFrame({"n": [10, 20], "auroc": [0.6, np.nan]})},
        "provenance": {"store": "a.h5", "layers": (1, 2), "n": np.int64(3)},
        "notes": ("look out",),
    }
    return AnalysisResult(**{**parts, **changes})


def test_round_trip_gives_everything_back(tmp_path):
    result = a_result()
    back = read_result(result.to_parquet(tmp_path / "deep" / "r.parquet"))
    pd.testing.assert_frame_equal(back.table, result.table)
    pd.testing.assert_frame_equal(back.scores, result.scores)
    pd.testing.assert_frame_equal(back.frames["curve"], result.frames["curve"])
    assert back.kind == result.kind and back.notes == result.notes
    assert back.provenance == {"store": "a.h5", "layers": [1, 2], "n": 3}
    assert back.directions.names == ("yes",)
    for site, layer in result.directions:
        np.testing.assert_array_equal(back.directions[site, layer], result.directions[site, layer])
        np.testing.assert_array_equal(back.directions.bias[site][layer], result.directions.bias[site][layer])
    assert list(back.directions) == list(result.directions)


def test_tidy_leaves_out_what_does_not_apply_and_keeps_layers_whole():
    table = a_result().table
    assert "lo" not in table and table["layer"].dtype == "Int64"
    assert list(table.columns) == ["model", "site", "layer", "estimate", "converged"]


def test_html_is_escaped_and_has_no_script():
    shown = a_result()._repr_html_()
    assert "<b>m</b>" not in shown and "&lt;b&gt;m" in shown and "<script" not in shown


def test_worst_examples_come_first():
    assert a_result().examples(layer=0, worst=2)["id"].tolist() == ["b", "a"]
    assert a_result().examples(layer=0, best=1)["id"].tolist() == ["c"]
    with pytest.raises(LayerprobeError, match=r"no scores for resid_post\[9\]; layers with scores: 0"):
        a_result().examples(layer=9)


def test_refusals_name_the_next_step(tmp_path):
    with pytest.raises(LayerprobeError, match=r"end in \.parquet"):
        a_result().to_parquet(tmp_path / "r.csv")
    with pytest.raises(LayerprobeError, match="no result at"):
        read_result(tmp_path / "absent.parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(LayerprobeError, match="not a layerprobe result"):
        read_result(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(LayerprobeError, match="not a Parquet file"):
        read_result(tmp_path / "text.parquet")
    path = a_result().to_parquet(tmp_path / "r.parquet")
    (tmp_path / "r.scores.parquet").unlink()
    with pytest.raises(LayerprobeError, match=r"r\.scores\.parquet beside it"):
        read_result(path)
    with pytest.raises(LayerprobeError, match="no analysis"):
        a_result().summary()


def test_directions_refuse_another_width():
    directions = a_result().directions
    with pytest.raises(LayerprobeError, match="width 4 cannot be scored"):
        directions.score(np.ones((2, 4)), "resid_post", 2)
    with pytest.raises(LayerprobeError, match=r"this result has .*resid_post\[10\]"):
        directions["resid_post", 3]


def test_examples_are_of_one_probe_and_carry_their_own_text():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    store = lp.from_arrays(
        {"head_out": rng.normal(size=(1, 60, 2, 3))},
        labels={"a": y, "b": rng.permutation(y)},
        ids=[f"i{n // 2}" for n in range(60)],  # every id twice
        texts=[f"text {n}" for n in range(60)],
    )
    options = {"groups": None, "n_permutations": 0, "n_bootstrap": 20, "baselines": False}
    result = lp.linear_probe(store, label=["a", "b"], **options)
    with pytest.raises(LayerprobeError, match="several targets: a, b; pass target="):
        result.examples(0)
    with pytest.raises(LayerprobeError, match="several heads: 0, 1; pass head="):
        result.examples(0, target="a")
    with pytest.raises(LayerprobeError, match="head=5 has no scores"):
        result.examples(0, target="a", head=5)
    shown = result.examples(0, target="b", head=1, worst=10)
    assert len(shown) == 10 and set(shown["head"]) == {1} and set(shown["target"]) == {"b"}
    assert (shown["text"] == "text " + shown["example"].astype(str)).all()
    assert (result.table["gradient"] <= 1e-7).all() and result.table["converged"].all()


@pytest.mark.parametrize(
    "written",
    [b"not json", b"[]", b"{}", b'{"kind": 3}'],
    ids=["no JSON", "a list", "nothing", "a wrong type"],
)
def test_a_damaged_description_is_refused_by_name(tmp_path, written):
    path = a_result().to_parquet(tmp_path / "r.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"layerprobe": written}), path)
    with pytest.raises(LayerprobeError, match="damaged or of another version"):
        read_result(path)


def test_a_damaged_part_is_refused_by_its_own_name(tmp_path):
    path = a_result().to_parquet(tmp_path / "r.parquet")
    (tmp_path / "r.curve.parquet").write_bytes(b"PAR1 and then something else")
    with pytest.raises(LayerprobeError, match=r"r\.curve\.parquet is not a Parquet file"):
        read_result(path)


@pytest.mark.parametrize("damage", [b"", b"junk"], ids=["empty", "junk"])
def test_damaged_directions_are_refused_by_name(tmp_path, damage):
    path = a_result().to_parquet(tmp_path / "r.parquet")
    (tmp_path / "r.directions.safetensors").write_bytes(damage)
    with pytest.raises(LayerprobeError, match=r"r\.directions\.safetensors is damaged"):
        read_result(path)
