"""Does a probe hold on a domain that it has not seen: each in turn is left out and scored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..probes.linear import linear_probe
from ..probes.methods import MethodName
from ..reading.labels import class_name, label_list, label_values
from ..result.analysis import AnalysisResult, tidy
from ..result.directions import Directions
from ..result.options import Column, Label
from ..result.registry import analysis
from .domains_view import draw, found


@analysis(
    title="Does a probe of “{label}” hold on an unseen {domain}?",
    group="read",
    guide="probes",
    passes_on=linear_probe,
    findings=found,
    picture=draw,
    without=("held_out",),
)
def leave_one_domain_out(
    store: ActivationStore, *, label: Label, domain: Column, method: MethodName = "logistic", **options: Any
) -> AnalysisResult:
    """For each domain: fit on all others, score on it.

    Args:
        store: an activation store.
        label: as `linear_probe`.
        domain: label column naming each row's domain; groups must not straddle domains. Rows without one are
            left out.
        method: as `linear_probe`.
        **options: as `linear_probe`, without `held_out`.

    Returns:
        A probe result whose `subset` says which domain was left out; family-wise p is over the layers of
        one domain. `.scores` has every row by the fit that left its domain out,
        `.directions.of("DOMAIN=VALUE")` the directions fitted without that one. A domain in which the
        label never varies cannot be scored, and is skipped with a note.

    Raises:
        LayerprobeError: no such column, fewer than two domains, or none that can be scored.

    Source: leave-one-domain-out generalisation as in Gulrajani & Lopez-Paz (2007.01434).

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y, domain = np.arange(180) % 2, np.array(["law", "art", "sport"])[np.arange(180) // 60]
    >>> x = rng.normal(size=(1, 180, 6)); x[0, :, 0] += 4 * y
    >>> store = from_arrays({"resid_post": x}, labels={"y": y, "domain": domain})
    >>> few = {"n_permutations": 0, "n_bootstrap": 20}
    >>> result = leave_one_domain_out(store, label="y", domain="domain", groups=None, **few)
    >>> bool((result.table.query("metric == 'auroc'")["estimate"] > 0.9).all())
    True
    """
    if "held_out" in options:
        raise LayerprobeError(
            "held_out= is each domain in turn: leave it out, or use linear_probe(held_out=...)"
        )
    if domain not in store.label_names:
        raise LayerprobeError(f"domain={domain!r} is not a label column; have {', '.join(store.label_names)}")
    domains = np.asarray(store.labels(domain))
    values = [label_values(store, one) for one in label_list(store, label)]
    names = [value for value in pd.unique(domains) if not pd.isna(value)]
    if len(names) < 2:
        raise LayerprobeError(
            f"domain={domain!r} has {len(names)} value, and leaving one out needs two domains or more"
        )
    notes = [note for value in names if (note := _constant(domain, value, domains == value, values))]
    parts: dict[str, AnalysisResult] = {}
    scorable = [value for value in names if not _constant(domain, value, domains == value, values)]
    if not scorable:
        raise LayerprobeError("no domain can be scored: " + " ".join(notes))
    missing = pd.isna(domains)
    if missing.any():
        notes.insert(0, f"{int(missing.sum())} rows without a value of {domain!r} were left out.")
        store, domains = store.select(np.flatnonzero(~missing)), domains[~missing]
        if not isinstance(label, str) and len(values) == 1 and values[0][0] == "label":
            label = values[0][1][~missing]
    for value in scorable:
        parts[f"{domain}={value}"] = linear_probe(
            store, label=label, method=method, held_out=domains == value, **options
        )
    return _joined(parts, notes, domain)


def _constant(
    domain: str, value: Any, here: NDArray[np.bool_], labels: Sequence[tuple[str, NDArray[Any]]]
) -> str | None:
    """Why a domain cannot be scored, if it cannot."""
    for name, values in labels:
        found = pd.unique(values[here & ~pd.isna(values)])
        if len(found) < 2:
            what = f"only {class_name(found[0])!r}" if len(found) else "no value"
            return f"{domain}={value} was skipped: it has {what} of {name!r}, so nothing is told apart there."
    return None


def _joined(parts: dict[str, AnalysisResult], notes: list[str], domain: str) -> AnalysisResult:
    """One result of all domains; a note that not every part has says whose it is."""
    frames = {
        name: pd.concat(
            [part.frames[name].assign(subset=key) for key, part in parts.items()], ignore_index=True
        )
        for name in ("best_layer", "against_baselines")
    }
    table = pd.concat([part.table.assign(subset=key) for key, part in parts.items()], ignore_index=True)
    for note in dict.fromkeys(note for part in parts.values() for note in part.notes):
        holders = [key for key, part in parts.items() if note in part.notes]
        notes.append(note if len(holders) == len(parts) else f"{', '.join(holders)}: {note}")
    whole = list(parts.values())
    last = whole[-1]
    if "texts" in last.frames:
        frames["texts"] = last.frames["texts"]
    return AnalysisResult(
        kind="leave_one_domain_out",
        table=tidy(table),
        scores=pd.concat([_left_out(key, part) for key, part in parts.items()], ignore_index=True),
        directions=_directions(parts),
        frames=frames,
        provenance=last.provenance | {"domain": domain},
        notes=tuple(dict.fromkeys(notes)),
    )


def _left_out(key: str, part: AnalysisResult) -> pd.DataFrame:
    """Scores of the rows of the domain that was left out."""
    assert part.scores is not None
    return part.scores[part.scores["split"] == "held_out"].assign(subset=key)


def _directions(parts: dict[str, AnalysisResult]) -> Directions | None:
    """Directions by the domain that was left out; none where labels of one part share no shape already."""
    found = {key: part.directions for key, part in parts.items() if part.directions is not None}
    if len(found) < len(parts) or any(one.by_target for one in found.values()):
        return None
    return Directions({}, {}, by_target=found)
