"""A family whose parts have names of their own: refused with the call to try, right once it is followed."""

import re

import pytest
import torch
from tiny_models import VOCAB, tiny_tokenizer
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

import layerprobe as lp
from layerprobe.hooks.architecture.names import KNOWN, Names
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.sites import SiteAt

WIDTH, DEPTH, HEADS = 16, 3, 4


class ToyConfig(PretrainedConfig):
    model_type = "toy_of_other_names"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.depth, self.n_heads_here, self.size, self.vocab_size = DEPTH, HEADS, WIDTH, VOCAB


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.ask, self.have, self.give, self.merge = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x, real):
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.ask, self.have, self.give))
        scores = (q @ k.transpose(-1, -2)) / (WIDTH // HEADS) ** 0.5
        hidden = torch.ones(x.shape[1], x.shape[1]).triu(1).bool() | ~real[:, None, None]
        scores = scores.masked_fill(hidden, -1e9)
        return self.merge((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Channels(nn.Module):
    def __init__(self):
        super().__init__()
        self.widen, self.shrink = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x):
        return self.shrink(torch.relu(self.widen(x)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.token_mixer = nn.LayerNorm(WIDTH), Mixing()
        self.between, self.channel_mixer = nn.LayerNorm(WIDTH), Channels()

    def forward(self, x, real):
        x = x + self.token_mixer(self.before(x), real)
        return x + self.channel_mixer(self.between(x))


class Toy(PreTrainedModel):
    config_class = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(VOCAB, WIDTH)
        self.stack = nn.ModuleList(Block() for _ in range(DEPTH))
        self.closing = nn.LayerNorm(WIDTH)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None, output_hidden_states=False, **_):
        x = self.words(input_ids)
        states = [x]
        real = torch.ones_like(input_ids).bool() if attention_mask is None else attention_mask.bool()
        for block in self.stack:
            x = block(x, real)
            states.append(x)
        states[-1] = self.closing(x)
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=tuple(states))


class ToyForWords(PreTrainedModel):
    config_class = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.inner, self.speak = Toy(config), nn.Linear(WIDTH, VOCAB, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.speak

    def forward(self, input_ids, attention_mask=None, **_):
        return CausalLMOutput(logits=self.speak(self.inner(input_ids, attention_mask).last_hidden_state))


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path))
    torch.manual_seed(0)
    return ToyForWords(ToyConfig()).eval()


def printed_call(module, **options):
    with pytest.raises(LayerprobeError) as refused:
        lp.load_model(module, tokenizer=tiny_tokenizer(), **options)
    return re.search(r"load_model\(\.\.\., names=(Names\(.*\))\)", str(refused.value)).group(1)


def test_the_printed_call_loads_the_model(toy):
    call = printed_call(toy)
    assert call == (
        "Names(attention='token_mixer', output_projection='merge', query=('ask', 'have', 'give'), "
        "mlp='channel_mixer', down_projection='shrink', mid_norm='between', final_norm='closing', "
        "config={'num_hidden_layers': 'depth', 'hidden_size': 'size', "
        "'num_attention_heads': 'n_heads_here'})"
    )
    model = lp.load_model(toy, tokenizer=tiny_tokenizer(), names=eval(call, {"Names": lp.Names}))
    ids = torch.randint(7, VOCAB, (2, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        states = toy.inner(ids, output_hidden_states=True).hidden_states
    got = model.forward(ids, torch.ones_like(ids), sites=["resid_pre", "resid_mid", "q", "mlp_act"])
    for layer in range(DEPTH):
        assert torch.equal(got[SiteAt("resid_pre", layer)], states[layer])
    assert got[SiteAt("q", 1)].shape == (2, 6, HEADS, WIDTH // HEADS)
    assert got[SiteAt("mlp_act", 1)].shape == (2, 6, 24)
    assert {f.name: f.difference for f in model.check(again=True).findings}["head sums"] < 1e-5


def test_a_first_guess_is_completed_by_the_next(toy):
    """Each refusal names only what is still missing."""
    given = Names(config={"num_hidden_layers": "depth"})
    call = printed_call(toy, names=given)
    assert "depth" not in call
    assert "token_mixer" in call


def test_the_users_words_come_first():
    both = Names(attention="mine", query=("a", "b", "c")).before(KNOWN)
    assert both.words("attention") == ("mine", *KNOWN.words("attention"))
    assert both.triples()[0] == ("a", "b", "c")
    assert both.words("mlp") == KNOWN.words("mlp")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"attention": 3}, r"Names\(attention=3\): give a name"),
        ({"query": ("q", "k")}, "three names"),
        ({"fused_order": "mixed"}, "blocks, per_head, per_group"),
        ({"config": "depth"}, "give a dict"),
    ],
)
def test_names_that_are_none(bad, message):
    with pytest.raises(LayerprobeError, match=message):
        Names(**bad)


def test_names_of_another_kind_are_refused(toy):
    with pytest.raises(LayerprobeError, match="give Names"):
        lp.load_model(toy, tokenizer=tiny_tokenizer(), names={"attention": "token_mixer"})
    with pytest.raises(LayerprobeError, match=r"no ModuleList of 3 modules there, but at inner\.stack"):
        lp.load_model(
            toy,
            tokenizer=tiny_tokenizer(),
            names=Names(blocks="inner.blocks", config={"num_hidden_layers": "depth"}),
        )
