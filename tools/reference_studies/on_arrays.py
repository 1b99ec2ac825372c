"""Reference studies written in Python: arrays in memory, models in hand, and files.

Each is a function of the working folder that yields (name, AnalysisResult) or (name, {name: array}).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from worlds import ARCHITECTURES, bbq_file, planted, statements, tiny, tiny_rows, token_rows

import layerprobe as lp
from layerprobe.probe import demo

Named = Iterator[tuple[str, Any]]
FEW: dict[str, Any] = {"n_permutations": 30, "n_bootstrap": 30}
TEXTS = ["the baker was late . who was late ?", "yes", "the cat was in the park . was it red ? answer :"]


def array_probes(folder: Path) -> Named:
    """Every method, kind of label and way of splitting."""
    store, one = planted(), {"sites": "resid_post", "layers": [1]}
    two_class = ("logistic", "logistic_unscaled", "ridge", "mass_mean", "mass_mean_covariance", "shrunk_lda")
    for method in two_class:
        yield f"truth_{method}", lp.linear_probe(store, label="truth", method=method, **FEW)
    for method in ("logistic", "ridge", "mass_mean_covariance"):
        yield f"three_{method}", lp.linear_probe(store, label="three", method=method, **one, **FEW)
    yield "grade", lp.linear_probe(store, label="grade", method="ridge", **FEW)
    yield "within", lp.linear_probe(store, label="within", class_weight="balanced", **one, **FEW)
    yield "several", lp.linear_probe(store, label=["truth", "three"], **one, **FEW)
    for label in ("truth", "three"):
        yield f"nested_cv_{label}", lp.nested_cv(store, label=label, repeats=2, **one)
    yield "nested_cv_grade", lp.nested_cv(store, label="grade", method="ridge", repeats=2, **one)
    yield "learning_curve", lp.learning_curve(store, label="truth", n_draws=2, n_bootstrap=30, **one)
    yield "domains", lp.leave_one_domain_out(store, label="truth", domain="domain", **one, **FEW)
    by_domain = {d: store.select(store.labels("domain") == d) for d in ("cities", "facts")}
    yield "generalisation", lp.generalisation_matrix(by_domain, label="truth", n_bootstrap=30, **one)
    types = np.arange(len(store.groups)) % 7
    yield (
        "selectivity",
        lp.selectivity(
            store, label="within", types=types, n_controls=3, n_bootstrap=30, n_permutations=0, **one
        ),
    )
    yield from pairs_and_tokens()
    yield from rewards(folder)


def pairs_and_tokens() -> Named:
    """Probes of pairs of statements, and pooled over tokens."""
    for method in ("ccs", "crc"):
        yield method, lp.contrast_probe(statements(), label="true", side="side", method=method, **FEW)
    for method in ("attention", "multimax", "rolling", "exponential", "mean", "last"):
        yield (
            f"tokens_{method}",
            lp.token_probe(
                token_rows(), label="y", method=method, strengths=[0.3], n_folds=3, layers=[1], **FEW
            ),
        )
    store = token_rows()
    words = np.asarray(store.positions) % 5
    labelled = lp.from_arrays(
        {"resid_post": np.array(store.activations("resid_post"))},
        labels={"late": np.where(np.asarray(store.positions) > 3, "late", "early")},
        groups=np.asarray(store.examples),
    )
    yield (
        "selectivity_of_tokens",
        lp.selectivity(labelled, label="late", types=words, n_controls=3, n_bootstrap=30, n_permutations=0),
    )


def array_geometry(folder: Path) -> Named:
    """All indices and spaces, the alignment index in its variants, and what needs no labels."""
    store, x = planted(), {"sites": ["resid_post"]}
    yield (
        "separation",
        lp.separation(store, label="truth", spaces=("raw", "zscored", "whitened"), **x, **FEW),
    )
    yield "separation_three", lp.separation(store, label="three", spaces=("raw",), **x, **FEW)
    yield "separation_within", lp.separation(store, label="within", spaces=("zscored",), **x, **FEW)
    for variant in ("default", "paper", "released"):
        yield f"aqi_{variant}", lp.aqi(store, label="truth", variant=variant, n_seeds=2, **FEW)
    yield "aqi_axis", lp.aqi(store, label="truth", axis="domain", weighting="softmax", n_seeds=2, **FEW)
    other = {"a": planted(), "b": planted(seed=1)}
    yield "aqi_two", lp.aqi(other, label="truth", space="raw", n_seeds=2, **FEW)
    yield "drift", lp.drift(store, label="three", start="low", end="top", third="mid", n_bootstrap=30, **x)
    yield "topic_control", lp.topic_control(store, label="truth", n_draws=30, **x)
    yield "unsupervised", lp.unsupervised(store, label="three", n_permutations=30, **x)
    yield "compare", lp.compare(other, label="truth", sites=["resid_post"], **FEW)


def rewards(folder: Path) -> Named:
    """Preference dimensions in both recipes, score heads joined by id, a reward head and its parts."""
    store = planted()
    at = {"sites": "final_norm"}
    for recipe in ("converged", "published"):
        yield (
            f"dimensions_{recipe}",
            lp.preference_dimensions(store, dimensions=["truth", "within"], recipe=recipe, **at, **FEW),
        )
    targets = pd.DataFrame({"s": np.linspace(1, 5, len(store.ids) - 5)}, index=list(store.ids)[5:])
    yield "score_heads", lp.score_heads(store, scores=["s"], targets=targets, **at, **FEW)
    kinds = ("truth", "three", "grade")
    probes = [lp.preference_dimensions(store, dimensions=[kind], **at, **FEW) for kind in kinds]
    reward = np.linspace(-1, 1, 12)
    yield (
        "decomposition",
        lp.reward_decomposition(store, probes, reward=reward, site="final_norm", n_bootstrap=30),
    )
    weight, bias = lp.reward_head(tiny(folder, "llama", reward=True))
    yield "reward_head", {"weight": weight, "bias": bias}


def models_in_hand(folder: Path) -> Named:
    """Activations at every site, edits, generations and lenses of the shipped and the tiny models."""
    for name in ARCHITECTURES:
        model = lp.load_model(tiny(folder, name), check=False)
        yield f"sites_{name}", all_sites(model, TEXTS)
        yield f"edits_{name}", edited(model)
    for name, path in demo.models().items():
        model = lp.load_model(path, check=False)
        text = [demo.prompts_file().read_text(encoding="utf-8").split('"prompt": "')[1].split('"')[0]]
        yield f"sites_demo_{name}", all_sites(model, text)
        yield f"said_demo_{name}", {"text": model.generate(text, max_new_tokens=4)}
    model = lp.load_model(tiny(folder, "llama"), check=False)
    lens = lp.train_tuned_lens(
        model, TEXTS * 4, steps=20, tokens_per_step=64, learning_rate=1e-2, progress=False
    )
    lens.save(folder / "lens.safetensors")
    loaded = lp.load_tuned_lens(
        lp.load_model(tiny(folder, "llama"), check=False), folder / "lens.safetensors"
    )
    rows = torch.cat(model.run(TEXTS, sites=["resid_post[1]"])["resid_post[1]"])
    yield "tuned_lens", {"logits": loaded.unembed(rows, layer=1)}


def all_sites(model: Any, texts: list[str]) -> dict[str, Any]:
    """Every site of every layer, tokens of all texts in a row."""
    sites = ["embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head_out", "final_norm"]
    found: dict[str, Any] = {}
    for site in sites:
        try:
            acts = model.run(texts, sites=[site])
        except lp.LayerprobeError:
            continue  # an architecture without it, such as resid_mid of parallel blocks
        for at in acts:
            found[str(at)] = torch.cat([part.flatten() for part in acts[at]])
    return found


def edited(model: Any) -> dict[str, Any]:
    """The last layer's stream under every kind of edit."""
    vector = torch.linspace(-1, 1, model.d_model)
    last = f"resid_post[{model.n_layers - 1}]"
    edits = {
        "add": [lp.add("resid_post", layer=0, vector=vector, scale=2.0)],
        "ablate": [lp.ablate("head_out", layer=1, heads=[0])],
        "project_out": [lp.project_out("resid_post", layer=1, directions=vector)],
        "patch": [lp.patch("mlp_out", layer=1, values=vector)],
        "everywhere": lp.ablate_everywhere(model, vector),
    }
    found = {}
    for name, edit in edits.items():
        with model.edit(*edit):
            found[name] = torch.cat(model.run(TEXTS, sites=[last])[last])
            found[f"{name}_said"] = model.generate(TEXTS[:1], max_new_tokens=4)
    return found


def stores_and_pairs(folder: Path) -> Named:
    """Captures to files, in shards and merged; contrastive pairs and what is answered to them."""
    frame = pd.DataFrame(tiny_rows()).rename(columns={"prompt": "text"})
    columns = {
        "labels": ["kind", "answer", "foil", "role"],
        "group": "group",
        "pair": "statement",
        "id": "id",
    }
    table = lp.PromptTable.from_frame(frame, **columns)
    asked: dict[str, Any] = {"sites": ["resid_post", "lens"], "lens_tokens": ["answer", "foil"]}
    stores, models = {}, {}
    for name, kind, seed in (("base", "gemma2", 0), ("tuned", "gemma2", 1)):
        models[name] = lp.load_model(tiny(folder, kind, seed), check=False, name=name)
        path = folder / f"{name}.h5"
        lp.capture(models[name], table, path=path, progress=False, **asked)
        stores[name] = lp.open_store(path)
        yield f"captured_{name}", {"resid_post": stores[name].activations("resid_post")}
        yield f"verified_{name}", {"ok": [bool(lp.verify(path).ok)]}
    shards = lp.capture_shards(
        tiny(folder, "gemma2"), table, out=folder / "s.h5", workers=1, shards=2, progress=False, **asked
    )
    yield "sharded", {"resid_post": shards.activations("resid_post")}
    merged = lp.merge(sorted((folder / "s-shards").glob("*.h5")), folder / "whole.h5", consolidate=True)
    yield "merged", {"resid_post": merged.activations("resid_post")}
    answers = {"target": "answer", "foil": "foil"}
    yield "behaviour", lp.behaviour(stores, by=["kind"], n_bootstrap=30, **answers)
    compared = lp.compare(stores, label="kind", by="kind", **answers, **FEW)
    yield "compare", lp.read_result(compared.to_parquet(folder / "compared.parquet"))
    yield "readout", lp.mean_difference_readout(stores, model=models["tuned"], top_k=3)
    literal = lp.suppression(stores["tuned"], target="yes", foil="unknown", model=models["tuned"], **FEW)
    yield "suppression", literal
    harmful = [row["prompt"] for row in tiny_rows() if row["kind"] == "late"]
    harmless = [row["prompt"] for row in tiny_rows() if row["kind"] == "early"]
    yield (
        "refusal",
        lp.refusal_direction(
            lp.load_model(tiny(folder, "llama"), check=False),
            harmful,
            harmless,
            refusal_tokens=["no"],
            max_kl=50.0,
            positions=(-1, -2),
        ),
    )
    yield from pairs(folder)


def pairs(folder: Path) -> Named:
    """Tables of pairs, the registry, and gaps on picked rows."""
    made = lp.bbq_pairs(bbq_file(folder), priming="Be fair.", prime="both")
    yield "bbq", {"prompts": made.table["prompt"].tolist(), "ids": made.table["id"].astype(str).tolist()}
    plain = lp.pairs_from_table(
        {"prompt": f"Was it {who}?", "role": role, "answer": "yes", "foil": "no", "pair": 1}
        for who, role in (("Ann", "target"), ("Bob", "contrast"))
    )
    yield "plain", {"roles": plain.table["role"].tolist(), "counts": plain.counts["pairs"].tolist()}
    yield "known", {name: sorted(map(str, pair.sources().items())) for name, pair in lp.known_pairs().items()}
    rng = np.random.default_rng(0)
    groups, tuned = np.repeat(np.arange(30), 2), rng.normal(size=60)
    for protocol in ("cross_fitted", "naive"):
        gap = lp.selected_gap(
            tuned, tuned + rng.normal(size=60), groups, protocol=protocol, n_splits=5, n_bootstrap=50
        )
        yield f"gap_{protocol}", {"gap": [gap.estimate, gap.lo, gap.hi, gap.n]}
