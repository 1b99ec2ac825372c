"""From text to file: capture against a bare forward pass and against the loops that people write today.

    python benchmarks/capture.py [--prompts 300] [--repeats 3] [--no-peers] [--saelens ENV/bin/python]

The model is a random-weight Llama of 12 layers and width 512 with the tokenizer of stories260K; the prompts
are BBQ Religion contexts with their questions (mixed lengths). Bare means length-sorted batches of 1,024
tokens through the body, no language-model head, nothing kept. Everything else ends with the activations of
every layer on disk. SAELens's cache runner keeps one layer per run and wants another TransformerLens, so it
runs in an environment of its own (benchmarks/_saelens_peer.py).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from _results import publish

from layerprobe import capture, load_model, read_prompts
from layerprobe.cache.prompts.table import PromptTable

DATA = Path(os.environ.get("LAYERPROBE_TEST_DATA", Path(__file__).parents[2] / "shared"))
BATCH = 16


def make_model(folder: Path) -> Any:
    """A random-weight model with a real tokenizer, as an ordinary folder."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DATA / "models" / "stories260K")
    config = LlamaConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=12, num_attention_heads=8, vocab_size=512,
        max_position_embeddings=1024,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_model(folder, device="cpu", check=False)


def encoded(model: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of every text."""
    return [model.encode(text).input_ids for text in texts]


def sorted_batches(ids: list[list[int]], budget: int = 1024) -> list[list[int]]:
    """Indices in batches of at most `budget` tokens, longest first."""
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    out: list[list[int]] = [[]]
    for row in order:
        if out[-1] and (len(out[-1]) + 1) * len(ids[out[-1][0]]) > budget:
            out.append([])
        out[-1].append(row)
    return out


def padded(ids: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and mask."""
    width = max(map(len, ids))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    return tokens, mask


@torch.inference_mode()
def bare(model: Any, texts: list[str], folder: Path, rule: str) -> None:
    """The ceiling: the forward pass of the same tokens and nothing else, identical prompts once."""
    unique = encoded(model, list(dict.fromkeys(texts)))
    for batch in sorted_batches(unique):
        tokens, mask = padded([unique[row] for row in batch])
        model.hf.model(input_ids=tokens, attention_mask=mask, use_cache=False)


def layerprobe(model: Any, texts: list[str], folder: Path, rule: str) -> None:
    """`capture` with everything it does."""
    table = PromptTable(tuple(map(str, range(len(texts)))), tuple(texts))
    capture(model, table, sites="resid_post", tokens=rule, path=folder / "s.h5", progress=False)


@torch.inference_mode()
def transformers_loop(model: Any, texts: list[str], folder: Path, rule: str) -> None:
    """What people write: batches of 16 in order, padding, `output_hidden_states`, `torch.save`."""
    ids = encoded(model, texts)
    for start in range(0, len(ids), BATCH):
        _transformers_batch(model, ids[start : start + BATCH], folder / f"{start}.pt", rule)


@torch.inference_mode()
def transformers_sorted(model: Any, texts: list[str], folder: Path, rule: str) -> None:
    """The same, given length-sorted batches by hand."""
    ids = encoded(model, texts)
    for number, batch in enumerate(sorted_batches(ids)):
        _transformers_batch(model, [ids[row] for row in batch], folder / f"{number}.pt", rule)


def _transformers_batch(model: Any, ids: list[list[int]], path: Path, rule: str) -> None:
    tokens, mask = padded(ids)
    out = model.hf(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
    hidden = torch.stack(out.hidden_states[1:])
    if rule == "last":
        kept = hidden[:, torch.arange(len(ids)), mask.sum(1) - 1]
    else:
        kept = hidden[:, mask.bool()]
    torch.save(kept.clone(), path)


@torch.inference_mode()
def transformer_lens(model: Any, texts: list[str], folder: Path, rule: str) -> None:
    """TransformerLens's bridge, `run_with_cache`, h5py with growing datasets."""
    bridge = _bridge(model)
    names = [f"blocks.{layer}.hook_out" for layer in range(model.n_layers)]
    with h5py.File(folder / "s.h5", "w") as file:
        sets = [file.create_dataset(name, (0, 512), maxshape=(None, 512), chunks=True) for name in names]
        ids = encoded(model, texts)
        for start in range(0, len(ids), BATCH):
            tokens, mask = padded(ids[start : start + BATCH])
            _, cache = bridge.run_with_cache(
                tokens, attention_mask=mask, names_filter=lambda name: name in names
            )
            for name, dataset in zip(names, sets, strict=True):
                value = cache[name]
                rows = (
                    value[torch.arange(len(tokens)), mask.sum(1) - 1]
                    if rule == "last"
                    else value[mask.bool()]
                )
                dataset.resize(len(dataset) + len(rows), axis=0)
                dataset[-len(rows) :] = rows.numpy()


def _bridge(model: Any) -> Any:
    if not hasattr(_bridge, "made"):
        from transformer_lens.model_bridge import TransformerBridge

        _bridge.made = TransformerBridge.boot_transformers(model.source, device="cpu")  # type: ignore[attr-defined]
    return _bridge.made  # type: ignore[attr-defined]


@torch.inference_mode()
def nnsight(model: Any, texts: list[str], folder: Path, rule: str) -> None:
    """nnsight's trace, h5py with growing datasets."""
    import nnsight as library

    if not hasattr(nnsight, "made"):
        nnsight.made = library.LanguageModel(model.hf, tokenizer=model.tokenizer)  # type: ignore[attr-defined]
    wrapped = nnsight.made  # type: ignore[attr-defined]
    with h5py.File(folder / "s.h5", "w") as file:
        sets = [
            file.create_dataset(str(layer), (0, 512), maxshape=(None, 512), chunks=True)
            for layer in range(model.n_layers)
        ]
        ids = encoded(model, texts)
        for start in range(0, len(ids), BATCH):
            tokens, mask = padded(ids[start : start + BATCH])
            with wrapped.trace({"input_ids": tokens, "attention_mask": mask}):
                saved = library.save([layer.output for layer in wrapped.model.layers])
            for value, dataset in zip(saved, sets, strict=True):
                value = value[0] if isinstance(value, tuple) else value
                rows = (
                    value[torch.arange(len(tokens)), mask.sum(1) - 1]
                    if rule == "last"
                    else value[mask.bool()]
                )
                dataset.resize(len(dataset) + len(rows), axis=0)
                dataset[-len(rows) :] = rows.detach().numpy()


Way = Callable[[Any, list[str], Path, str], None]


def measure(ways: list[Way], model: Any, texts: list[str], rule: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of every way, interleaved, after a warm-up on a few prompts."""
    times: dict[str, list[float]] = {}
    for round_number in range(repeats + 1):
        for way in ways:
            folder = Path(tempfile.mkdtemp())
            start = time.perf_counter()
            try:
                way(model, texts[:32] if not round_number else texts, folder, rule)
            except Exception as error:  # a peer that does not run here is reported, not fatal
                print(f"{way.__name__}: {type(error).__name__}: {error}")
                continue
            finally:
                seconds = time.perf_counter() - start
                shutil.rmtree(folder)
            if round_number:
                times.setdefault(way.__name__, []).append(seconds)
    return times


def saelens(python: str, model: Any, texts: list[str], repeats: int) -> float:
    """Seconds that SAELens's runner takes for one layer of as many tokens as the texts have."""
    tokens = sum(map(len, encoded(model, texts)))
    middle = f"model.layers.{model.n_layers // 2}"
    seconds = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as out:
            job = {
                "model": str(model.source),
                "texts": texts,
                "hook": middle,
                "width": model.d_model,
                "out": out,
                "tokens": tokens,
                "threads": torch.get_num_threads(),
            }
            script = Path(__file__).with_name("_saelens_peer.py")
            done = subprocess.run(
                [python, str(script)], input=json.dumps(job), capture_output=True, text=True, check=True
            )
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        seconds.append(answer["seconds"] * tokens / answer["rows"])
    return statistics.median(seconds)


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true", help="leave TransformerLens and nnsight out")
    parser.add_argument("--saelens", metavar="PYTHON", help="a Python that has SAELens")
    options = parser.parse_args()
    table = read_prompts(DATA / "data" / "bbq" / "Religion.jsonl", text="context", labels=["question"])
    both = [f"{text} {q}" for text, q in zip(table.prompts, table.labels["question"], strict=True)]
    step = max(1, len(both) // options.prompts)
    texts = both[::step][: options.prompts]
    ways: list[Way] = [bare, layerprobe, transformers_loop, transformers_sorted]
    if not options.no_peers:
        ways += [transformer_lens, nnsight]
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder))
        ids = encoded(model, texts)
        lengths = np.array([len(one) for one in ids])
        unique = {tuple(one) for one in ids}
        lines = [
            f"# Capture: {len(texts)} prompts of {lengths.min()}-{lengths.max()} tokens ({lengths.sum():,} "
            "in all, "
            f"{sum(map(len, unique)):,} in {len(unique)} different prompts), 12 layers of width 512, float32",
            "",
            f"{datetime.date.today()}, 2-core Xeon, CPU, {torch.get_num_threads()} thread(s), load average "
            f"{os.getloadavg()[0]:.1f} at the start; median of {options.repeats}, interleaved. "
            "Times include tokenising and writing.",
        ]
        for rule in ("last", "all"):
            times = measure(ways, model, texts, rule, options.repeats)
            base = statistics.median(times["bare"])
            lines += [
                "",
                f"`tokens={rule!r}`",
                "",
                "| way | seconds | over bare | over layerprobe |",
                "|---|---|---|---|",
            ]
            for name, seconds in times.items():
                middle = statistics.median(seconds)
                ours = statistics.median(
                    other / mine for other, mine in zip(seconds, times["layerprobe"], strict=True)
                )
                lines.append(f"| {name} | {middle:.2f} | {middle / base:.2f} | {ours:.2f} |")
            if rule == "all" and options.saelens:
                middle = saelens(options.saelens, model, texts, options.repeats)
                ours = middle / statistics.median(times["layerprobe"])
                lines.append(
                    f"| saelens, one layer of 12 | {middle:.2f} | {middle / base:.2f} | {ours:.2f} |"
                )
    publish("capture", lines)


if __name__ == "__main__":
    main()
