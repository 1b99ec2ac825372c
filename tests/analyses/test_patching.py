from functools import cache

import numpy as np
import pytest
import torch
from lens_worlds import tiny, tiny_store

from layerprobe.analyses.causes.answer_task import answer_task
from layerprobe.analyses.causes.components import Component, all_components
from layerprobe.analyses.causes.edited_runs import path_difference, record, run_difference, set_difference
from layerprobe.analyses.causes.given import given_heads, last_query, plain_attention
from layerprobe.analyses.causes.patching import patching
from layerprobe.analyses.causes.paths import Path, path_effects
from layerprobe.analyses.causes.source import Ablation, model_source
from layerprobe.analyses.causes.sweeps import candidate_difference, head_sweep, position_sweep, site_sweep
from layerprobe.analyses.result.analysis import read_result
from layerprobe.analyses.result.saving import to_svg
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.interventions import ablate, patch
from layerprobe.hooks.sites import SiteAt

FAMILIES = ["gpt2", "llama", "gemma2", "qwen2", "granite"]


@cache
def runs(name, other_seed=1):
    model, other = tiny(name), tiny(name, other_seed)
    task = answer_task(tiny_store(model), model, groups=None)
    batch = next(task.batches(8))
    cache = record(model, batch, ("resid_pre", "head_out", "mlp_out", "attn_out"))
    values = record(other, batch, ("resid_pre", "head_out", "mlp_out"))
    return model, other, task, batch, cache, values


@pytest.mark.parametrize("name", FAMILIES)
def test_zeroing_a_head_is_zeroing_its_slice_of_the_output_projection(name):
    model = tiny(name)
    batch = next(answer_task(tiny_store(model), model, groups=None).batches(8))
    module = model.hf.get_submodule(model.anatomy.blocks[1].o_proj)
    rows = slice(2 * model.d_head, 3 * model.d_head)
    zeroed = run_difference(model, batch, edits=[ablate("head_out", layer=1, heads=2)])
    before = module.weight.detach().clone()
    with torch.no_grad():
        if type(module).__name__ == "Conv1D":
            module.weight[rows] = 0
        else:
            module.weight[:, rows] = 0
        try:
            expected = run_difference(model, batch)
        finally:
            module.weight.copy_(before)
    assert torch.equal(zeroed, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_sweeps_from_the_middle_equal_a_plain_loop_of_whole_runs(name):
    model, _, _, batch, cache, values = runs(name)
    heads = head_sweep(model, batch, cache, values, rows_at_once=12)
    mlps = site_sweep(model, batch, cache, values)
    places = position_sweep(model, batch, cache, values)
    for layer in range(model.n_layers):
        for head in range(model.n_heads):
            plain = run_difference(
                model,
                batch,
                edits=[patch("head_out", layer=layer, values=values[SiteAt("head_out", layer)], heads=head)],
            )
            torch.testing.assert_close(heads[:, layer, head], plain, atol=1e-4, rtol=1e-4)
        plain = run_difference(
            model, batch, edits=[patch("mlp_out", layer=layer, values=values[SiteAt("mlp_out", layer)])]
        )
        torch.testing.assert_close(mlps[:, layer], plain, atol=1e-4, rtol=1e-4)
        plain = run_difference(
            model,
            batch,
            edits=[patch("resid_pre", layer=layer, values=values[SiteAt("resid_pre", layer)], positions=-1)],
        )
        torch.testing.assert_close(places[:, layer, -1], plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_only_the_last_position_is_replaced_where_told(name):
    model, _, _, batch, cache, values = runs(name)
    heads = head_sweep(model, batch, cache, values, where="last")
    mlps = site_sweep(model, batch, cache, values, where="last")
    for layer in range(model.n_layers):
        new = {site: values[SiteAt(site, layer)] for site in ("head_out", "mlp_out")}
        edits = [patch("head_out", layer=layer, values=new["head_out"], heads=1, positions=-1)]
        plain = run_difference(model, batch, edits=edits)
        torch.testing.assert_close(heads[:, layer, 1], plain, atol=1e-4, rtol=1e-4)
        as_set = set_difference(model, batch, [Component("head", layer, 1)], cache, values, where="last")
        torch.testing.assert_close(as_set, plain, atol=1e-4, rtol=1e-4)
        edits = [patch("mlp_out", layer=layer, values=new["mlp_out"], positions=-1)]
        plain = run_difference(model, batch, edits=edits)
        torch.testing.assert_close(mlps[:, layer], plain, atol=1e-4, rtol=1e-4)
        as_set = set_difference(model, batch, [Component("mlp", layer)], cache, values, where="last")
        torch.testing.assert_close(as_set, plain, atol=1e-4, rtol=1e-4)
    everywhere = head_sweep(model, batch, cache, values)
    assert float((everywhere - heads)[:, 0].abs().max()) > 1e-3


@pytest.mark.parametrize("name", [*FAMILIES, "gpt_neox", "bloom", "olmo2"])
def test_given_heads_are_patched_heads_without_the_rest_of_the_attention(name):
    model = tiny(name)
    batch = next(answer_task(tiny_store(model), model, groups=None).batches(8))
    at, after = SiteAt("head_out", 1), SiteAt("resid_post", 1)
    heads = record(model, batch, ("head_out",))[at].flip(0) + 1
    attention = model.hf.get_submodule(model.anatomy.blocks[1].attention)
    with model.edit(patch("head_out", layer=1, values=heads)):
        expected = model.forward(batch.ids, batch.mask, sites=[after])[after]
    with given_heads(model, 1, heads):
        got = model.forward(batch.ids, batch.mask, sites=[after])[after]
    real = batch.mask.bool()
    torch.testing.assert_close(got[real], expected[real], atol=1e-5, rtol=1e-4)
    assert (plain_attention(model, 1) is None) == (name == "bloom")  # it adds the stream within its attention
    with pytest.raises(RuntimeError, match="stop"), given_heads(model, 1, heads):
        raise RuntimeError("stop")
    assert "forward" not in attention.__dict__


@pytest.mark.parametrize("name", [*FAMILIES, "mistral", "falcon"])
def test_the_last_query_alone_sees_what_it_always_saw(name):
    model = tiny(name)
    batch = next(answer_task(tiny_store(model), model, groups=None).batches(8))
    at, earlier = SiteAt("head_out", 2), SiteAt("head_out", 1)
    plain = model.forward(batch.ids, batch.mask, sites=[at, earlier])
    with last_query(model, 2):
        got = model.forward(batch.ids, batch.mask, sites=[at, earlier])
    torch.testing.assert_close(got[at][:, -1], plain[at][:, -1], atol=1e-6, rtol=1e-5)
    assert torch.equal(got[earlier], plain[earlier])
    if name in ("llama", "gpt2", "qwen2"):
        assert torch.equal(got[at][:, 3], got[at][:, -1])  # nothing but the last row was computed
    again = model.forward(batch.ids, batch.mask, sites=[at])
    assert torch.equal(again[at], plain[at])


@pytest.mark.parametrize("name", [*FAMILIES, "gpt_neox", "cohere2", "opt_350m"])
def test_a_few_rows_of_the_unembedding_give_the_difference_of_all(name):
    model = tiny(name)
    batch = next(answer_task(tiny_store(model), model, groups=None).batches(8))
    last = model.forward(batch.ids, batch.mask, sites=["resid_post[-1]"])
    (resid,) = last.values()
    got = candidate_difference(model, batch, resid[:, -1])
    torch.testing.assert_close(got, run_difference(model, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_nothing_patched_changes_nothing_and_everything_patched_is_the_other_run(name):
    model = tiny(name)
    task = answer_task(tiny_store(model), model, groups=None)
    batch = task.batch(np.array([0, 1]))
    other = task.batch(np.array([0, 1]))
    other.ids[:, 2] = (other.ids[:, 2] + 3) % 40 + 4
    cache, values = record(model, batch), record(model, other)
    corrupt, clean = run_difference(model, batch), run_difference(model, other)
    torch.testing.assert_close(set_difference(model, batch, [], cache, values), corrupt, atol=1e-5, rtol=1e-5)
    with_embedding = [patch("resid_pre", layer=0, values=values[SiteAt("resid_pre", 0)])]
    torch.testing.assert_close(
        run_difference(model, batch, edits=with_embedding), clean, atol=1e-5, rtol=1e-5
    )
    # all components and the embedding of the last position: nothing of the other run is missing at the output
    everything = [*(c for c in all_components(model))]
    from layerprobe.analyses.causes.edited_runs import set_edits

    got = run_difference(model, batch, edits=[*with_embedding, *set_edits(everything, values)])
    torch.testing.assert_close(got, clean, atol=1e-4, rtol=1e-4)


def test_the_direct_path_is_the_change_written_straight_to_the_logits():
    model, _, _, batch, cache, values = runs("llama")
    sender = Component("head", 0, 1)
    got = path_difference(model, batch, sender, None, cache, values)
    from layerprobe.analyses.causes.written_parts import output_projection

    weight, _ = output_projection(model, 0)
    change = torch.einsum(
        "be,ed->bd",
        (values[SiteAt("head_out", 0)] - cache[SiteAt("head_out", 0)])[:, -1, 1].double(),
        weight[1],
    )
    last = model.forward(batch.ids, batch.mask, sites=["resid_post[-1]"])[
        SiteAt("resid_post", model.n_layers - 1)
    ][:, -1]
    expected = batch.difference(model.lens.unembed(last + change.float()))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_paths_through_receivers_isolate_them():
    model, _, _, batch, cache, values = runs("llama")
    corrupt = run_difference(model, batch)
    sender = Component("head", 0, 1)
    through = [
        path_difference(model, batch, sender, receiver, cache, values)
        for receiver in (Component("mlp", 0), Component("head", 2, 0), Component("mlp", 2))
    ]
    assert all(bool((value - corrupt).abs().max() > 1e-6) for value in through)
    nothing = path_difference(
        model,
        batch,
        sender,
        Component("mlp", 2),
        cache,
        {**values, SiteAt("head_out", 0): cache[SiteAt("head_out", 0)]},
    )
    torch.testing.assert_close(nothing, corrupt, atol=1e-5, rtol=1e-5)


def test_ablations_put_in_what_they_say():
    model, _, task, batch, cache, _ = runs("llama")
    at = SiteAt("head_out", 1)
    assert float(Ablation("zero", model, task).values(batch, cache)[at].abs().max()) == 0
    mean = Ablation("mean", model, task).values(batch, cache)[at]
    every = torch.cat([record(model, task.batch(np.array([row])))[at][0] for row in range(len(task))])
    torch.testing.assert_close(mean[0, 0], every.mean(0), atol=1e-5, rtol=1e-5)
    for seed in range(3):
        resampled = Ablation("resample", model, task, seed).values(batch, cache)[at]
        for place, row in enumerate(batch.rows):
            # every prompt gets another one's values, aligned from the end
            donors = [
                other
                for other in range(len(task))
                if torch.allclose(
                    resampled[place, -1], cache[at][list(batch.rows).index(other), -1], atol=1e-5
                )
            ]
            assert donors and int(row) not in donors, (seed, row)


def test_patching_from_another_model_reports_maps_and_intervals():
    model, other = tiny("llama"), tiny("llama", 1)
    result = patching(
        tiny_store(model), model=model, source=other, groups=None, n_bootstrap=100, n_permutations=100
    )
    recovery = result.table[result.table["metric"] == "recovery"]
    assert len(recovery) == len(all_components(model))
    assert {"layer", "position", "token", "estimate"} <= set(result.frames["positions"].columns)
    last = result.frames["positions"].query("position == -1 and layer == 0")["estimate"].item()
    assert np.isfinite(last)
    assert "Recovery by the stream entering a layer" in to_svg(result.plot())
    (finding,) = result.findings
    assert finding.lead and finding.verdict in ("found", "not_found")


def test_positions_count_from_the_end_whatever_the_batches():
    model, other = tiny("llama"), tiny("llama", 1)
    options = {"source": other, "groups": None, "n_bootstrap": 20, "n_permutations": 20}
    one, all_at_once = (
        patching(tiny_store(model), model=model, batch_size=size, **options) for size in (1, 16)
    )
    frames = [result.frames["positions"] for result in (one, all_at_once)]
    np.testing.assert_allclose(frames[0]["estimate"], frames[1]["estimate"], atol=1e-4)
    assert frames[0]["n"].max() == 8 and frames[0].groupby("position")["n"].first().is_monotonic_increasing
    whole = frames[0].query("position == -1").set_index("layer")["estimate"]
    task = answer_task(tiny_store(model), model, groups=None)
    batch = task.batch(np.arange(len(task)))
    cache, (values, clean) = record(model, batch), model_source(task, model, other).run(batch)
    corrupt = run_difference(model, batch)
    by_hand = position_sweep(model, batch, cache, values)[:, :, -1] - corrupt[:, None]
    np.testing.assert_allclose(whole, by_hand.mean(0) / (clean - corrupt).mean(), atol=1e-4)


def test_paths_among_the_strongest_parts_are_reported(tmp_path):
    model, other = tiny("llama"), tiny("llama", 1)
    options = {"source": other, "groups": None, "n_bootstrap": 50, "n_permutations": 50, "positions": False}
    result = patching(tiny_store(model), model=model, paths=3, **options)
    frame = result.frames["paths"]
    effect = result.table[result.table["metric"] == "effect"].set_index("component")["estimate"].abs()
    assert set(frame["sender"]) == set(effect.sort_values().index[-3:])
    assert (frame["receiver"] == "logits").sum() == 3
    assert np.isfinite(frame[["effect", "lo", "hi", "p_familywise", "recovery"]].astype(float)).all(axis=None)
    assert "single paths" in str(result.summary())
    again = read_result(result.to_parquet(tmp_path / "p.parquet"))
    assert str(again.summary()) == str(result.summary())
    assert "paths" not in patching(tiny_store(model), model=model, **options).frames


def test_a_last_layer_part_reaches_the_logits_by_its_direct_path_alone():
    model, other, task, batch, cache, values = runs("llama")
    last = Component("mlp", model.n_layers - 1)
    through = path_effects(
        model, task, model_source(task, model, other), [Path(last, None)], 8, np.zeros(len(task))
    )
    alone = set_difference(model, batch, [last], cache, values)
    np.testing.assert_allclose(through[batch.rows, 0], alone.numpy(), atol=1e-5)


def test_runs_that_do_not_align_are_refused():
    llama, gpt2 = tiny("llama"), tiny("gemma2")
    task = answer_task(tiny_store(llama), llama, groups=None)
    with pytest.raises(LayerprobeError, match="d_head"):
        model_source(task, llama, gpt2)
    with pytest.raises(LayerprobeError, match="other weights"):
        answer_task(tiny_store(llama), tiny("llama", 1), groups=None)
    with pytest.raises(LayerprobeError, match="'contrast'"):
        patching(tiny_store(llama), model=llama, source="base", groups=None)
