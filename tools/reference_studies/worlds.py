"""What the reference studies are run on: random-weight models, small prompt tables, planted arrays.

Nothing is read from disk or drawn without a seed, so that a copy of this folder runs anywhere.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import layerprobe as lp
from layerprobe.probe import demo

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
_WORDS = """
the a cat dog baker pilot was is were at in on park house late early happy sad who what question
answer : . , ? ! yes no unknown and or not of to it he she they one two three four five red blue old
young user assistant system said
"""
WORDS = _WORDS.split()
CHAT_TEMPLATE = (
    "<s>{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
_SIZE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
_GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
#: name -> (transformers configuration, its settings): learnt positions, post-norms, softcaps, experts
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _SIZE),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "olmo2": ("Olmo2Config", _SIZE),
    "gemma2": ("Gemma2Config", {**_SIZE, **_GEMMA, "final_logit_softcapping": 5.0}),
    "mixtral": ("MixtralConfig", {**_SIZE, "num_experts_per_tok": 2, "num_local_experts": 4}),
}


def tokenizer() -> Any:
    """Word-level, writes BOS itself, has a chat template."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, chat_template=CHAT_TEMPLATE, model_max_length=64, **names
    )


def tiny(folder: Path, name: str, seed: int = 0, *, reward: bool = False) -> Path:
    """A random-weight model as a Hugging Face folder; every parameter is drawn, biases and norms too."""
    import transformers

    path = folder / f"{name}-{'reward' if reward else seed}"
    if path.exists():
        return path
    kind, settings = ARCHITECTURES[name]
    ids = {"vocab_size": 72, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, kind)(**settings, **ids, **({"num_labels": 1} if reward else {}))
    auto = "AutoModelForSequenceClassification" if reward else "AutoModelForCausalLM"
    model = getattr(transformers, auto).from_config(config).eval()
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draws)
            parameter.copy_(noise * 0.15 if parameter.dim() > 1 else parameter + noise * 0.1)
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def tiny_rows(n_groups: int = 16) -> list[dict[str, Any]]:
    """Groups of four prompts, two late and two early, in pairs; the answers are yes, the foils no."""
    rows = []
    looks = ("red", "blue", "old", "young")
    for group in range(n_groups):
        where = f"{looks[group % 4]} {looks[group // 4 % 4]} park"  # no prompt occurs in two groups
        for member in range(4):
            kind, who = ("early", "late")[member % 2], ("cat", "dog", "baker", "pilot")[(group + member) % 4]
            rows.append(
                {
                    "id": f"{group}-{member}",
                    "prompt": f"the {who} was {kind} in the {where} . the {who} was {kind} ? answer :",
                    "kind": kind,
                    "topic": "ab"[member // 2],
                    "half": "one" if group < n_groups // 2 else "two",
                    "mood": ("calm", "glad", "sad")[(group + member) % 3],
                    "score": round(0.5 * (member % 2) + 0.013 * group, 3),
                    "statement": f"{group}-{member // 2}",
                    "role": ("target", "contrast")[member % 2],
                    "answer": "yes",
                    "foil": "no",
                    "group": f"g{group}",
                }
            )
    return rows


def tiny_prompts(folder: Path) -> Path:
    """`tiny_rows` as JSONL."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in tiny_rows()), encoding="utf-8")
    return path


def demo_prompts(folder: Path, every: int) -> Path:
    """Every so many groups of the shipped prompts, both kinds of question among them."""
    rows = [json.loads(line) for line in demo.prompts_file().read_text(encoding="utf-8").splitlines()]
    groups = sorted({row["group"] for row in rows})[::every]
    path = folder / f"demo_every_{every}.jsonl"
    kept = [json.dumps(row) + "\n" for row in rows if row["group"] in groups]
    path.write_text("".join(kept), encoding="utf-8")
    return path


def planted(n_groups: int = 40, per_group: int = 3, layers: int = 3, width: int = 12, seed: int = 0) -> Any:
    """Labels of every kind readable from layer 1 on; paraphrases of one item look alike."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    n = len(groups)
    two, three = groups % 2, groups % 3
    grade = rng.normal(size=n)
    x = rng.normal(size=(layers, n_groups, width))[:, groups] + 0.5 * rng.normal(size=(layers, n, width))
    for axis, values in ((0, 2 * two), (1, 1.5 * three), (2, grade)):
        x[1:, :, axis] += values
    subjects = ("bread oven flour", "engine wheel brake", "garden seed soil", "guitar chord song")
    extra = ("early morning", "late night", "by hand", "with friends", "for money")
    texts = [f"{subjects[(g // 2) % 4]} {extra[i % 5]} {g}" for i, g in enumerate(groups)]
    labels = {
        "truth": np.where(two, "yes", "no"),
        "three": np.array(["low", "mid", "top"])[three],
        "grade": grade,
        "within": np.where(np.arange(n) % per_group, "odd", "even"),
        "domain": np.array(["cities", "facts"])[groups % 4 // 2],
    }
    return lp.from_arrays(
        {"resid_post": x.astype(np.float32), "final_norm": x[-1].astype(np.float32)},
        labels=labels,
        groups=groups,
        texts=texts,
        lengths=rng.integers(5, 20, n),
        ids=[f"r{i}" for i in range(n)],
        model_name="planted",
    )


def statements(n_pairs: int = 60, width: int = 8, seed: int = 0) -> Any:
    """Two rows per pair, one saying yes and one no, of which one is true."""
    rng = np.random.default_rng(seed)
    pair = np.repeat(np.arange(n_pairs), 2)
    side = np.tile(["no", "yes"], n_pairs)
    truth = rng.integers(0, 2, n_pairs)[pair] == (side == "yes")
    x = rng.normal(size=(2, n_pairs, width))[:, pair] + 0.2 * rng.normal(size=(2, 2 * n_pairs, width))
    x[:, :, 0] += 2.0 * (side == "yes")
    x[1, :, 1] += 3.0 * truth
    return lp.from_arrays(
        {"resid_post": x.astype(np.float32)},
        labels={"true": truth.astype(int), "side": side},
        groups=pair,
        pairs=pair,
        texts=[f"statement {p} {s}" for p, s in zip(pair, side, strict=True)],
    )


def token_rows(n: int = 80, width: int = 6, seed: int = 0) -> Any:
    """Several rows per prompt; one token of every positive prompt carries the label."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 10, n)
    examples = np.repeat(np.arange(n), lengths)
    positions = np.concatenate([np.arange(k) for k in lengths])
    y = np.arange(n) % 2
    x = rng.normal(size=(2, len(examples), width))
    hit = (positions == rng.integers(0, lengths)[examples]) & (y[examples] == 1)
    x[1, hit, :2] += 5
    return lp.from_arrays(
        {"resid_post": x.astype(np.float32)},
        labels={"y": y},
        groups=np.arange(n),
        examples=examples,
        positions=positions,
    )


def bbq_file(folder: Path) -> Path:
    """Two mirrored BBQ-style questions."""
    rows = []
    for number, (right, wrong) in enumerate((("Muslim", "Hindu"), ("Hindu", "Muslim"))):
        rows.append(
            {
                "example_id": number,
                "question_index": "1",
                "question_polarity": "neg",
                "context_condition": "disambig",
                "category": "Religion",
                "answer_info": {"ans0": [right, right], "ans1": [wrong, wrong], "ans2": ["U", "unknown"]},
                "additional_metadata": {"stereotyped_groups": ["Muslim"]},
                "context": f"A {right} man met a {wrong} man. The {right} man left.",
                "question": "Who left?",
                "ans0": f"The {right} man",
                "ans1": f"The {wrong} man",
                "ans2": "Unknown",
                "label": 0,
            }
        )
    path = folder / "bbq.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path
