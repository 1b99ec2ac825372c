"""How much of a separation is topic? Match prompts of two classes by their words and look again.

Harmful and harmless instructions differ in what they are about, and any encoder separates topics. Here each
prompt of the smaller class gets the prompt of the other class whose words are most alike (tf-idf cosine, one
to one, best total; groups get one partner each; pairs below a similarity are dropped), and the separation of
the matched prompts is set against that of equally many prompts drawn without matching, so that the fall is
not one of sample size.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..reading.labels import read_classes
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Label
from ..result.registry import analysis
from ..statistics.bounded import bounded, null_fields
from ..statistics.resampling import STORED, group_codes, max_t, permutation_p, resolve_groups
from .draws import Draws, drawn_indices
from .spaces import to_space
from .topic_view import draw, found
from .topic_words import match_by_words, words_auroc

INDICES_USED = ("silhouette", "calinski_harabasz")


@analysis(
    title="How much of the separation of “{label}” is topic?",
    group="shape",
    guide="separation",
    findings=found,
    picture=draw,
)
def topic_control(
    store: ActivationStore,
    *,
    label: Label,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    space: str = "zscored",
    groups: Any = STORED,
    min_similarity: float = 0.1,
    n_draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> AnalysisResult:
    """Separation before and after matching the two classes by bag-of-words.

    Args:
        store: one row per prompt, with texts and a label of two values.
        label: that column.
        sites: default: all.
        layers: default: all.
        space: `zscored`, `raw` or `whitened`, fixed by all rows.
        groups: rows that belong together; a prompt is never matched within its group, and all prompts of a
            group are matched with those of one other group, so that whole groups change classes under
            the null.
        min_similarity: tf-idf cosine that a pair must have.
        n_draws: unmatched subsets, label swaps within pairs (the null), and bootstrap draws of pairs.
        level: of intervals.
        seed: of all draws.

    Returns:
        kind `topic_control`; per layer and metric (`silhouette`, `aqi_debiased`) rows of subset `unmatched`
        and `topic-matched` and the `surviving_share` of `aqi_debiased`. `frames["pairs"]`: the matched
        prompts; `frames["words"]`: how well words alone tell the classes apart before and after.

    Raises:
        LayerprobeError: no texts, more than two classes, or fewer than ten pairs.

    Source: optimal one-to-one matching as in Rosenbaum 1989; tf-idf cosine as in Salton & Buckley 1988.

    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> texts = [f"about topic {i // 2 % 10} item {i // 20}" for i in range(60)]  # the same for both classes
    >>> x = rng.normal(size=(1, 60, 8)); x[0, :, 0] += 4 * y
    >>> texts = [f"{text} {c}" for text, c in zip(texts, y)]
    >>> store = from_arrays({"resid_post": x}, labels={"safe": y}, texts=texts)
    >>> result = topic_control(store, label="safe", groups=None, n_draws=20)
    >>> sorted(result.frames)
    ['pairs', 'words']
    """
    from .clusters import layer_rows, site_layers

    labelled = read_classes(store, label)
    codes, classes = labelled.codes, labelled.classes
    if len(classes) != 2:
        raise LayerprobeError(
            f"topic_control needs two classes and {label!r} holds {len(classes)}: {list(classes)}"
        )
    if store.texts is None:
        raise LayerprobeError(
            "topic_control reads the prompts; this store has no texts (pass texts= to from_arrays)"
        )
    if store.n_rows != store.n_prompts:
        raise LayerprobeError(
            f"topic_control needs one row per prompt, and tokens={store.tokens!r} gives several"
        )
    keys = resolve_groups(store, groups)[labelled.rows]
    texts = [store.texts[i] for i in np.asarray(store.examples)[labelled.rows]]
    pairs, similarity, partners = match_by_words(texts, codes, keys, min_similarity=min_similarity)
    n_partners = len(np.unique(partners))
    if n_partners < 10:
        what = "pairs" if n_partners == len(pairs) else "pairs of groups"
        raise LayerprobeError(
            f"only {n_partners} {what} reach min_similarity={min_similarity}; the classes share too few "
            "words "
            "to be matched: lower it, or add prompts of one class about the other's topics"
        )
    matched, draws = _draws(codes, pairs, partners, n_draws, seed)
    rows: list[dict[str, Any]] = []
    nulls = []
    about = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "tokens": store.tokens,
        "target": labelled.name,
    }
    for site, layer in site_layers(store, sites, layers):
        x = to_space(layer_rows(store, site, layer, "cpu", labelled.rows), space)
        place = {**about, "site": site, "layer": layer, "space": space, "seed": seed}
        found, null = _layer(x, matched, draws, level)
        rows += [{**place, "n": 2 * len(pairs), "n_groups": n_partners, **row} for row in found]
        nulls.append(null)
    _add_p(rows, nulls)
    pair_keys = group_codes(np.repeat(partners, 2))
    words = {
        "unmatched": words_auroc(texts, codes, keys, seed),
        "topic-matched": words_auroc(
            [texts[i] for i in pairs.ravel()], codes[pairs.ravel()], pair_keys, seed
        ),
    }
    import pandas as pd

    return AnalysisResult(
        kind="topic_control",
        table=tidy(rows),
        frames={
            "pairs": pd.DataFrame(
                {
                    "similarity": similarity,
                    str(classes[0]): [texts[i] for i in pairs[:, 0]],
                    str(classes[1]): [texts[j] for j in pairs[:, 1]],
                }
            ).sort_values("similarity", ascending=False, ignore_index=True),
            "words": pd.DataFrame({"subset": list(words), "auroc": list(words.values())}),
        },
        provenance={"label": labelled.name, "classes": list(classes), "n_pairs": len(pairs)},
        notes=labelled.notes,
    )


def _draws(
    codes: NDArray[np.int64], pairs: NDArray[np.int64], partners: NDArray[np.int64], n: int, seed: int
) -> tuple[NDArray[np.int64], dict[str, Draws]]:
    """Matched rows; swaps within pairs and bootstrap of pairs over them; unmatched subsets of all rows.

    Pairs of the same partners, which are groups, are swapped and drawn together.
    """
    rng = np.random.default_rng(seed)
    matched = pairs.ravel()
    y = codes[matched]
    units = int(partners.max()) + 1
    swap = np.repeat(rng.integers(0, 2, size=(n, units))[:, partners], 2, axis=1)
    swapped = np.concatenate([y[None], np.where(swap == 1, 1 - y, y)])
    times = rng.multinomial(units, np.full(units, 1 / units), size=n)
    drawn = np.repeat(times[:, partners], 2, axis=1)
    subsets = np.zeros((n, len(codes)), dtype=np.float32)
    for k in (0, 1):
        members = np.flatnonzero(codes == k)
        for one in range(n):
            subsets[one, rng.choice(members, size=len(pairs), replace=False)] = 1
    pair_of = torch.from_numpy(np.repeat(partners, 2))
    once = torch.from_numpy(codes[None])
    return matched, {
        "null": Draws(torch.from_numpy(swapped), 2),
        "boot": Draws(torch.from_numpy(y[None]), 2, torch.from_numpy(drawn.astype(np.float32)), pair_of),
        "subsets": Draws(once, 2, torch.from_numpy(subsets), torch.arange(len(codes))),
    }


def _layer(
    x: torch.Tensor, matched: NDArray[np.int64], draws: dict[str, Draws], level: float
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    null, boot = drawn_indices(x[matched], [draws["null"], draws["boot"]], INDICES_USED)
    (subsets,) = drawn_indices(x, [draws["subsets"]], INDICES_USED)
    n = len(matched)

    def debiased(found: dict[str, Any], chance: float) -> NDArray[np.float64]:
        """n₁n₂ / (n²·XBI) less chance, from CHI / (n − 2)."""
        return (found["calinski_harabasz"].numpy() - chance) / (n - 2)

    # the CHI of noise is 1; of noise in matched pairs it is less, and swaps within pairs say how much
    in_pairs = float(null["calinski_harabasz"][1:].mean())
    tail = [(1 - level) / 2, (1 + level) / 2]
    rows = []
    scored = {
        "silhouette": tuple(found["silhouette"].numpy() for found in (null, boot, subsets)),
        "aqi_debiased": (debiased(null, in_pairs), debiased(boot, in_pairs), debiased(subsets, 1.0)),
    }
    for metric, (chance, spread, everyone) in scored.items():
        lo, hi = np.nanquantile(spread - np.nanmean(spread), tail) + chance[0]
        tests = null_fields(chance[1:])
        how = {"ci_method": "bootstrap of pairs, centred"}
        rows.append(
            {
                "subset": "topic-matched",
                "metric": metric,
                **bounded(metric, chance[0], lo, hi),
                **how,
                **tests,
            }
        )
        low, high = np.quantile(everyone, tail)
        how = {"ci_method": "subsets of equal size"}
        typical = everyone.mean()
        rows.append({"subset": "unmatched", "metric": metric, **bounded(metric, typical, low, high), **how})
        if metric == "aqi_debiased" and typical > 0:
            share = bounded("surviving_share", chance[0] / typical, lo / typical, hi / typical)
            rows.append(
                {
                    "subset": "topic-matched",
                    "metric": "surviving_share",
                    **share,
                    "ci_method": "bootstrap of pairs, centred",
                }
            )
    return rows, null["silhouette"].numpy()


def _add_p(rows: list[dict[str, Any]], nulls: list[NDArray[np.float64]]) -> None:
    table = np.stack(nulls, axis=1)
    p, familywise = permutation_p(table[0], table[1:]), max_t(table[0], table[1:])
    tested = [row for row in rows if row["subset"] == "topic-matched" and row["metric"] == "silhouette"]
    for i, row in enumerate(tested):
        row |= {"p": p[i], "p_familywise": familywise[i]}
