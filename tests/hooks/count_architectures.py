"""How many of transformers' own architectures are read right: the table of docs/engines.md.

python tests/hooks/count_architectures.py                 # counts and prints, about ten minutes on two cores
python tests/hooks/count_architectures.py --write         # and puts the table into docs/engines.md
python tests/hooks/count_architectures.py --only llama t5 # a few of them

Each architecture that transformers maps to a class is built with a tiny configuration and random weights, and
handed to `load_model` as it is. It is *right* where every `resid_pre` and `resid_post` equals transformers'
own hidden states, *refused* where layerprobe says why it does not read it, and *wrong* otherwise.
"""

import argparse
import collections
import concurrent.futures
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")] if __name__ == "__main__" else []

from tiny_models import HEADS, KV, LAYERS, VOCAB, WIDTH, randomised, tiny_tokenizer  # noqa: E402

from layerprobe.hooks.errors import LayerprobeError  # noqa: E402
from layerprobe.hooks.sites import SiteAt  # noqa: E402
from layerprobe.hooks.weights.load import load_model  # noqa: E402

BEGIN, END = "<!-- count: begin -->", "<!-- count: end -->"
SECONDS = 40  # of processor time, for one architecture
KINDS = {
    "causal": ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "AutoModelForCausalLM"),
    "encoder": ("MODEL_FOR_MASKED_LM_MAPPING_NAMES", "AutoModel"),
    "encoder-decoder": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "AutoModelForSeq2SeqLM"),
}
# What a tiny model is given of the fields that its configuration has
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "output_embedding_size"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), KV),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("decoder_ffn_dim", "ffn_hidden_size", "shared_intermediate_size", "hidden_dim"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_dim"), 8),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts"), 2
    ),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_groups"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx"), 64),
    "max_seq_len": 64,
    "vocab_size": VOCAB,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "sliding_window": 8,
    "first_k_dense_replace": 1,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "state_size": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "type_vocab_size": 2,
    "is_decoder": True,
    "rotary_dim": 4,
    "dropout": 0.0,
}
ALWAYS = ("vocab_size", "pad_token_id", "num_key_value_heads", "head_dim")  # also where the default is None
LATE = ("mamba", "mamba2", "falcon_mamba")  # their hidden states begin after block 0
HYBRID = ["mamba", "attention", "mamba"]
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "num_layers": 4},
    "granitemoehybrid": {"layer_types": HYBRID},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "gemma3n_text": {"num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"] * 2},
    **{
        name: {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
        for name in ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "kimi_linear", "bailing_hybrid")
    },
}


@dataclass(frozen=True)
class Outcome:
    """What became of one architecture: `right`, `refused`, `wrong`, or `not built` here."""

    kind: str
    name: str
    verdict: str
    why: str = ""
    missing: str = ""


def entries(kind: str) -> list[str]:
    """The model types that transformers maps for this kind of model."""
    from transformers.models.auto import modeling_auto

    found = set(getattr(modeling_auto, KINDS[kind][0]))
    return sorted(
        found - set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) if kind == "encoder" else found
    )


def tiny_config(name: str) -> Any:
    """A configuration of this type with every size that it has made small."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    made = CONFIG_MAPPING[name]
    given = _small(made(), made)
    return made(**{**given, **SPECIAL.get(name, {})})


def _small(default: Any, made: Any) -> dict[str, Any]:
    own = {**vars(default)}
    names = {**getattr(made, "attribute_map", {})}
    known = set(own) | set(names)
    given = {
        key: value
        for key, value in SIZES.items()
        if key in known and (key in ALWAYS or own.get(key, 1) is not None)
    }
    if "kv_lora_rank" in known:  # latent attention has as many keys as queries
        given |= {key: HEADS for key in ("num_key_value_heads",) if key in known}
    if "layer_types" in known and isinstance(own.get("layer_types"), list):
        given["layer_types"] = _mixed(own["layer_types"])
    for key, value in own.items():
        if hasattr(value, "to_dict") and key.endswith("config"):
            given[key] = _small(value, type(value))
    return given


def _mixed(types: list[str]) -> list[str]:
    """Layer types of a small model: the last of every kind, as many layers as there are to be."""
    kinds = list(dict.fromkeys(types))
    return [kinds[i % len(kinds)] for i in range(LAYERS)] if len(kinds) > 1 else kinds * LAYERS


def build(kind: str, name: str) -> torch.nn.Module:
    """A random-weight model with a tiny configuration."""
    import transformers

    config = tiny_config(name)
    torch.manual_seed(0)
    auto = getattr(transformers, KINDS[kind][1])
    return randomised(auto.from_config(config).eval())


class _TooSlow(Exception):
    pass


def outcome(kind: str, name: str) -> Outcome:
    """Build, load and judge one architecture."""

    def late(*_: object) -> None:
        raise _TooSlow

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        module = build(kind, name)
    except BaseException as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        return Outcome(kind, name, "not built", f"{type(error).__name__}: {str(error)[:120]}")
    try:
        model = load_model(module, tokenizer=tiny_tokenizer())
        worst = judged(model)
    except LayerprobeError as error:
        return Outcome(kind, name, "refused", str(error))
    except BaseException as error:
        return Outcome(kind, name, "wrong", f"{type(error).__name__}: {str(error)[:200]}")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    missing = ", ".join(getattr(model, "unavailable", {}))
    return Outcome(kind, name, "right" if worst < 1e-4 else "wrong", f"off by {worst:.0e}", missing)


def judged(model: Any) -> float:
    """Largest relative difference of the stream from transformers' own hidden states."""
    ids = torch.randint(7, VOCAB, (1, 9), generator=torch.Generator().manual_seed(2)) % model.vocab_size
    got = model.forward(ids, torch.ones_like(ids), sites=["resid_pre", "resid_post"])
    body = model.hf.get_submodule(model.anatomy.body)
    options = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
    with torch.no_grad():
        out = body(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, **options)
    states = out.hidden_states
    if model.config.model_type in LATE:
        states = (got[SiteAt("resid_pre", 0)], *states)
    pairs = [(got[SiteAt("resid_pre", layer)], states[layer]) for layer in range(model.n_layers)]
    pairs += [(got[SiteAt("resid_post", layer)], states[layer + 1]) for layer in range(model.n_layers - 1)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def table(outcomes: list[Outcome]) -> str:
    """Counts, and why each that is not read is not."""
    lines = ["| kind | entries | right | refused | wrong | not built here |", "|---|---|---|---|---|---|"]
    for kind in KINDS:
        some = [one for one in outcomes if one.kind == kind]
        n = collections.Counter(one.verdict for one in some)
        cells = [len(some), n["right"], n["refused"], n["wrong"], n["not built"]]
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
    for kind in KINDS:
        some = [one for one in outcomes if one.kind == kind]
        right = [
            one.name + (f" (without {one.missing})" if one.missing else "")
            for one in some
            if one.verdict == "right"
        ]
        lines += ["", f"{kind.capitalize()}, right: {', '.join(right) or 'none'}."]
        for verdict in ("refused", "wrong", "not built"):
            names = [one.name for one in some if one.verdict == verdict]
            lines += [f"{verdict.capitalize()}: {', '.join(names)}."] if names else []
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/engines.md")
    parser.add_argument("--only", nargs="+", default=[], help="model types")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("LAYERPROBE_CACHE", "/nonexistent")  # judge anew
    wanted = [(kind, name) for kind in chosen.kind or KINDS for name in entries(kind)]
    wanted = [pair for pair in wanted if not chosen.only or pair[1] in chosen.only]
    outcomes = []
    with concurrent.futures.ProcessPoolExecutor(chosen.processes) as pool:
        for one in pool.map(outcome, *zip(*wanted, strict=True)):
            outcomes.append(one)
            line = f"{one.kind:16}{one.name:28}{one.verdict:10}{one.missing} {one.why}"
            print(line[:330], file=sys.stderr, flush=True)
    text = table(outcomes)
    print(text)
    if chosen.write:
        page = ROOT / "docs" / "engines.md"
        old = page.read_text()
        begin, end = old.index(BEGIN) + len(BEGIN), old.index(END)
        page.write_text(f"{old[:begin]}\n\n{text}\n\n{old[end:]}")


if __name__ == "__main__":
    main()
