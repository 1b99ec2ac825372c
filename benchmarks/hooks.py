"""What keeping every layer's resid_post costs, over the bare forward pass: the engines and their peers.

    python benchmarks/hooks.py [--device cuda] [--rounds 9]

Every contender runs the same batches through the same random-weight Llama and keeps all resid_post in memory.
"Bare" is the
body alone (no language-model head), keeping nothing. Contenders take turns within a round, so that whatever
else the machine
does falls on all of them; the figure is the median over rounds of the ratio to bare in the same round.
"""

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable
from datetime import date
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from _results import publish

from layerprobe.hooks.weights.load import load_model

LAYERS, WIDTH, VOCAB, SHAPE = 8, 384, 8192, (4, 96)


def build() -> Any:
    """A Llama of 8 layers of width 384: big enough that arithmetic, not Python, is what takes the time."""
    config = transformers.LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=6,
        num_key_value_heads=6,
        vocab_size=VOCAB,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def tokenizer() -> Any:
    """A word-level tokenizer; the benchmark runs on token ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(VOCAB)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0", pad_token="w1")


def contenders(device: str) -> dict[str, Callable[[torch.Tensor, torch.Tensor], Any]]:
    """name -> (ids, mask) -> all resid_post."""
    import nnsight
    from transformer_lens.model_bridge import TransformerBridge

    module = build().to(device)
    options: dict[str, Any] = {"tokenizer": tokenizer(), "check": False}
    engines = {
        name: load_model(build().to(device), engine=name, **options)
        for name in ("nnsight", "transformer_lens")
    }
    engines["huggingface"] = load_model(module, **options)
    bridge = TransformerBridge.boot_transformers(
        "bench", hf_model=build().to(device), tokenizer=tokenizer(), device=device
    )
    wrapped = nnsight.NNsight(build().to(device))
    names = [f"blocks.{layer}.hook_out" for layer in range(LAYERS)]

    def layerprobe_engine(name: str) -> Callable[[torch.Tensor, torch.Tensor], Any]:
        return lambda ids, mask: engines[name].forward(ids, mask, sites=["resid_post"])

    def raw_nnsight(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        kept = []
        with wrapped.trace(input_ids=ids, attention_mask=mask, use_cache=False):
            for layer in range(LAYERS):
                kept.append(wrapped.model.layers[layer].output.save())
        return kept

    def inputs(ids: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
        return {"input_ids": ids, "attention_mask": mask, "use_cache": False}

    return {
        "bare": lambda ids, mask: module.model(**inputs(ids, mask)),
        "layerprobe, huggingface": layerprobe_engine("huggingface"),
        "layerprobe, nnsight": layerprobe_engine("nnsight"),
        "layerprobe, transformer_lens": layerprobe_engine("transformer_lens"),
        "transformers, output_hidden_states (body)": lambda i, m: module.model(
            **inputs(i, m), output_hidden_states=True
        ),
        "transformers, output_hidden_states (with head)": lambda i, m: module(
            **inputs(i, m), output_hidden_states=True
        ),
        "TransformerLens, run_with_cache": lambda i, m: bridge.run_with_cache(
            i, attention_mask=m, names_filter=names
        ),
        "nnsight, trace": raw_nnsight,
    }


def measure(
    device: str, rounds: int, batches: list[tuple[torch.Tensor, torch.Tensor]]
) -> dict[str, list[float]]:
    """Seconds per round of each contender, the order rotating from round to round."""
    runs = contenders(device)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad():
        for run in runs.values():  # warm up
            run(*batches[0])
        for turn in range(rounds):
            names = list(runs)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                gc.collect()
                synchronise(device)
                begin = clock(device)
                for ids, mask in batches:
                    runs[name](ids, mask)
                synchronise(device)
                seconds[name].append(clock(device) - begin)
    return seconds


def clock(device: str) -> float:
    """Seconds; on a CPU those of this process alone, which other work on the machine does not lengthen."""
    return time.process_time() if device == "cpu" else time.perf_counter()


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--batches", type=int, default=2)
    chosen = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(chosen.batches):
        ids = torch.randint(0, VOCAB, SHAPE, generator=generator).to(chosen.device)
        batches.append((ids, torch.ones_like(ids)))
    seconds = measure(chosen.device, chosen.rounds, batches)
    machine = "2-core Xeon, CPU, one thread" if chosen.device == "cpu" else torch.cuda.get_device_name()
    unit = "CPU seconds" if chosen.device == "cpu" else "seconds"
    lines = [
        f"# Keeping every resid_post: time over the bare forward pass ({date.today()}, {machine})",
        "",
        f"Llama, {LAYERS} layers of width {WIDTH}, float32, {chosen.batches} batches of {SHAPE[0]} x "
        f"{SHAPE[1]} tokens, "
        f"median of {chosen.rounds} "
        f"rounds; torch {torch.__version__}, transformers {transformers.__version__}. `python "
        f"benchmarks/hooks.py`",
        "",
        f"| | {unit} | ratio to bare | middle half of rounds |",
        "|---|---|---|---|",
    ]
    for name, times in seconds.items():
        ratios = [t / bare for t, bare in zip(times, seconds["bare"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        middle = statistics.median(ratios)
        lines.append(f"| {name} | {statistics.median(times):.3f} | {middle:.3f} | {low:.3f} - {high:.3f} |")
    lines += [
        "",
        "`output_hidden_states` keeps references instead of copies, and its last entry is after the final "
        f"norm: it holds {LAYERS - 1} of the {LAYERS} `resid_post`.",
    ]
    publish("hooks", lines, device=chosen.device.split(":")[0])


if __name__ == "__main__":
    main()
