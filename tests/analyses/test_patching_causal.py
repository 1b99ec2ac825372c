from functools import cache

import numpy as np
import pytest
import torch
from lens_worlds import tiny, tiny_store

from layerprobe.analyses.causes.answer_task import answer_task
from layerprobe.analyses.causes.attribution import contributions
from layerprobe.analyses.causes.causal import causal
from layerprobe.analyses.causes.choice import Patcher, random_sets
from layerprobe.analyses.causes.components import Component, all_components
from layerprobe.analyses.causes.source import model_source
from layerprobe.analyses.result.saving import to_svg
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model


@cache
def planted():
    """A base model, and the same with head 1.2 writing "no" and against "yes" whatever it reads."""
    from tiny_models import build, tiny_tokenizer

    base, changed, tokenizer = tiny("gpt2"), build("gpt2"), tiny_tokenizer()
    width, d_head = changed.config.n_embd, changed.config.n_embd // changed.config.n_head
    unembed = changed.lm_head.weight.detach()
    against = unembed[tokenizer.convert_tokens_to_ids("no")] - unembed[tokenizer.convert_tokens_to_ids("yes")]
    attention = changed.transformer.h[1].attn
    mine = slice(2 * d_head, 3 * d_head)
    with torch.no_grad():
        attention.c_attn.bias[2 * width :][mine] = 5.0  # a value that every token carries
        attention.c_proj.weight[mine] = against
    return base, load_model(changed, tokenizer=tokenizer, check=False, name="instruct")


def test_the_planted_head_is_found_and_nothing_else_does_it():
    base, instruct = planted()
    store = tiny_store(instruct)
    rows = np.flatnonzero(store.labels("answer") == "yes")
    result = causal(
        store,
        model=instruct,
        source=base,
        groups=None,
        rows=rows,
        n_bootstrap=100,
        n_permutations=200,
        n_random=10,
        control=np.flatnonzero(store.labels("answer") == "baker"),
        enough=0.95,
    )
    assert result.provenance["chosen"] == ["head 1.2"]
    table = result.table.set_index("metric")["estimate"]
    assert table["recovery_of_set"] == pytest.approx(1, abs=0.15)  # its new weights read the old value
    assert abs(table["recovery_of_random_sets"]) < 0.15 and abs(table["recovery_of_random_directions"]) < 0.5
    top = result.frames["verdicts"].iloc[0]
    assert top["component"] == "head 1.2" and top["chosen"]
    (finding,) = result.findings
    assert finding.verdict == "found" and "head 1.2" in finding.caveats[0]
    assert "Recovery by each part alone" in to_svg(result.plot())


def test_random_sets_are_as_large_as_the_chosen_one_and_all_different():
    everything = all_components(tiny("llama"))
    chosen = [Component("head", 0, 1), Component("head", 2, 3), Component("mlp", 1)]
    drawn = random_sets(chosen, everything, 12, 0)
    assert len({tuple(s) for s in drawn}) == len(drawn) == 12
    for one in drawn:
        assert sorted(c.kind for c in one) == ["head", "head", "mlp"] and not set(one) & set(chosen)
    few = [*chosen, Component("mlp", 0), Component("mlp", 2), Component("head", 1, 0)]
    assert random_sets(chosen, few, 12, 0) == [sorted(few[3:])]  # a kind that runs out is stood in for
    assert random_sets(chosen, chosen, 12, 0) == []


def patcher_of(parts="heads", where="all"):
    base, instruct = planted()
    task = answer_task(tiny_store(instruct), instruct, groups=None)
    return Patcher(instruct, task, model_source(task, instruct, base), 8, where, parts)


def test_only_parts_that_differ_between_the_runs_are_chosen_among():
    found = patcher_of().differing()
    assert Component("head", 1, 2) in found and Component("mlp", 1) in found
    assert not [c for c in found if c.layer == 0 or (c.layer == 1 and c.kind == "head" and c.head != 2)]
    assert patcher_of("layers").differing()[0] == Component("attn", 1)


def test_random_directions_move_as_far_as_patching_does(monkeypatch):
    from layerprobe.analyses.causes import choice as patching_choice

    patcher, seen = patcher_of(), []
    chosen = [Component("head", 1, 2)]

    def spy(model, batch, components, cache, values, *, where):
        own, other = cache, patcher.source.run(batch, patcher.sites)[0]
        for at in other:
            far, moved = (other[at] - own[at]).norm(dim=-1), (values[at] - own[at]).norm(dim=-1)
            torch.testing.assert_close(moved, far, atol=1e-4, rtol=1e-3)
        at = SiteAt("head_out", 1)
        seen.append(values[at] - own[at])
        return torch.zeros(len(batch.ids))

    monkeypatch.setattr(patching_choice, "set_difference", spy)
    patcher.random_directions(chosen, 2, 0)
    assert not torch.allclose(seen[0], seen[1])


def test_confirmation_on_fresh_prompts_uses_all_of_both_stores():
    base, instruct = planted()
    store = tiny_store(instruct)
    first, second = (store.select(np.isin(store.groups, half)) for half in ([0, 1], [2, 3]))
    options = {"model": instruct, "source": base, "n_bootstrap": 20, "n_permutations": 20, "n_random": 3}
    result = causal(first, confirm=second, groups=None, **options)
    row = result.table.set_index("metric").loc["recovery_of_set"]
    assert row["n"] == second.n_rows and row["split"] == "prompts that did not choose"
    assert result.provenance["chosen"][0] == "head 1.2"
    written = result.frames["verdicts"].set_index("component")["attribution"]
    theirs = tiny_store(base).select(np.isin(store.groups, [2, 3]))
    names, mine = contributions(instruct, answer_task(second, instruct, groups=None))
    other = contributions(base, answer_task(theirs, base, groups=None))[1]
    for place, name in enumerate(names[: len(written)]):
        assert written[str(name)] == pytest.approx((mine - other).mean(axis=0)[place], abs=1e-6)
    with pytest.raises(LayerprobeError, match="shares 4 groups"):
        causal(store, confirm=store, **options)
    with pytest.raises(LayerprobeError, match="shares 8 prompts"):
        causal(store, confirm=store, groups=None, **options)


def test_control_prompts_need_a_source_model():
    _, instruct = planted()
    with pytest.raises(LayerprobeError, match="leave it out"):
        causal(tiny_store(instruct), model=instruct, source="contrast", control=np.array([0]), groups=None)


def test_the_prompts_that_choose_do_not_score(monkeypatch):
    from layerprobe.analyses.causes import causal as patching_causal

    base, instruct = planted()
    store, seen = tiny_store(instruct), {}
    whole = patching_causal.choose
    rows_of_scoring = patching_causal.ablation_rows

    def choose(patcher, **options):
        seen["choosing"] = set(patcher.task.rows)
        return whole(patcher, **options)

    def scoring(patcher, *rest):
        seen["scoring"] = set(patcher.task.rows)
        return rows_of_scoring(patcher, *rest)

    monkeypatch.setattr(patching_causal, "choose", choose)
    monkeypatch.setattr(patching_causal, "ablation_rows", scoring)
    causal(store, model=instruct, source=base, n_bootstrap=10, n_permutations=10, n_random=2)
    groups = {name: set(store.groups[sorted(rows)]) for name, rows in seen.items()}
    assert groups["choosing"] and groups["scoring"] and not groups["choosing"] & groups["scoring"]
    assert len(seen["choosing"] | seen["scoring"]) == store.n_rows
