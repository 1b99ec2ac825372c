"""SAELens's cache runner, run by benchmarks/capture.py with another Python: SAELens wants TransformerLens 3.

    python -m venv ENV && ENV/bin/pip install sae-lens
    python benchmarks/capture.py --saelens ENV/bin/python

Reads {"model", "texts", "hook", "width", "out"} as JSON from standard input, prints seconds, tokens. The
runner keeps one hook per run, joins the texts into contexts of fixed length (which then attend across
texts) and drops what does not fill a last batch. It is given contexts of 128 tokens, eight at a time: batches
of 1,024 tokens without padding.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from sae_lens import CacheActivationsRunner, CacheActivationsRunnerConfig

CONTEXT, BATCH = 128, 8


def run(job: dict, tokens: int, out: Path) -> int:
    """Cache the activations of one hook; the rows cached."""
    config = CacheActivationsRunnerConfig(
        dataset_path="given",
        model_name=job["model"],
        model_class_name="AutoModelForCausalLM",
        model_batch_size=BATCH,
        hook_name=job["hook"],
        d_in=job["width"],
        training_tokens=tokens,
        context_size=CONTEXT,
        new_cached_activations_path=str(out),
        shuffle=False,
        device="cpu",
        buffer_size_gb=BATCH * CONTEXT * job["width"] * 4 * 4 / 1e9,
        streaming=False,
    )
    # loading the model is not part of what is timed
    runner = CacheActivationsRunner(config, override_dataset=Dataset.from_dict({"text": job["texts"]}))
    start = time.perf_counter()
    cached = runner.run()
    job["seconds"] = time.perf_counter() - start
    return len(cached) * CONTEXT


def main() -> None:
    """Warm up on one buffer, then run."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    run(job, 4 * BATCH * CONTEXT, Path(job["out"]) / "warm")
    rows = run(job, job["tokens"], Path(job["out"]) / "run")
    print(json.dumps({"seconds": job["seconds"], "rows": rows}))


if __name__ == "__main__":
    main()
