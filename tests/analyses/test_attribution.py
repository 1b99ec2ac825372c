import numpy as np
import pytest
import torch
from lens_worlds import tiny, tiny_store

from layerprobe.analyses.causes.answer_task import answer_task
from layerprobe.analyses.causes.attribution import attribution
from layerprobe.analyses.causes.written_parts import attribute, freeze_norm
from layerprobe.analyses.result.words import sentence
from layerprobe.hooks.errors import LayerprobeError

FAMILIES = [
    "gpt2",
    "llama",
    "gemma2",
    "qwen2",
    "gpt_neox",
    "olmo2",
    "bloom",
    "opt_350m",
    "granite",
    "granite_moe",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_mlps_and_embedding_add_up_to_the_logit_difference(name):
    model = tiny(name)
    if not model.anatomy.additive:
        with pytest.raises(LayerprobeError, match="does not add"):
            attribute(model, next(answer_task(tiny_store(model), model, groups=None).batches(4)))
        return
    task = answer_task(tiny_store(model), model, groups=None)
    for batch in task.batches(4):
        parts = attribute(model, batch)
        total = (
            parts.embed
            + parts.heads.sum((1, 2))
            + parts.attention_bias.sum(1)
            + parts.mlp.sum(1)
            + parts.constant
        )
        logits = model.logits(
            batch.ids, batch.mask, positions=torch.full((len(batch.ids),), batch.ids.shape[1] - 1)
        )
        cap = model.lens.head.softcap
        if cap:
            logits = cap * torch.atanh(logits / cap)
        np.testing.assert_allclose(
            total.numpy(), batch.difference(logits).double().numpy(), atol=1e-4, rtol=1e-4
        )


def test_a_summary_says_of_how_many_prompts_it_speaks():
    model = tiny("llama")
    (finding,) = attribution(tiny_store(model), model=model, groups=None).findings
    assert finding.n == 8 and "8 rows" in sentence(finding)


def test_norms_are_recognised_by_what_they_do():
    x = torch.randn(5, 33)
    layer = torch.nn.LayerNorm(33)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    frozen = freeze_norm(layer, x)
    assert frozen.centred
    direction = torch.randn(5, 33).double()
    expected = (layer(x).double() * direction).sum(-1)
    got = (frozen.pull_back(direction) * x.double()).sum(-1) + direction @ frozen.bias
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert not freeze_norm(torch.nn.RMSNorm(33), x).centred
    with pytest.raises(LayerprobeError, match="neither"):
        freeze_norm(torch.nn.Sequential(torch.nn.Linear(33, 33), torch.nn.Tanh()), x)
