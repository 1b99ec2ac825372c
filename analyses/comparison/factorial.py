"""Weights × template: what tuning changed, what the chat template changed, and what only both together do.

Four stores of the same prompts, {base, instruct} × {plain, chat}. Comparing base in plain text with instruct
in its template mixes two causes; here each is read with the other held fixed, and their interaction is paired
over prompts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..lens.suppression import subsets_of, trajectory_of
from ..lens.suppression_index import CI, Draws, read_subset
from ..reading.pairing import Paired, pair_stores
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer, Column, Label
from ..result.registry import analysis
from ..result.words import number
from ..statistics.bounded import from_draws
from ..statistics.resampling import STORED, resolve_groups
from .alikeness import group_jackknife
from .factorial_view import draw, found
from .geometry import JACKKNIFE, crossfit_norm, halves, triple
from .models import compare, lens_columns

Key = tuple[str, str]


@analysis(
    title="Tuning or template?",
    group="compare",
    guide="base_vs_instruct",
    on="stores",
    least=4,
    passes_on=compare,
    without=("reference", "sites", "models"),
    findings=found,
    picture=draw,
    aliases=("comparison_factorial",),
)
def two_by_two(
    stores: Mapping[Any, ActivationStore],
    *,
    target: Answer | None = None,
    foil: Answer | None = None,
    by: Column | None = None,
    label: Label | None = None,
    groups: Any = STORED,
    site: str = "resid_post",
    seed: int = 0,
    n_bootstrap: int = 1000,
    **options: Any,
) -> AnalysisResult:
    """Tuning and template effects with the other factor held fixed, and their interaction.

    Args:
        stores: keys (weights, template) or names WEIGHTS-TEMPLATE, such as `instruct-chat`, two values of
            each; the first weights and the first template are the reference.
        target: label column of the answer (lens), as in `suppression`.
        foil: label column of the foil (lens).
        by: label column that splits the prompts for suppression.
        label: label column with two values, for class differences and directions.
        groups: rows that belong together.
        site: the site compared.
        seed: of all draws.
        n_bootstrap: cluster-bootstrap draws.
        **options: passed to `compare`.

    Returns:
        kind `two_by_two`: `compare`'s rows with a column `effect` ("instruct − base | plain", "chat
        − plain | base", …), and rows with effect "interaction": `mean_shift` per layer (in units of the
        reference's spread), and `suppression_index` per subset (logits). Notes say whether the rows of the
        two templates stand at the same token.

    Raises:
        LayerprobeError: not a full two by two, prompts that do not match, or a template that rewrites the
            prompt's tokens.

    Source: the control of the template is that of 2605.24583.

    >>> from layerprobe.cache.store.memory import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(2, 40, 4))
    >>> stores = {
    ...     (weights, template): from_arrays(
    ...         {"resid_post": x + 3 * (weights == "it") * np.eye(4)[0] + 0.1 * rng.normal(size=x.shape)},
    ...         groups=np.arange(40),
    ...         labels={"kind": np.arange(40) % 2},
    ...     )
    ...     for weights in ("base", "it")
    ...     for template in ("plain", "chat")
    ... }
    >>> result = two_by_two(stores, n_bootstrap=20, n_permutations=20)
    >>> shift = result.table.query("metric == 'mean_shift' and layer == 1").set_index("effect")["estimate"]
    >>> bool(shift["it − base | chat"] > 1 > 0.1 > abs(shift["interaction"]))
    True
    """
    stores = keyed(stores)
    weights, templates = factors(stores)
    contained, same_token = check_alignment(stores, weights, templates)
    tables, verdicts = [], []
    pairs = [((weights[1], t), (weights[0], t), f"{weights[1]} − {weights[0]} | {t}") for t in templates]
    pairs += [
        ((w, templates[1]), (w, templates[0]), f"{templates[1]} − {templates[0]} | {w}") for w in weights
    ]
    for new, old, effect in pairs:
        pair = compare(
            {old: stores[old], new: stores[new]},
            target=target,
            foil=foil,
            by=by,
            label=label,
            groups=groups,
            sites=site,
            seed=seed,
            n_bootstrap=n_bootstrap,
            **options,
        )
        tables.append(pair.table.assign(effect=effect))
        if "verdicts" in pair.frames:
            verdicts.append(pair.frames["verdicts"])
    paired = pair_stores(stores, (weights[0], templates[0]))
    codes = resolve_groups(paired.stores[paired.reference], groups)[paired.order[paired.reference]]
    names = {key: "/".join(key) for key in stores}
    signs = [
        (names[weights[1], templates[1]], 1),
        (names[weights[0], templates[1]], -1),
        (names[weights[1], templates[0]], -1),
        (names[weights[0], templates[0]], 1),
    ]
    extra = shift_interaction(paired, signs, site, codes, seed)
    columns = lens_columns(paired, target, foil)
    if columns[0] is not None and columns[1] is not None:
        extra += index_interaction(paired, signs, columns[0], columns[1], by, codes, n_bootstrap, seed)
    common = {
        "model": names[weights[1], templates[1]],
        "reference": paired.reference,
        "effect": "interaction",
        "seed": seed,
    }
    table = pd.concat([*tables, tidy({**common, **row} for row in extra)], ignore_index=True)
    frames = (
        {"verdicts": pd.concat(verdicts).drop_duplicates(["model", "subset"], ignore_index=True)}
        if verdicts
        else {}
    )
    elsewhere = ", so a template effect includes reading at another token (capture a span to avoid that)"
    note = (
        "The plain prompt's tokens stand unchanged inside the chat prompt for "
        f"{number(contained, 'share')} of prompts; the two templates are read at the same token in "
        f"{number(same_token, 'share')} of rows{'' if same_token == 1 else elsewhere}."
    )
    return AnalysisResult(
        kind="two_by_two",
        table=table,
        frames=frames,
        notes=(note,),
        provenance={
            "weights": weights,
            "templates": templates,
            "seed": seed,
            "target": columns[0],
            "foil": columns[1],
            "by": by,
            "label": label,
        },
    )


def keyed(stores: Mapping[Any, ActivationStore]) -> dict[Key, ActivationStore]:
    """Stores by (weights, template), also where models are named WEIGHTS-TEMPLATE."""
    return {
        key if isinstance(key, tuple) and len(key) == 2 else weights_and_template(key): store
        for key, store in stores.items()
    }


def weights_and_template(name: Any) -> Key:
    """Weights and template of a model by its name.

    >>> weights_and_template("llama-8b-chat")
    ('llama-8b', 'chat')
    """
    weights, _, template = name.rpartition("-") if isinstance(name, str) else ("", "", "")
    if not weights or not template:
        raise LayerprobeError(
            f'two_by_two takes keys (weights, template), such as ("instruct", "chat"), or names '
            f"WEIGHTS-TEMPLATE, and {name!r} is neither; name the four base-plain, base-chat, "
            "instruct-plain, instruct-chat"
        )
    return weights, template


def factors(stores: Mapping[Key, Any]) -> tuple[list[str], list[str]]:
    """The two weights and the two templates, in the order given."""
    keys = list(stores)
    weights, templates = (list(dict.fromkeys(key[i] for key in keys)) for i in (0, 1))
    if len(weights) != 2 or len(templates) != 2 or len(keys) != 4:
        raise LayerprobeError(
            f"two_by_two needs two weights × two templates, got {keys}; for more models use compare"
        )
    return weights, templates


def check_alignment(
    stores: Mapping[Key, Any], weights: list[str], templates: list[str]
) -> tuple[float, float]:
    """Share of prompts whose plain tokens lie unbroken in the chat prompt, and of rows read at one token id.

    Raises:
        LayerprobeError: weights do not see the same tokens under one template.
    """
    for template in templates:
        one, two = (stores[w, template].token_ids() for w in weights)
        if (
            one is not None
            and two is not None
            and any(not np.array_equal(a, b) for a, b in zip(one, two, strict=False))
        ):
            raise LayerprobeError(
                f"{weights[0]} and {weights[1]} were given different tokens under {template!r}; capture "
                "both with one "
                "tokenizer and one template, or the template's effect is credited to tuning"
            )
    plain, chat = (stores[weights[0], template] for template in templates)
    short, long = plain.token_ids(), chat.token_ids()
    if short is None or long is None:
        return float("nan"), float("nan")
    inside = [contains(a, b) for a, b in zip(short, long, strict=True)]
    at = [ids[p] for ids, p in zip((short[e] for e in plain.examples), plain.positions, strict=True)]
    other = [ids[p] for ids, p in zip((long[e] for e in chat.examples), chat.positions, strict=True)]
    return float(np.mean(inside)), float(np.mean(np.array(at) == np.array(other))) if len(at) == len(
        other
    ) else float("nan")


def contains(short: NDArray[Any], long: NDArray[Any]) -> bool:
    """Whether the tokens of `short` (its first, a BOS, aside) stand together in `long`.

    >>> contains(np.array([1, 5, 6]), np.array([1, 9, 5, 6, 9]))
    True
    """
    core = short[1:] if len(short) > 1 else short
    windows = (
        np.lib.stride_tricks.sliding_window_view(long, len(core))
        if len(long) >= len(core)
        else np.empty((0, len(core)))
    )
    return bool((windows == core).all(axis=1).any())


def shift_interaction(
    paired: Paired, signs: list[tuple[str, int]], site: str, groups: NDArray[np.int64], seed: int
) -> list[dict[str, Any]]:
    """Per layer: length of (tuning's mean shift under chat − under plain), over the reference's spread."""
    half, rows = halves(groups, seed), []
    for layer in paired.shared_layers(site):
        change = sum(sign * paired.activations(name, site, layer) for name, sign in signs)
        base = paired.activations(paired.reference, site, layer)
        scale = np.sqrt(np.mean(np.sum((base - base.mean(axis=0)) ** 2, axis=1)))

        def length(mask: NDArray[np.bool_], change: Any = change, scale: float = scale) -> float:
            return (
                crossfit_norm(np.stack([change[mask & side].mean(axis=0) for side in (half, ~half)])) / scale
                if scale > 0
                else float("nan")
            )

        rows.append(
            {
                "metric": "mean_shift",
                "site": site,
                "layer": layer,
                "space": "raw",
                "ci_method": JACKKNIFE,
                "n": len(groups),
                "n_groups": int(groups.max()) + 1,
                **triple("mean_shift", group_jackknife(length, groups, seed=seed)),
            }
        )
    return rows


def index_interaction(
    paired: Paired,
    signs: list[tuple[str, int]],
    target: str,
    foil: str,
    by: str | None,
    groups: NDArray[np.int64],
    n_bootstrap: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Per subset: (suppression index of tuning under chat) − (under plain), paired draw by draw."""
    draws = Draws.make(groups, n_bootstrap=n_bootstrap, n_splits=8, seed=seed)
    rows = []
    for subset, mask in subsets_of(paired.stores[paired.reference], by).items():
        chosen = mask[paired.order[paired.reference]]
        total = sum(
            sign
            * read_subset(
                trajectory_of(paired.stores[name], target, foil).select(paired.order[name]), chosen, draws
            ).index
            for name, sign in signs
        )
        n_groups = draws.n_groups(chosen)
        rows.append(
            {
                "metric": "suppression_index",
                "site": "lens",
                "subset": subset,
                **from_draws("suppression_index", total, difference=True),
                "ci_method": CI,
                "p": bootstrap_t(total, n_groups),
                "n": int(chosen.sum()),
                "n_groups": n_groups,
            }
        )
    return rows


def bootstrap_t(draws: ArrayLike, n_groups: int) -> float:
    """Two-sided p of no difference, by the bootstrap's standard error; NaN where it has none.

    A level can be shared between several interactions by a p, and not by 95 % intervals.

    Args:
        draws: [1 + draws] the estimate, then its draws.
        n_groups: that were drawn.

    >>> draws = np.r_[2.0, 2 + np.random.default_rng(0).normal(size=999)]
    >>> 0.04 < bootstrap_t(draws, 1000) < 0.06
    True
    """
    from scipy.stats import t

    values = np.asarray(draws, dtype=float)
    spread = values[1:].std(ddof=1) if len(values) > 2 else np.nan
    return float(2 * t.sf(abs(values[0]) / spread, n_groups - 1)) if spread > 0 and n_groups > 1 else np.nan
