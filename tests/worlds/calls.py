"""How every registered analysis is called on a world that it can read, with as few draws as will do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from worlds import arrays, lens, models
from worlds.world import Draw, World

import layerprobe as lp
from layerprobe.analyses.causes.refusal import refusal_direction
from layerprobe.analyses.comparison.readout import mean_difference_readout

NULLS: list[World] = [*arrays.NULL, *lens.NULL, *models.NULL]
PLANTED: list[World] = [*arrays.PLANTED, *lens.PLANTED, *models.PLANTED]
N = 39
"""Relabellings: p is exact at the level, for (39 + 1) / 20 is whole."""
FEW = {"n_permutations": N, "n_bootstrap": 200}
MANY = {"n_permutations": 399, "n_bootstrap": 100}
"""As many as a correction for some ten differences needs."""
PROBE = {"n_folds": 2, "baselines": False}
LENS = {"target": "answer", "foil": "foil"}
Run = Callable[..., Any]


@dataclass(frozen=True)
class Call:
    """How an analysis is called, on which worlds."""

    run: Run
    """Draw, options → result."""
    reads: tuple[str, ...]
    """Shapes of worlds."""
    but: tuple[str, ...] = ()
    """Worlds of that shape in which what it claims is true, or that it cannot read."""
    few: int = 20
    """Draws of `make test`: fewer where each takes long or no test is made."""
    no_null: str = ""
    """Why no world of these is null to it."""

    def worlds(self, among: list[World]) -> list[World]:
        """Those that it can read."""
        return [] if self.no_null else [w for w in among if w.shape in self.reads and w.name not in self.but]


def on_store(name: str, **options: Any) -> Run:
    """`lp.name(store, ...)`."""
    return lambda draw, **more: getattr(lp, name)(draw.store, **{**options, **draw.options, **more})


def on_stores(name: str, **options: Any) -> Run:
    """`lp.name({base: ..., instruct: ...}, ...)`."""
    return lambda draw, **more: getattr(lp, name)(draw.stores, **{**options, **draw.options, **more})


def with_model(name: str, **options: Any) -> Run:
    """`lp.name(store, model=..., ...)`."""
    return lambda draw, **more: getattr(lp, name)(draw.store, model=draw.model, **{**options, **more})


def two_by_two(draw: Draw, **more: Any) -> Any:
    stores = draw.more["four"]
    return lp.two_by_two(stores, by="sensitive", **LENS, **{**MANY, "n_splits": 2, **more})


def compare(draw: Draw, **more: Any) -> Any:
    if draw.store.lens_layers:
        return lp.compare(draw.stores, by="sensitive", **LENS, **{"n_splits": 2, **MANY, **more})
    return lp.compare(draw.stores, label="label", **{**FEW, **draw.options, **more})


def reward_decomposition(draw: Draw, **more: Any) -> Any:
    asked = {"dimensions": ["label", "kind"], "layers": [0], "n_permutations": 0, "n_bootstrap": 2}
    probes = lp.preference_dimensions(draw.store, **asked, **PROBE, **draw.options)
    head = draw.more.get("head")
    if head is None:  # nothing of the directions in question, in states that are spread alike to all sides
        axes = np.concatenate(
            [np.atleast_2d(probes.directions.of(n)["resid_post", 0]) for n in ("label", "kind")]
        )
        head = np.random.default_rng(axes.shape[1]).normal(size=axes.shape[1])
        head = head - np.linalg.pinv(axes) @ (axes @ head)
    given = {"reward": head, "site": "resid_post", "layer": 0, "n_bootstrap": 200}
    given["rewards"] = draw.store.activations("resid_post", layer=0) @ head
    return lp.reward_decomposition(draw.store, probes, **{**given, **draw.options, **more})


def refusal(draw: Draw, **more: Any) -> Any:
    given: dict[str, Any] = {"refusal_tokens": ["no", "unknown", "not"], "max_kl": 100.0}
    given |= {"layer_bound": 1.0, "positions": (-1, -2, -3, -4), **more}
    return refusal_direction(draw.model, draw.more["harmful"], draw.more["harmless"], **given)


def causal(draw: Draw, **more: Any) -> Any:
    given = {**FEW, "n_random": 4, "most": 2, "lookahead": 4, **more}
    return lp.causal(draw.store, model=draw.model, source=draw.more["source"], **given)


def readout(draw: Draw, **more: Any) -> Any:
    return mean_difference_readout(draw.stores, model=draw.model, **more)


def selectivity(draw: Draw, **more: Any) -> Any:
    given = {"n_controls": 3, "n_bootstrap": 200, "n_permutations": 0, **PROBE, **more}
    return lp.selectivity(draw.store, label="tag", types=draw.more["types"], permute="within", **given)


ROWS = ("rows",)
STOPS = "what brings a run back is true of any two models that differ, so that no world of two is null"
CALLS: dict[str, Call] = {
    "linear_probe": Call(on_store("linear_probe", label="label", **FEW, n_folds=2), ROWS),
    "nested_cv": Call(on_store("nested_cv", label="label", n_folds=4, repeats=1), ROWS, few=4),
    "learning_curve": Call(
        on_store("learning_curve", label="label", shares=(0.5, 1.0), n_draws=1, n_bootstrap=20), ROWS, few=4
    ),
    "leave_one_domain_out": Call(
        on_store("leave_one_domain_out", label="label", domain="domain", **FEW, **PROBE), ROWS, few=10
    ),
    "generalisation_matrix": Call(
        on_stores(
            "generalisation_matrix", label="label", method="mass_mean", n_bootstrap=200, baselines=False
        ),
        ROWS,
    ),
    "preference_dimensions": Call(
        on_store("preference_dimensions", dimensions=["label", "kind"], **FEW, **PROBE), ROWS, few=10
    ),
    "score_heads": Call(on_store("score_heads", scores=["grade"], **FEW, **PROBE), ROWS),
    "reward_decomposition": Call(
        reward_decomposition, ROWS, but=("labels shuffled, 1 × 3", "one massive dimension", "duplicates")
    ),
    "separation": Call(on_store("separation", label="label", **FEW), ROWS),
    "unsupervised": Call(on_store("unsupervised", label="label", n_permutations=N), ROWS),
    "aqi": Call(on_store("aqi", label="label", n_seeds=1, **FEW), ROWS, but=("labels shuffled, 1 × 3",)),
    "topic_control": Call(
        on_store("topic_control", label="label", n_draws=N, min_similarity=0.0), ROWS, but=("duplicates",)
    ),
    "drift": Call(on_store("drift", label="kind", start="a", end="b", third="c", n_bootstrap=100), ROWS),
    "contrast_probe": Call(
        on_store("contrast_probe", label="true", side="side", **FEW, restarts=2), ("pairs",), few=8
    ),
    "token_probe": Call(
        on_store("token_probe", label="label", method="mean", strengths=[0.3], **FEW, **PROBE), ("tokens",)
    ),
    "selectivity": Call(selectivity, ("words",)),
    # labels with gaps are refused by compare, which asks for a selection of the prompts
    "compare": Call(compare, ("rows", "lens"), but=("labels missing",)),
    "suppression": Call(on_store("suppression", by="sensitive", **LENS, n_splits=2, **FEW), ("lens",)),
    "two_by_two": Call(two_by_two, ("2x2",), few=6),
    "behaviour": Call(on_store("behaviour", by=["category"], n_bootstrap=100), ("answers",)),
    "attribution": Call(with_model("attribution", n_bootstrap=200), ("model",)),
    "ablation": Call(with_model("ablation", **FEW), ("model",)),
    "patching": Call(with_model("patching", positions=False, **FEW), ("model",)),
    "causal": Call(causal, ("model",), no_null=STOPS),
    "mean_difference_readout": Call(readout, ("model",)),
    "refusal_direction": Call(refusal, ("model",), few=6),
}
"""Kind → call: a new analysis is not complete without its line."""


def found(result: Any) -> list[Any]:
    """What a result claims."""
    return [finding for finding in result.findings if finding.verdict == "found"]
