"""A model is what it is at the moment of the run: weights changed in place, adapters, hooks, modes, threads.

The right values are transformers' own hidden states.
"""

import threading

import pytest
import torch
from tiny_models import build, tiny_model, tiny_tokenizer

import layerprobe as lp
from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.present_state import adapters, fingerprint, foreign_hooks
from layerprobe.hooks.sites import SiteAt

IDS, MASK = pad([[8, 9, 10, 11, 12], [12, 13]])
LAST = SiteAt("resid_post", 1)  # the last block's is after the final norm in transformers' hidden states


@pytest.fixture(autouse=True)
def fresh_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path))


def wrapped(module, **options):
    return lp.load_model(module, tokenizer=tiny_tokenizer(), check=False, **options)


def states(module):
    with torch.no_grad():
        return module(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[2]


def rows(model):
    return model.forward(IDS, MASK, sites=[LAST])[LAST]


def step(module):
    """A step of training."""
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.05)
    module(input_ids=IDS, labels=IDS).loss.backward()
    optimiser.step()


@pytest.mark.parametrize("from_folder", [True, False])
def test_a_training_step_gives_another_identity(from_folder):
    model = lp.load_model(tiny_model("llama"), check=False) if from_folder else wrapped(build("llama"))
    first = model.identity
    assert model.identity == first
    step(model.hf)
    second = model.identity
    assert second.weights_sha256 != first.weights_sha256
    assert second.weights_sha256 == wrapped(model.hf).identity.weights_sha256
    assert torch.allclose(rows(model)[MASK == 1], states(model.hf)[MASK == 1], atol=1e-5)


def change_data(module):
    module.model.layers[1].mlp.down_proj.weight.data.add_(0.1)


def replace_data(module):
    weight = module.model.layers[1].mlp.down_proj.weight
    weight.data = weight.data + 0.1


def replace_parameter(module):
    linear = module.model.layers[1].mlp.down_proj
    linear.weight = torch.nn.Parameter(linear.weight.detach() + 0.1)


def one_element(module):
    with torch.no_grad():
        module.model.layers[1].mlp.down_proj.weight[5, 7] += 0.1


@pytest.mark.parametrize("change", [change_data, replace_data, replace_parameter, one_element])
def test_every_way_of_changing_weights_is_noticed(change):
    model = wrapped(build("llama"))
    before = model.identity.weights_sha256
    change(model.hf)
    assert model.identity.weights_sha256 != before


def test_running_and_moving_change_nothing():
    model = lp.load_model(tiny_model("gpt2"), check=False)
    before, seen = model.identity, fingerprint(model.hf)
    model.run(["the cat was late"], sites="attn_pattern[0]")
    model.generate(["the cat"], max_new_tokens=2)
    for parameter in model.hf.parameters():
        parameter.data = parameter.data.clone()  # what moving to another device does
    assert model.identity == before
    assert fingerprint(model.hf) == seen


def adapted(module):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_dropout=0.5, target_modules=["q_proj", "down_proj"])
    peft = get_peft_model(module, config)
    peft.add_adapter("other", config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return peft.eval()


def test_each_state_of_adapters_is_another_identity():
    peft = adapted(build("llama"))
    model = wrapped(peft)
    found = {}

    def note(state):
        found[state] = model.identity.weights_sha256
        assert torch.allclose(rows(model)[MASK == 1], states(peft)[MASK == 1], atol=1e-5), state

    note("default")
    peft.set_adapter("other")
    note("other")
    with peft.disable_adapter():
        note("off")
    peft.merge_adapter(["other"])
    note("merged")
    assert len(set(found.values())) == len(found)
    peft.unmerge_adapter()
    peft.set_adapter("default")
    peft.eval()
    with pytest.raises(AssertionError):  # the merge has changed the weights by rounding, and says so
        assert model.identity.weights_sha256 == found["default"]


def test_going_back_to_an_adapter_is_the_same_identity():
    peft = adapted(build("llama"))
    model = wrapped(peft)
    first = model.identity
    peft.set_adapter("other")
    peft.set_adapter("default")
    assert model.identity == first
    assert "default" in first.adapters
    assert adapters(build("llama")) is None


def test_a_captured_file_is_not_taken_for_another_adapters(tmp_path):
    peft = adapted(build("llama"))
    model = wrapped(peft)
    texts = ["the cat was late", "who was it"]
    lp.capture(model, texts, sites="resid_post[1]", tokens="last", path=tmp_path / "a.h5", progress=False)
    peft.set_adapter("other")
    with pytest.raises(lp.LayerprobeError, match="weights_sha256"):
        lp.capture(model, texts, sites="resid_post[1]", tokens="last", path=tmp_path / "a.h5", progress=False)


def steer(module, args, output):
    return output + 1.0


def test_hooks_put_on_by_hand_are_refused_or_recorded():
    module = build("llama")
    model, allowed = wrapped(module), wrapped(module, allow_hooks=True)
    plain, before = allowed.identity, rows(model)
    states(module)  # transformers leaves hooks of its own behind
    assert foreign_hooks(module) == ()
    assert torch.equal(rows(model), before)
    handle = module.model.layers[0].register_forward_hook(steer)
    for run in (
        lambda: rows(model),
        lambda: model.logits(IDS, MASK),
        lambda: model.generate(["the cat"], max_new_tokens=1),
        lambda: wrapped(module),
    ):
        with pytest.raises(lp.LayerprobeError, match=r"layers\.0: .*steer.*allow_hooks=True"):
            run()
    assert torch.allclose(rows(allowed)[MASK == 1], states(module)[MASK == 1], atol=1e-5)
    assert allowed.identity.weights_sha256 != plain.weights_sha256
    assert allowed.identity.as_dict()["hooks"] == [f"model.layers.0: {__name__}.steer"]
    handle.remove()
    assert torch.equal(rows(model), before)
    assert allowed.identity == plain
    assert "hooks" not in plain.as_dict()


def test_a_forward_put_in_place_of_a_modules_own_is_a_hook_too():
    module = build("llama")
    model = wrapped(module)
    own = module.model.layers[0].mlp.forward
    module.model.layers[0].mlp.forward = lambda x: own(x) + 1.0
    with pytest.raises(lp.LayerprobeError, match="put on by hand"):
        rows(model)


@pytest.mark.parametrize("engine", ["huggingface", "nnsight", "transformer_lens"])
def test_the_engines_own_hooks_are_not_foreign(engine):
    model = lp.load_model(tiny_model("gpt2"), engine=engine, check=False)
    model.run("the cat", sites="resid_post")
    model.run("the cat", sites="attn_pattern[0]")
    assert foreign_hooks(model.hf) == ()
    assert model.identity == lp.load_model(tiny_model("gpt2"), engine=engine, check=False).identity


def test_training_mode_anywhere_is_refused_at_every_run():
    from peft import LoraConfig, get_peft_model

    model = wrapped(build("llama"))
    model.hf.model.layers[1].mlp.train()
    with pytest.raises(lp.LayerprobeError, match=r"model\.layers\.1\.mlp.* is in training mode.*\.eval\(\)"):
        rows(model)
    model.hf.eval()
    assert torch.allclose(rows(model)[MASK == 1], states(model.hf)[MASK == 1], atol=1e-5)
    fresh = get_peft_model(build("llama"), LoraConfig(lora_dropout=0.5, target_modules=["q_proj"]))
    with pytest.raises(lp.LayerprobeError, match="training mode"):
        wrapped(fresh)


def test_threads_that_share_a_model_get_their_own_rows():
    module = build("llama")
    one, other = wrapped(module), wrapped(module)
    assert one.lock is other.lock
    want = rows(one)
    push = lp.add("resid_post", layer=0, vector=torch.ones(32), scale=3.0)
    with one.edit(push):
        edited = rows(one)
    wrong = []

    def plain():
        for _ in range(15):
            got = other.forward(IDS, MASK, sites=[LAST, "attn_pattern[0]"])[LAST]
            if not torch.allclose(got, want, atol=1e-5):
                wrong.append("plain")

    def steered():
        for _ in range(15):
            with one.edit(push):
                if not torch.allclose(rows(one), edited, atol=1e-5) or len(one.edits) != 1:
                    wrong.append("edited")

    def guarded(work):
        try:
            work()
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (plain, steered, plain)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []
