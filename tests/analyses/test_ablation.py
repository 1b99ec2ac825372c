import numpy as np
import pytest
import torch
from lens_worlds import tiny, tiny_store

from layerprobe.analyses.causes.ablation import ablation
from layerprobe.analyses.causes.answer_task import answer_task
from layerprobe.analyses.causes.edited_runs import run_difference
from layerprobe.analyses.result.analysis import read_result
from layerprobe.analyses.result.saving import to_svg
from layerprobe.hooks.errors import LayerprobeError

FAST = {"groups": None, "n_bootstrap": 30, "n_permutations": 30}


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "qwen2"])
def test_zero_ablation_of_a_head_is_what_its_slice_of_the_weights_did(name):
    model = tiny(name)
    store = tiny_store(model)
    task = answer_task(store, model, groups=None)
    batch = task.batch(np.arange(len(task)))
    before = run_difference(model, batch)
    found = ablation(store, model=model, how="zero", **FAST).frames["map"].set_index("component")["estimate"]
    module = model.hf.get_submodule(model.anatomy.blocks[1].o_proj)
    kept = module.weight.detach().clone()
    with torch.no_grad():
        rows = slice(model.d_head, 2 * model.d_head)
        module.weight[rows if type(module).__name__ == "Conv1D" else (slice(None), rows)] = 0
        after = run_difference(model, batch)
        module.weight.copy_(kept)
    assert found["head 1.1"] == pytest.approx(float((after - before).mean()), abs=1e-4)


def test_mean_and_resample_say_which_parts_matter(tmp_path):
    model = tiny("llama")
    for how in ("mean", "resample"):
        result = ablation(tiny_store(model), model=model, how=how, **FAST)
        assert len(result.frames["map"]) == model.n_layers * (model.n_heads + 1)
        (finding,) = result.findings
        assert finding.lead and finding.method == f"{how} ablation" and len(finding.numbers) == 6
        assert f"by {how} ablation" in to_svg(result.plot())
    again = read_result(result.to_parquet(tmp_path / "a.parquet"))
    assert str(again.summary()) == str(result.summary())
    with pytest.raises(LayerprobeError, match="resample"):
        ablation(tiny_store(model), model=model, how="median", **FAST)
