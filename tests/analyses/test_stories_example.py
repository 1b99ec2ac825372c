"""The pair that examples/stories_finetune.py makes of a real model goes through the whole comparison."""

import runpy
from pathlib import Path

from layerprobe.analyses.result.analysis import read_result

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "stories_finetune.py"


def test_tuning_and_template_are_told_apart_on_a_real_model(stories, tmp_path, capsys):
    runpy.run_path(str(EXAMPLE))["main"](["--model", str(stories), "--out", str(tmp_path)])
    result = read_result(tmp_path / "two_by_two.parquet")
    shift = result.table[result.table["metric"] == "mean_shift"].set_index(["effect", "layer"])["estimate"]
    for layer in range(5):
        assert shift["tuned − base | chat", layer] > 2 * shift["chat − plain | base", layer] > 0
    differences = result.table[result.table["reference"].notna() & result.table["minus"].isna()]
    index = differences[differences["metric"] == "suppression_index"].set_index(["effect", "subset"])
    assert index.loc[("tuned − base | plain", "kind=animal"), "lo"] > 0  # taught to end in "sad"
    lo, hi = index.loc[("tuned − base | plain", "kind=thing"), ["lo", "hi"]]
    assert lo < 0 < hi  # as before
    assert {
        "cka_debiased",
        "procrustes_r2",
        "rsa_spearman",
        "effective_rank_difference",
        "direction_cosine",
        "transfer_auroc",
        "lens_kl",
        "class_difference_change",
    } <= set(result.table["metric"])
    assert "where the mean difference is most reproducible" in capsys.readouterr().out
