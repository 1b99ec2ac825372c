"""Edits: they do what they say, on every engine, at positions and heads, and leave nothing behind."""

import json

import numpy as np
import pytest
import torch
from tiny_models import VOCAB, tiny_model

from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.interventions import ablate, add, patch, project_out
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model

ENGINES = ("huggingface", "nnsight", "transformer_lens")
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head_out", "q", "k", "v", "mlp_act")
SITES = (*SITES, "attn_pattern")


def texts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(7, VOCAB, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(scope="module", params=ENGINES)
def model(request):
    return load_model(tiny_model("qwen3"), engine=request.param, check=False)


@pytest.fixture(scope="module")
def plain():
    return load_model(tiny_model("qwen3"), check=False)


@pytest.fixture(scope="module")
def batch():
    return pad(texts(9, 6), side="left")


@pytest.mark.parametrize("site", SITES)
def test_zero_scale_is_bitwise_the_unedited_model(model, batch, site):
    vector = torch.ones(1) if site == "attn_pattern" else torch.randn(model.site_shape(site))
    before = model.logits(*batch)
    with model.edit(add(site, layer=1, vector=vector, scale=0.0)):
        assert torch.equal(model.logits(*batch), before)
    with model.edit(add(site, layer=1, vector=vector, scale=2.0)):
        assert not torch.equal(model.logits(*batch), before)
    assert torch.equal(model.logits(*batch), before)


@pytest.mark.parametrize("site", SITES)
def test_engines_agree_on_edited_logits(model, plain, batch, site):
    vector = (
        torch.linspace(-1, 1, plain.site_shape(site)[-1]) if site != "attn_pattern" else torch.tensor([0.1])
    )
    edits = [add(site, layer=1, vector=vector, positions=-1), ablate(site, layer=2, positions=[0, 2])]
    with plain.edit(*edits):
        want = plain.logits(*batch)
    with model.edit(*edits):
        got = model.logits(*batch)
    mask = batch[1].bool()
    assert float((got - want)[mask].abs().max()) < 1e-5


def test_edited_values_are_the_values_seen(model, batch):
    """A capture under an edit keeps the edited value, and the next site follows from it."""
    at, after = SiteAt("resid_post", 0), SiteAt("resid_pre", 1)
    vector = torch.randn(model.d_model)
    before = model.forward(*batch, sites=[at])[at]
    with model.edit(add("resid_post", layer=0, vector=vector)):
        out = model.forward(*batch, sites=[at, after])
    assert torch.allclose(out[at], before + vector)
    assert torch.equal(out[at], out[after])


def test_positions_count_real_tokens(model, batch):
    """Left padding of row 1 is 3 wide: position 2 of its text is column 5."""
    at = SiteAt("resid_post", 0)
    vector = torch.ones(model.d_model)
    before = model.forward(*batch, sites=[at])[at]
    cases = {
        "int": (2, {(0, 2), (1, 5)}),
        "last": (-1, {(0, 8), (1, 8)}),
        "list": ([0, -1], {(0, 0), (0, 8), (1, 3), (1, 8)}),
        "slice": (slice(1, 3), {(0, 1), (0, 2), (1, 4), (1, 5)}),
        "tail": (slice(-2, None), {(0, 7), (0, 8), (1, 7), (1, 8)}),
        "row": (torch.tensor([4, -2]), {(0, 4), (1, 7)}),
    }
    grid = torch.zeros(2, 9, dtype=torch.bool)
    grid[1, 4] = True
    cases["bool"] = (grid, {(1, 4)})
    for name, (positions, want) in cases.items():
        with model.edit(add("resid_post", layer=0, vector=vector, positions=positions)):
            moved = (model.forward(*batch, sites=[at])[at] - before).abs().sum(-1) > 0.5
        assert {tuple(rc) for rc in moved.nonzero().tolist()} == want, name


def test_head_ablation_acts_on_heads_not_on_the_stream(model, batch):
    """Ablating one head removes exactly its contribution, W_O[:, head] z, from the attention output."""
    heads, out = SiteAt("head_out", 1), SiteAt("attn_out", 1)
    before = model.forward(*batch, sites=[heads, out])
    with model.edit(ablate("head_out", layer=1, heads=2)):
        after = model.forward(*batch, sites=[out])[out]
    d = model.d_head
    weight = torch.as_tensor(load_weight("model.layers.1.self_attn.o_proj.weight"))
    share = before[heads][:, :, 2] @ weight[:, 2 * d : 3 * d].T
    mask = batch[1].bool()
    assert float(((before[out] - share) - after)[mask].abs().max()) < 1e-5


def load_weight(name: str) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(tiny_model("qwen3") / "model.safetensors")[name]


def test_project_out_leaves_nothing_along_the_directions(model, batch):
    at = SiteAt("resid_mid", 1)
    directions = torch.randn(3, model.d_model)
    directions[2] = directions[0] * 2  # dependent: the subspace is two-dimensional
    before = model.forward(*batch, sites=[at])[at]
    with model.edit(project_out("resid_mid", layer=1, directions=directions)):
        out = model.forward(*batch, sites=[at])[at]
    assert float((out @ directions.T).abs().max()) < 1e-4
    basis = torch.linalg.qr(directions[:2].double().T)[0]
    want = before.double() - before.double() @ basis @ basis.T
    assert float((out - want).abs().max()) < 1e-5


def test_patching_everything_gives_the_other_run(model):
    """The stream of another text, patched in at one layer, gives the other text's logits."""
    one, other = pad(texts(8)[:1]), pad(texts(8, 8)[1:])
    at = SiteAt("resid_post", 0)
    values = model.forward(*other, sites=[at])[at]
    with model.edit(patch("resid_post", layer=0, values=values)):
        got = model.logits(*one)
    assert float((got - model.logits(*other)).abs().max()) < 1e-5
    last = values[:, -1]
    with model.edit(patch("resid_post", layer=0, values=last, positions=-1)):
        mixed = model.forward(*one, sites=[at])[at]
    assert torch.equal(mixed[:, -1], last)
    assert torch.equal(mixed[:, :-1], model.forward(*one, sites=[at])[at][:, :-1])


def test_mean_and_resample_ablation(model, batch):
    at = SiteAt("mlp_out", 1)
    mean = np.full(model.d_model, 0.25)
    with model.edit(ablate("mlp_out", layer=1, how="mean", values=mean)):
        out = model.forward(*batch, sites=[at])[at]
    assert torch.equal(out, torch.full_like(out, 0.25))
    values = model.forward(*batch, sites=[at])[at].flip(0)
    with model.edit(ablate("mlp_out", layer=1, how="resample", values=values, positions=0)):
        out = model.forward(*batch, sites=[at])[at]
    assert torch.equal(out[0, 0], values[0, 0])


def test_edits_compose_nest_and_leave_nothing_after_an_exception(model, batch):
    before = model.logits(*batch)
    a = add("resid_post", layer=0, vector=torch.ones(model.d_model))
    b = ablate("mlp_out", layer=1)
    with model.edit(a, b):
        both = model.logits(*batch)
    with model.edit(a), model.edit(b):
        assert torch.equal(model.logits(*batch), both)

    def run_into_trouble() -> None:
        with model.edit(a):

            def select(at, value):
                raise RuntimeError("in the middle of a pass")

            model.forward(*batch, sites=["resid_post[1]"], select=select)

    with pytest.raises(RuntimeError, match="in the middle of a pass"):
        run_into_trouble()
    assert torch.equal(model.logits(*batch), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hooked_modules(model))


def hooked_modules(model):
    """Modules that only layerprobe would hook: nnsight keeps hooks of its own on every module."""
    return (
        []
        if model.engine.name == "nnsight"
        else [model.hf.get_submodule(p.block) for p in model.anatomy.blocks]
    )


def test_edits_hold_at_every_step_of_generation(model, plain, batch):
    """Cached generation under an edit equals running the edited model anew on each longer text."""
    vector = torch.linspace(-3, 3, model.d_model)
    edits = [
        add("resid_post", layer=1, vector=vector),
        ablate("head_out", layer=2, heads=[1], positions=slice(2, None)),
    ]
    free = model.generate_ids(*batch, max_new_tokens=4)
    with model.edit(*edits):
        got = model.generate_ids(*batch, max_new_tokens=4, eos_token_id=None)
    ids, mask = batch
    with plain.edit(*edits):
        for _ in range(4):
            new = plain.logits(ids, mask)[:, -1].argmax(-1, keepdim=True)
            ids, mask = torch.cat([ids, new], 1), torch.cat([mask, torch.ones_like(new)], 1)
    assert torch.equal(got, ids)
    assert torch.equal(model.generate_ids(*batch, max_new_tokens=4), free)


def test_start_continues_from_a_cached_stream(model, batch):
    whole = model.logits(*batch)
    for layer in (0, 1, 2):
        at = SiteAt("resid_pre", layer)
        resid = model.forward(*batch, sites=[at])[at]
        assert torch.equal(model.logits(*batch, start=(layer, resid)), whole)
        last = SiteAt("resid_post", 2)
        assert torch.equal(
            model.forward(*batch, sites=[last], start=(layer, resid))[last],
            model.forward(*batch, sites=[last])[last],
        )
    with pytest.raises(LayerprobeError, match=r"skips resid_post\[0\]"):
        model.forward(*batch, sites=["resid_post[0]"], start=(1, resid))
    with pytest.raises(LayerprobeError, match="expected"):
        model.logits(*batch, start=(1, resid[:, 1:]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: add("resid", layer=0, vector=[1.0]), "unknown site 'resid'"),
        (lambda: add("resid_post", vector=[1.0] * 32), "needs layer="),
        (lambda: add("embed", layer=0, vector=[1.0] * 32), "has no layers"),
        (lambda: add("resid_post", layer=3, vector=[1.0] * 32), "out of range"),
        (lambda: add("resid_post", layer=0, vector=[1.0] * 31), "shape \\[31\\], the site has \\[32\\]"),
        (lambda: add("resid_post", layer=0, vector=["a"]), "not an array of numbers"),
        (lambda: add("resid_post", layer=0, vector=[float("nan")] * 32), "NaN"),
        (lambda: ablate("mlp_out", layer=0, heads=1), "no head axis"),
        (lambda: ablate("head_out", layer=0, heads=4), "head 4 is out of range"),
        (lambda: ablate("k", layer=0, heads=2), "head 2 is out of range"),
        (lambda: ablate("mlp_out", layer=0, how="mode"), "choose 'zero'"),
        (lambda: ablate("mlp_out", layer=0, how="mean"), "needs values="),
        (lambda: project_out("resid_post", layer=0, directions=[[0.0] * 32]), "all zero"),
        (lambda: ablate("router_logits", layer=0), "dense"),
        (lambda: ablate("lens", layer=0), "edit resid_post"),
        (lambda: "not an edit", "got str"),
    ],
)
def test_bad_edits_are_refused_before_anything_runs(plain, make, message):
    def enter() -> None:
        with plain.edit(make()):
            raise AssertionError("it was accepted")

    with pytest.raises(LayerprobeError, match=message):
        enter()


def test_a_pattern_that_cannot_be_edited_is_refused():
    model = load_model(tiny_model("opt"), engine="transformer_lens", check=False)
    with pytest.raises(LayerprobeError, match="cannot edit it"), model.edit(ablate("attn_pattern", layer=0)):
        pass


@pytest.mark.parametrize("engine", ENGINES)
def test_stories_continues_as_before_after_an_edit(stories, engine):
    model = load_model(stories, engine=engine, check=False)
    record = json.loads((stories / "reference_greedy.json").read_text())["greedy_ids"]
    bos = torch.tensor([[model.tokenizer.bos_token_id]])

    def continuation() -> list[int]:
        return model.generate_ids(bos, torch.ones_like(bos), max_new_tokens=len(record) - 1)[0].tolist()

    assert continuation() == record
    with model.edit(ablate("resid_post", layer=2)):
        assert continuation() != record
    assert continuation() == record


def test_router_logits_decide_the_experts():
    """An edit at the router must change where tokens go, not only the number it reports."""
    model = load_model(tiny_model("mixtral"), check=False)
    batch = pad(texts(7))
    at = SiteAt("router_logits", 1)
    push = torch.tensor([100.0, 50.0, 0.0, 0.0])
    before = model.logits(*batch)
    with model.edit(patch("router_logits", layer=1, values=push)):
        assert torch.equal(model.forward(*batch, sites=[at])[at][0, 0], push)
        assert float((model.logits(*batch) - before).abs().max()) > 1e-3
