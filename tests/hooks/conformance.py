"""The conformance table of docs/engines.md: architecture x site x engine against the float64 reference.

python tests/hooks/conformance.py            # prints the table
python tests/hooks/conformance.py --write    # and puts it into docs/engines.md
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")] if __name__ == "__main__" else []

from oracles.blocks import reference  # noqa: E402
from tiny_models import ARCHITECTURES, VOCAB, tiny_model  # noqa: E402

from layerprobe.hooks.errors import LayerprobeError  # noqa: E402
from layerprobe.hooks.sites import SITES, SiteAt  # noqa: E402
from layerprobe.hooks.weights.load import load_model  # noqa: E402

ENGINES = ("huggingface", "nnsight", "transformer_lens")
COLUMNS = (*(site for site in SITES if site != "lens"), "lens", "logits")
BEGIN, END = "<!-- conformance: begin -->", "<!-- conformance: end -->"
TOLERANCE = 1e-5


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts of twelve tokens: longer than the sliding windows of the tiny models."""
    ids = torch.randint(7, VOCAB, (2, 12), generator=torch.Generator().manual_seed(11))
    return ids, torch.ones_like(ids)


def measure(name: str, engine: str, dtype: str = "float32") -> dict[str, float | str]:
    """Per site, the largest difference over all layers, relative to the reference's largest value; or why
    there is none."""
    folder = tiny_model(name)
    ids, mask = batch()
    want = reference(name, folder, ids, mask)
    try:
        model = load_model(folder, engine=engine, check=False, dtype=dtype)
    except LayerprobeError as error:
        return dict.fromkeys(COLUMNS, str(error))
    found: dict[str, float | str] = {}
    for site in COLUMNS:
        places = (
            [at for at in want if at.site == site] if site != "lens" else [SiteAt("lens", model.n_layers - 1)]
        )
        if site == "logits":
            found[site] = relative(model.logits(ids, mask), want[SiteAt("logits")]) if places else "no head"
            continue
        layered = SiteAt(site, 0 if SITES[site].layered else None)
        reason = model.engine.available(places[0] if places else layered)
        if reason is not None:
            found[site] = reason
            continue
        got = model.forward(ids, mask, sites=places, select=lambda at, value: value.clone())
        if site == "lens":
            found[site] = relative(model.lens.unembed(got[places[0]]), want[SiteAt("logits")])
        else:
            found[site] = max(relative(got[at], want[at]) for at in places)
    return found


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    assert got.shape == want.shape, (got.shape, want.shape)
    return float((got.double() - want.double()).abs().max() / want.abs().max())


def between_engines(name: str) -> dict[str, str]:
    """In bfloat16: largest relative difference of the last resid_post between engines, the plain engine in
    sdpa and in eager."""
    ids, mask = batch()
    outcomes: dict[str, Any] = {}
    for engine in ENGINES:
        try:
            model = load_model(tiny_model(name), engine=engine, check=False, dtype="bfloat16")
        except LayerprobeError:
            continue
        last = SiteAt("resid_post", model.n_layers - 1)
        outcomes[engine] = model.forward(ids, mask, sites=[last])[last]
        if engine == "huggingface":
            model.hf.set_attn_implementation("eager")
            outcomes["eager"] = model.forward(ids, mask, sites=[last])[last]

    def compare(one: str, other: str) -> str:
        if one not in outcomes or other not in outcomes:
            return "-"
        return (
            "0"
            if torch.equal(outcomes[one], outcomes[other])
            else f"{relative(outcomes[one], outcomes[other]):.0e}"
        )

    return {
        "nnsight - huggingface": compare("nnsight", "huggingface"),
        "huggingface eager - sdpa": compare("eager", "huggingface"),
        "transformer_lens - huggingface eager": compare("transformer_lens", "eager"),
    }


def table() -> str:
    """The tables as Markdown."""
    parts = []
    for engine in ENGINES:
        parts += [
            f"### {engine}",
            "",
            "| architecture | " + " | ".join(COLUMNS) + " |",
            "|---" * (len(COLUMNS) + 1) + "|",
        ]
        reasons = []
        for name in ARCHITECTURES:
            found = measure(name, engine)
            cells = [f"{v:.0e}" if isinstance(v, float) else "-" for v in found.values()]
            parts.append(f"| {name} | " + " | ".join(cells) + " |")
            if all(isinstance(v, str) for v in found.values()):
                reasons.append(f"- {name}: {next(iter(found.values()))}")
        parts += ["", *reasons, ""] if reasons else [""]
    parts += ["### bfloat16, between engines", ""]
    rows = {name: between_engines(name) for name in ARCHITECTURES}
    heads = list(next(iter(rows.values())))
    parts += ["| architecture | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    parts += [f"| {name} | " + " | ".join(row.values()) + " |" for name, row in rows.items()]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/engines.md")
    write = parser.parse_args().write
    text = table()
    print(text)
    if write:
        page = ROOT / "docs" / "engines.md"
        old = page.read_text()
        begin, end = old.index(BEGIN) + len(BEGIN), old.index(END)
        page.write_text(f"{old[:begin]}\n\n{text}\n\n{old[end:]}")


if __name__ == "__main__":
    main()
