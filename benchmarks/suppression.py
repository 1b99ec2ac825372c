"""What lens trajectories and patching sweeps cost: `python benchmarks/suppression.py`.

1. Lens trajectories of 1,000 prompts at all layers over the bare forward pass of the same length-sorted
   batches (body of the model, no language-model head). Goal: at most 1.15.
2. A sweep that patches every head, one at a time, over TransformerLens's patching helper (as its demo
   does it) on the same model and prompts. Goal: at least 3 times as fast.

Both sides of each are warmed up and interleaved; medians of several runs.
"""

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
import torch
from _results import publish
from tiny_models import WORDS, build, tiny_tokenizer

from layerprobe.analyses.causes.answer_task import AnswerTask
from layerprobe.analyses.causes.edited_runs import record
from layerprobe.analyses.causes.sweeps import head_sweep
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model

SIZES = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 256,
    "vocab_size": 8192,
}
THEIRS, OURS = "TransformerLens patching helper", "layerprobe head sweep"


def model_and_prompts(n: int, low: int, high: int) -> tuple[Any, Any, list[np.ndarray]]:
    """A random-weight Llama of width 256, its transformers module, and n token lists."""
    hf = build("llama", **SIZES)
    model = load_model(hf, tokenizer=tiny_tokenizer(), check=False, name="bench")
    rng = np.random.default_rng(0)
    return hf, model, [np.r_[1, rng.integers(4, 4 + len(WORDS), rng.integers(low, high))] for _ in range(n)]


def alternate(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of every side, run in turn after one warm-up each."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return seconds


def padded(tokens: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, tokens))
    ids, mask = (
        torch.zeros((len(tokens), width), dtype=torch.long),
        torch.zeros((len(tokens), width), dtype=torch.long),
    )
    for row, one in enumerate(tokens):
        ids[row, width - len(one) :], mask[row, width - len(one) :] = torch.as_tensor(one), 1
    return ids, mask


def sorted_batches(tokens: list[np.ndarray], budget: int = 2048) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Length-sorted batches of at most `budget` padded tokens."""
    out, batch = [], []
    for one in sorted(tokens, key=len):
        if batch and (len(batch) + 1) * len(one) > budget:
            out.append(padded(batch))
            batch = []
        batch.append(one)
    return [*out, padded(batch)]


def lens_benchmark(n: int, repeats: int) -> dict[str, list[float]]:
    hf, model, tokens = model_and_prompts(n, 40, 120)
    batches = sorted_batches(tokens)
    candidates = torch.tensor([[5, 6]])

    @torch.no_grad()
    def bare() -> None:
        for ids, mask in batches:
            hf.model(input_ids=ids, attention_mask=mask, use_cache=False)

    sites = [SiteAt("resid_post", layer) for layer in range(model.n_layers)]

    @torch.no_grad()
    def lens() -> None:
        for ids, mask in batches:
            kept = model.forward(ids, mask, sites=sites, select=lambda at, value: value[:, -1].clone())
            final = torch.log_softmax(model.lens.unembed(kept[sites[-1]]).float(), dim=-1)
            for at in sites:
                model.lens.read(
                    kept[at],
                    layer=at.layer,
                    candidate_ids=candidates.expand(len(ids), 2),
                    final_log_probs=final,
                )

    return alternate({"bare forward": bare, "lens at all layers": lens}, repeats)


def patching_benchmark(n: int, repeats: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of both sides, and the largest difference between their results."""
    hf, model, tokens = model_and_prompts(2 * n, 30, 31)
    pair = np.tile([[[5], [6]]], (n, 1, 1))
    task, other = (
        AnswerTask(part, pair, np.arange(n), np.arange(n), None) for part in (tokens[:n], tokens[n:])
    )
    batch, source = task.batch(np.arange(n)), other.batch(np.arange(n))
    bridge = transformer_lens(hf)
    found: dict[str, Any] = {}

    def ours() -> None:
        cache, values = record(model, batch, ("resid_pre", "head_out")), record(model, source, ("head_out",))
        found["ours"] = head_sweep(model, batch, cache, values).mean(0)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return batch.difference(logits[:, -1].float()).mean()

    @torch.no_grad()
    def theirs() -> None:
        import transformer_lens.patching as helpers

        _, cache = bridge.run_with_cache(source.ids, names_filter=lambda name: name.endswith("hook_z"))
        found["theirs"] = helpers.get_act_patch_attn_head_out_all_pos(bridge, batch.ids, cache, metric)

    seconds = alternate({THEIRS: theirs, OURS: ours}, repeats)
    return seconds, float((found["ours"] - found["theirs"].cpu()).abs().max())


def transformer_lens(hf: Any) -> Any:
    """The same weights as a TransformerBridge (its own copy: it changes the module it is given)."""
    import copy
    import tempfile

    from transformer_lens.model_bridge import TransformerBridge

    folder = tempfile.mkdtemp()
    copy.deepcopy(hf).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(folder, device="cpu")
    bridge.tokenizer.padding_side = "left"
    return bridge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--patch-prompts", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    lens = {
        name: statistics.median(s) for name, s in lens_benchmark(options.prompts, options.repeats).items()
    }
    ratio = lens["lens at all layers"] / lens["bare forward"]
    sweeps, gaps = [], []
    for n in options.patch_prompts:
        raw, gap = patching_benchmark(n, options.repeats)
        theirs, ours = (statistics.median(raw[name]) for name in (THEIRS, OURS))
        sweeps += [
            f"| every head patched alone, TransformerLens helper, {n} prompts of 31 tokens "
            f"| {theirs:.2f} | | |",
            f"| the same, layerprobe | {ours:.2f} | {theirs / ours:.2f} times as fast | ≥ 3 |",
        ]
        gaps.append(gap)
    today = datetime.date.today().isoformat()
    lines = [
        f"# Suppression and patching, {today}, 2-core Xeon, CPU ({platform.python_implementation()} "
        f"{platform.python_version()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} thread)",
        "",
        f"Random-weight Llama, {SIZES['num_hidden_layers']} layers of width {SIZES['hidden_size']}, "
        f"{SIZES['num_attention_heads']} heads, "
        f"vocabulary {SIZES['vocab_size']} (the head is a third of the body, as in models of half a "
        f"billion parameters). Medians of {options.repeats} interleaved runs after a warm-up.",
        "",
        "| what | processor seconds | ratio | goal |",
        "| --- | --- | --- | --- |",
        f"| bare forward, {options.prompts} prompts of 41 to 120 tokens | {lens['bare forward']:.2f} | | |",
        f"| lens trajectories at all layers, same batches | {lens['lens at all layers']:.2f} | {ratio:.2f} "
        "of bare | ≤ 1.15 |",
        *sweeps,
        "",
        f"The two sweeps agree to {max(gaps):.1e} logits.",
    ]
    publish("suppression", lines)


if __name__ == "__main__":
    main()
