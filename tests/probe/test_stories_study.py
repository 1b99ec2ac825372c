"""The study of a real trained model and real words that `examples/` has, from the word list to the report."""

import runpy
from pathlib import Path

import layerprobe as lp
from layerprobe.probe.study.toml import read_study

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_study_of_a_real_model_runs_through_to_a_report(tmp_path, test_data, stories):
    prompts = tmp_path / "prompts.jsonl"
    script = runpy.run_path(str(EXAMPLES / "stories_prompts.py"))
    script["main"](
        str(test_data / "data" / "things_categories" / "Categories_final_20200131.tsv"), str(prompts)
    )
    study = read_study(EXAMPLES / "stories_study.toml").model_dump()
    study["models"]["stories260K"]["source"] = str(stories)
    study["prompts"]["file"] = str(prompts)
    for item in study["analysis"]:
        item.update(n_permutations=200, n_bootstrap=100)
    run = lp.run_study(study, out=tmp_path / "out", progress=False)
    assert run.failures == {}
    assert run.stores["stories260K"].layers("resid_post") == (0, 1, 2, 3, 4)
    probe = run.results["linear_probe-kind-stories260K"].table.query("metric == 'auroc'").set_index("layer")
    # what a 260,000-parameter model knows of living things: something, and less than everything
    assert 0.6 < probe.loc[4, "estimate"] < 0.9
    assert probe.loc[4, "p_familywise"] < 0.05
    assert "Does a small story model tell living things from tools?" in run.report.read_text(encoding="utf-8")
