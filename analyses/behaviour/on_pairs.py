"""Behaviour on contrastive pairs, from the logits that a store already has, or from generated text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..lens.suppression import trajectory_of
from ..lens.trajectories import Variants
from ..reading.pairing import model_key
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer, Column, Columns
from ..result.registry import analysis
from ..statistics.resampling import (
    STORED,
    benjamini_hochberg,
    group_codes,
    resolve_groups,
)
from ..statistics.same_prompts import merge_codes
from ..statistics.shares import share_interval
from .counts import mcnemar, pair_counts, rate_parts
from .on_pairs_view import draw, found


def parse_answer(text: str, options: Sequence[str]) -> str | None:
    """The option that a generation begins with, or None: no guessing from what comes later.

    Leading spaces, quotes, asterisks and an "Answer:" are skipped; the option must end at a word boundary,
    and must not be followed by "or" and another option.

    >>> parse_answer(" **Yes**, because no one else did.", ["yes", "no"])
    'yes'
    >>> [parse_answer(text, ["yes", "no"]) for text in ("I would say yes", "Yes or no?", "yesterday")]
    [None, None, None]
    """
    body = re.sub(r"^[\s\"'*_`(\[]*(?:answer\s*:)?[\s\"'*_`(\[]*", "", text, flags=re.IGNORECASE)
    choices = "|".join(re.escape(option) for option in sorted(options, key=len, reverse=True))
    found = re.match(rf"({choices})\b(?!\W+or\W+(?:{choices})\b)", body, flags=re.IGNORECASE)
    if found is None:
        return None
    return next(option for option in options if option.lower() == found.group(1).lower())


@analysis(
    title="What do the models answer?",
    group="lens",
    guide="contrastive_pairs",
    on="stores",
    without=("generations", "n_bootstrap", "seed"),
    findings=found,
    picture=draw,
)
def behaviour(
    stores: Any,
    *,
    target: Answer = "answer",
    foil: Answer = "foil",
    role: Column = "role",
    by: Columns = (),
    groups: Any = STORED,
    generations: Mapping[Any, Sequence[str]] | None = None,
    model: Any = None,
    variants: Variants = "max",
    right_when: Literal["beats_foil", "top"] = "beats_foil",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> AnalysisResult:
    """a, b, c, d, both forms of MAR and BR, accuracies and exact McNemar for one model or several.

    Args:
        stores: a store, or model name -> store, with pairs and a lens of `target` and `foil`.
        target: lens column of the evidence-supported answer. A prompt is right where its logit beats the
            foil's.
        foil: lens column of the foil.
        role: label column with the values target and contrast.
        by: label columns; one set of counts per combination (category, item direct or reversed, …).
        groups: rows that belong together, for the bootstrap.
        generations: model name -> generated text of every row; judged by `parse_answer`, added as method
            `generated`.
        model: reads the lens now for stores without one (a single store).
        variants: surface variants of an answer by `max` or `logsumexp`.
        right_when: `beats_foil` (the answer's logit is larger), or `top` (the answer is the likeliest of all
            tokens).
        n_bootstrap: takes no effect: intervals of shares need no draws.
        seed: takes no effect either.

    Returns:
        kind `behaviour`; one row per model × method × subset × metric. Counts a, b, c, d have no interval.
        `mcnemar` has p, with q by BH over all models, methods and subsets. `scores`: one row per pair.

    Raises:
        LayerprobeError: no pairs, a pair without both roles, generations of another length.

    Source: misfired alignment, 2606.18656.

    >>> from layerprobe.cache.store.lens_table import LensTable
    >>> from layerprobe.cache.store.memory import from_arrays
    >>> lead = np.full((1, 40), 2.0); lead[0, :12] = -2.0  # 12 of 20 targets are wrong
    >>> lens = LensTable(
    ...     layers=(0,),
    ...     columns=("answer", "foil"),
    ...     candidate_ids=np.tile([[[1], [2]]], (40, 1, 1)),
    ...     candidate_logits=np.stack([lead / 2, -lead / 2], axis=-1)[..., None],
    ...     candidate_ranks=np.zeros((1, 40, 2, 1), int),
    ...     logsumexp=np.full((1, 40), 9.0),
    ...     top_ids=np.zeros((1, 40, 1), int),
    ...     top_logits=np.zeros((1, 40, 1)),
    ...     kl_to_final=np.zeros((1, 40)),
    ... )
    >>> pair = np.tile(np.arange(20).astype(str), 2)
    >>> store = from_arrays(
    ...     {"resid_post": np.zeros((1, 40, 2))},
    ...     labels={"role": ["target"] * 20 + ["contrast"] * 20},
    ...     pairs=pair,
    ...     groups=pair,
    ...     lens=lens,
    ... )
    >>> (finding,) = behaviour(store, n_bootstrap=50).findings
    >>> finding.verdict, finding.estimate
    ('found', 0.6)
    """
    named = (
        {model_key(k): s for k, s in stores.items()}
        if isinstance(stores, Mapping)
        else {stores.model_name: stores}
    )
    texts = {model_key(k): v for k, v in (generations or {}).items()}
    if right_when not in ("beats_foil", "top"):
        raise LayerprobeError(f"right_when={right_when!r}, expected 'beats_foil' or 'top'")
    rows: list[dict[str, Any]] = []
    scores = []
    for name, store in named.items():
        read = trajectory_of(store, target, foil, variants=variants, model=model)
        right = {"logits": read.answer_rank[-1] == 0 if right_when == "top" else read.difference[-1] > 0}
        if name in texts:
            right["generated"] = generated_right(store, texts[name], target, foil)
        members = pair_members(store, role)
        codes = pair_groups(resolve_groups(store, groups), members)
        cells = _subsets(store, members, by)
        for method, correct in right.items():
            correct_target, correct_contrast = correct[members[:, 0]], correct[members[:, 1]]
            scores.append(
                pd.DataFrame(
                    {
                        "model": name,
                        "method": method,
                        "pair": np.asarray(store.pairs)[members[:, 0]],
                        "target_right": correct_target,
                        "contrast_right": correct_contrast,
                    }
                )
            )
            for subset, mask in cells.items():
                fields = {
                    "model": name,
                    "dataset": store.dataset_name,
                    "method": method,
                    "subset": subset,
                    "seed": seed,
                }
                rows += rate_rows(fields, correct_target[mask], correct_contrast[mask], codes[mask])
    tests = [row for row in rows if row["metric"] == "mcnemar"]
    for row, q in zip(tests, benjamini_hochberg([row["p"] for row in tests]), strict=True):
        row["q"] = float(q)
    return AnalysisResult(
        kind="behaviour",
        table=tidy(rows),
        scores=pd.concat(scores, ignore_index=True),
        provenance={
            "target": target,
            "foil": foil,
            "by": list(by),
            "n_bootstrap": n_bootstrap,
            "seed": seed,
            "stores": {name: store.provenance for name, store in named.items()},
        },
    )


def pair_members(store: ActivationStore, role: str = "role") -> NDArray[np.int64]:
    """[pairs, 2] rows of target and contrast, ordered by the pair's name.

    Raises:
        LayerprobeError: the store has no pairs or roles, or a pair has not exactly one of each.
    """
    if store.pairs is None:
        raise LayerprobeError(
            "this store has no pairs; read the prompts with pair=COLUMN (contrastive_pairs makes "
            "such a table)"
        )
    roles = np.asarray(store.labels(role)).astype(str)
    frame = pd.DataFrame(
        {"pair": np.asarray(store.pairs).astype(str), "role": roles, "row": np.arange(store.n_rows)}
    )
    frame = frame[frame["role"].isin(["target", "contrast"]) & ~frame["pair"].isin(["", "None", "nan"])]
    counts = (
        frame.groupby(["pair", "role"])
        .size()
        .unstack(fill_value=0)
        .reindex(columns=["target", "contrast"], fill_value=0)
    )
    bad = counts[(counts != 1).any(axis=1)]
    if len(bad) or not len(counts):
        raise LayerprobeError(
            f"{len(bad)} pairs have not one target and one contrast (first: {list(bad.index[:3])}, by "
            f"the column "
            f"{role!r}); give every pair one row of each role, or leave those rows out"
        )
    return frame.pivot(index="pair", columns="role", values="row")[["target", "contrast"]].to_numpy(
        dtype=np.int64
    )


def generated_right(
    store: ActivationStore, texts: Sequence[str], target: str, foil: str
) -> NDArray[np.bool_]:
    """[rows] the generation begins with the answer; what cannot be parsed is wrong."""
    if len(texts) != store.n_rows:
        raise LayerprobeError(
            f"{len(texts)} generations for {store.n_rows} rows; give one per row, in the store's order"
        )
    answers, foils = (np.asarray(store.labels(column)).astype(str) for column in (target, foil))
    return np.array(
        [parse_answer(text, [a, f]) == a for text, a, f in zip(texts, answers, foils, strict=True)]
    )


def rate_rows(
    fields: dict[str, Any],
    target_right: ArrayLike,
    contrast_right: ArrayLike,
    groups: NDArray[np.int64],
) -> list[dict[str, Any]]:
    """Counts, rates with intervals that own up to groups, and McNemar's test of one set of pairs."""
    counts = pair_counts(target_right, contrast_right)
    size = {"n": int(counts.n), "n_groups": len(np.unique(groups))}
    rows = [{**fields, **size, "metric": name, "estimate": getattr(counts, name)} for name in "abcd"]
    for row in rows:
        row["note"] = "a count of pairs"
    rows += [
        {**fields, **size, "metric": metric, **share_interval(hits, groups, trials=among).row}
        for metric, (hits, among) in rate_parts(target_right, contrast_right).items()
    ]
    rows.append(
        {
            **fields,
            **size,
            "metric": "mcnemar",
            "estimate": counts.c - counts.b,
            "p": mcnemar(int(counts.b), int(counts.c)),
            "note": "c − b; exact two-sided p, pairs taken as independent",
        }
    )
    return rows


def pair_groups(groups: NDArray[np.int64], members: NDArray[np.int64]) -> NDArray[np.int64]:
    """[pairs] group of each pair: those of its two members are one."""
    return group_codes(merge_codes(groups, groups[members])[members[:, 0]])


def _subsets(
    store: ActivationStore, members: NDArray[np.int64], by: Sequence[str]
) -> dict[str, NDArray[np.bool_]]:
    columns = [by] if isinstance(by, str) else list(by)
    cells = {"all": np.ones(len(members), dtype=bool)}
    if not columns:
        return cells
    values = [np.asarray(store.labels(column)).astype(str)[members[:, 0]] for column in columns]
    names = np.array(
        [
            ", ".join(f"{c}={v}" for c, v in zip(columns, row, strict=True))
            for row in zip(*values, strict=True)
        ]
    )
    return {name: names == name for name in np.unique(names)}
