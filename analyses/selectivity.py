"""Selectivity of token-level probes: does the probe read a property, or has it memorised word types?

A control task (Hewitt & Liang 1909.03368) gives every word type a random label. It can be solved only by
memorising words, so a probe that does well on it shows capacity, not representation. It works where types
recur across groups; for labels of whole prompts it would score chance by construction, and the online
codelength is used instead.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..hooks.errors import LayerprobeError
from .linear_probe import linear_probe
from .resampling import STORED
from .result import AnalysisResult, tidy

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def control_labels(types: NDArray[Any], labels: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """A random label for every type, drawn from the labels' own frequencies.

    Args:
        types: [rows] word type, such as the token id.
        labels: [rows].
        seed: of the draw.
    """
    _, of_row = np.unique(types, return_inverse=True)
    pool = np.asarray(labels)
    drawn = np.random.default_rng(seed).choice(pool, size=int(of_row.max()) + 1)
    return drawn[of_row]


def selectivity(
    store: Any, *, label: str, groups: Any = STORED, types: Any = None, seed: int = 0, **options: Any
) -> AnalysisResult:
    """Balanced accuracy on the label minus that on its control, at every site and layer.

    Args:
        store: with one row per token and a label that differs between tokens.
        label: a label column.
        groups: as `linear_probe`.
        types: [rows] word types; default: the token ids of the store.
        seed: as `linear_probe`, and of the control.
        **options: as `linear_probe`.

    Returns:
        Rows of metric `selectivity` with `estimate` = accuracy − control accuracy, and both beside it.
    """
    kinds = _token_types(store) if types is None else np.asarray(types)
    if kinds.shape != (store.n_rows,):
        raise LayerprobeError(
            f"types has shape {kinds.shape}, expected one for each of the {store.n_rows} rows"
        )
    if label not in store.label_names:
        raise LayerprobeError(
            f"label={label!r} is not a column of this store; have {', '.join(store.label_names)}"
        )
    labels = np.asarray(store.labels(label))
    common = {
        "groups": groups,
        "metrics": ["balanced_accuracy"],
        "n_permutations": 0,
        "seed": seed,
        **options,
    }
    real = linear_probe(store, label=label, **common).table
    control = linear_probe(store, label=control_labels(kinds, labels, seed), **common).table
    rows = [dict(row) for _, row in real.iterrows()]
    for row, other in zip(rows, control["estimate"], strict=True):
        row |= {"metric": "selectivity", "accuracy": row["estimate"], "control": float(other)}
        row |= {"estimate": row["estimate"] - float(other), "lo": None, "hi": None, "ci_method": None}
        row["note"] = "accuracy minus control accuracy; no interval: the control is one random draw"
    return AnalysisResult(kind="selectivity", table=tidy(rows), provenance={"label": label})


def _token_types(store: Any) -> NDArray[Any]:
    ids = store.token_ids() if callable(store.token_ids) else store.token_ids
    if ids is None:
        raise LayerprobeError("this store keeps no token ids; pass types=, the word type of each row")
    pairs = zip(np.asarray(store.examples).tolist(), np.asarray(store.positions).tolist(), strict=True)
    return np.array([ids[example][position] for example, position in pairs])


def summarise(result: AnalysisResult) -> list[str]:
    """The most selective place."""
    best = result.table.sort_values("estimate").iloc[-1]
    return [
        f"{best['target']!r} is read most selectively at {best['site']}[{best['layer']}]: balanced accuracy "
        f"{best['accuracy']:.3f} against {best['control']:.3f} on random labels per word type "
        f"(selectivity {best['estimate']:+.3f})."
    ]


def draw(result: AnalysisResult) -> "Figure":
    """Accuracy and control accuracy by layer: the gap between the curves is the selectivity."""
    import plotly.graph_objects as go

    figure = go.Figure()
    rows = result.table[result.table["layer"].notna()]
    for site, curve in rows.groupby("site", sort=False):
        curve = curve.sort_values("layer")
        layers = [int(layer) for layer in curve["layer"]]
        for column, dash in (("accuracy", "solid"), ("control", "dash")):
            figure.add_scatter(x=layers, y=curve[column], name=f"{site} {column}", line={"dash": dash})
    return figure.update_layout(
        xaxis_title="layer", yaxis_title="balanced accuracy", title="Selectivity", template="plotly_white"
    )
