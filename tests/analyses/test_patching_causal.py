from functools import cache

import numpy as np
import pytest
import torch
from lens_worlds import tiny, tiny_store

from layerprobe.analyses.components import Component, all_components
from layerprobe.analyses.patching_causal import causal, random_like
from layerprobe.hooks.load import load_model


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
    assert abs(table["recovery_of_random_sets"]) < 0.1
    top = result.frames["verdicts"].iloc[0]
    assert top["component"] == "head 1.2" and top["chosen"]
    assert "head 1.2" in str(result.summary()) and result.plot().data


def test_random_sets_have_the_make_up_of_the_chosen_one():
    everything = all_components(tiny("llama"))
    chosen = [Component("head", 0, 1), Component("head", 2, 3), Component("mlp", 1)]
    drawn = random_like(chosen, everything, np.random.default_rng(0))
    assert sorted(c.kind for c in drawn) == ["head", "head", "mlp"] and not set(drawn) & set(chosen)
