"""Small random-weight models of every architecture that layerprobe is tested on, as ordinary Hugging Face
folders.

`tiny_model("llama")` returns a folder with config, safetensors and a small fast tokenizer, made once per
session. Random weights are scaled up so that the differences a test looks for are not lost in rounding.
"""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

_TEXT = """
the a cat dog baker pilot was is were at in on park house late early happy sad who what question
answer : . , ? ! yes no unknown and or not of to it he she they one two three four five red blue old
young user assistant system said
"""
WORDS = _TEXT.split()
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
CHAT_TEMPLATE = (
    "<s>{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
VOCAB = len(SPECIAL) + len(WORDS) + (-(len(SPECIAL) + len(WORDS)) % 8)
LAYERS, WIDTH, HEADS, KV = 3, 32, 4, 2

_LLAMA: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "max_position_embeddings": 64,
}
_OLD: dict[str, Any] = {k: v for k, v in _LLAMA.items() if k != "num_key_value_heads"}
_MOE: dict[str, Any] = {**_LLAMA, "num_experts_per_tok": 2}
_GEMMA: dict[str, Any] = {**_LLAMA, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}
# Granite's: what the embedding, each branch, the attention scores and the logits are scaled by
_MULTIPLIERS: dict[str, Any] = {
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.25,
    "logits_scaling": 4.0,
}

# name -> (transformers configuration class, its settings): the one list that tests and the docs' table go by
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}),
    "gpt_neox": ("GPTNeoXConfig", _OLD),
    "gpt_neox_sequential": ("GPTNeoXConfig", {**_OLD, "use_parallel_residual": False}),
    "opt": (
        "OPTConfig",
        {
            "hidden_size": WIDTH,
            "ffn_dim": 48,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": WIDTH,
        },
    ),
    "opt_350m": (
        "OPTConfig",
        {
            "hidden_size": WIDTH,
            "ffn_dim": 48,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
            "do_layer_norm_before": False,
        },
    ),
    "bloom": ("BloomConfig", {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS}),
    "llama": ("LlamaConfig", _LLAMA),
    "mistral": ("MistralConfig", {**_LLAMA, "sliding_window": 8}),
    "mixtral": ("MixtralConfig", {**_MOE, "num_local_experts": 4}),
    "qwen2": ("Qwen2Config", _LLAMA),
    "qwen3": ("Qwen3Config", {**_LLAMA, "head_dim": 16}),
    "qwen3_moe": ("Qwen3MoeConfig", {**_MOE, "head_dim": 16, "num_experts": 4, "moe_intermediate_size": 24}),
    "gemma2": ("Gemma2Config", {**_GEMMA, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 10.0}),
    "gemma3": ("Gemma3TextConfig", _GEMMA),
    "phi3": ("Phi3Config", _LLAMA),
    "cohere2": ("Cohere2Config", {**_LLAMA, "logit_scale": 0.25, "sliding_window": 8}),
    "glm4": ("Glm4Config", {**_LLAMA, "head_dim": 8}),
    "mpt": ("MptConfig", {"d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "max_seq_len": 64}),
    "olmo2": ("Olmo2Config", _LLAMA),
    "falcon": (
        "FalconConfig",
        {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
    ),
    "falcon_new": (
        "FalconConfig",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "new_decoder_architecture": True,
            "num_kv_heads": KV,
        },
    ),
    "stablelm": ("StableLmConfig", {**_LLAMA, "use_qkv_bias": True}),
    "granite": ("GraniteConfig", {**_LLAMA, **_MULTIPLIERS}),
    "granite_moe": ("GraniteMoeConfig", {**_MOE, **_MULTIPLIERS, "num_local_experts": 4}),
    "bert": ("BertConfig", _OLD),
    "roberta": ("RobertaConfig", {**_OLD, "max_position_embeddings": 66}),
    "modernbert": ("ModernBertConfig", {**_OLD, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2}),
    "gemma3_multimodal": ("Gemma3Config", {}),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", {}),
}
ENCODERS = ("bert", "roberta", "modernbert")
MULTIMODAL = ("gemma3_multimodal", "qwen2_5_vl")
DECODERS = tuple(name for name in ARCHITECTURES if name not in (*ENCODERS, *MULTIMODAL))


@cache
def _root() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="layerprobe-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def tiny_tokenizer(*, bos: bool = True) -> Any:
    """A word-level fast tokenizer over `WORDS` that writes BOS itself and has a chat template."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=64,
    )


def tiny_config(name: str, **overrides: Any) -> Any:
    """The transformers configuration of an architecture, a few layers of width 32."""
    import transformers

    kind, settings = ARCHITECTURES[name]
    ids = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if name in MULTIMODAL:
        return _multimodal_config(name, ids, overrides)
    return getattr(transformers, kind)(**{**settings, **ids, **overrides})


def _multimodal_config(name: str, ids: dict[str, int], overrides: dict[str, Any]) -> Any:
    import transformers

    if name == "gemma3_multimodal":
        vision = {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        }
        text = transformers.Gemma3TextConfig(**{**_GEMMA, **ids, **overrides})
        return transformers.Gemma3Config(
            text_config=text,
            vision_config=vision,
            mm_tokens_per_image=4,
            image_token_index=3,
            boi_token_index=4,
            eoi_token_index=5,
        )
    # head width 8: the three rotary sections split its four frequencies
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "patch_size": 14,
        "fullatt_block_indexes": [1],
    }
    text = {**_LLAMA, **ids, "rope_parameters": rope, **overrides}
    tokens = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6}
    return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)


def build(name: str, *, seed: int = 0, **overrides: Any) -> Any:
    """A random-weight transformers model in float32, in eval mode; biases and norms random too, so that none
    is trivial."""
    import transformers

    config = tiny_config(name, **overrides)
    kind = transformers.AutoModel if name in ENCODERS else transformers.AutoModelForCausalLM
    kind = transformers.AutoModelForImageTextToText if name in MULTIMODAL else kind
    torch.manual_seed(seed)
    return randomised(kind.from_config(config).eval(), seed)


def randomised(model: Any, seed: int = 0) -> Any:
    """The model with every parameter drawn anew, biases and norms too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * 0.15)
            else:
                parameter.add_(noise * 0.1)
    return model


def tiny_model(name: str, *, seed: int = 0, **overrides: Any) -> Path:
    """A local model folder of this architecture, made once per session.

    Args:
        name: a key of `ARCHITECTURES`.
        seed: of the random weights.
        **overrides: configuration settings to change.
    """
    tag = "-".join([name, str(seed), *(f"{k}={v}" for k, v in sorted(overrides.items()))])
    folder = _root() / tag.replace("/", "_").replace(" ", "")
    if not (folder / "config.json").exists():
        build(name, seed=seed, **overrides).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_reward_model(name: str = "llama", *, seed: int = 0) -> Path:
    """A local folder of an `AutoModelForSequenceClassification` with one output: a reward model."""
    import transformers

    folder = _root() / f"reward-{name}-{seed}"
    if not (folder / "config.json").exists():
        torch.manual_seed(seed)
        config = tiny_config(name, num_labels=1)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.15)
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return folder
