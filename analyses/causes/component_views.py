"""Findings and maps of analyses that look at heads and MLPs one by one: attribution, ablation, patching."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.findings import ALPHA, Claim, Finding, Number, decide_interval
from ..result.records import extreme, records
from ..result.words import missing, number, on_prompts, p_value

if TYPE_CHECKING:
    import altair as alt

    from ..result.analysis import AnalysisResult

MOST = 3
"""As many parts are named on either side."""
LEADS = Claim("leads", "the answer leads", "neither leads clearly", not_tested="no interval to judge it by")
CHANGED = Claim("changed_by_parts", "some parts change it beyond chance", "no part changes it beyond chance")


def attribution_found(result: "AnalysisResult") -> list[Finding]:
    """Per model and subset: the total lead, and the parts that write most for and against the answer."""
    found = []
    subsets = result.table["subset"].nunique()
    told = [name for name in ("model", "subset", "minus") if name in result.table]
    for _, part in result.table.groupby(told, sort=False, dropna=False):
        total = records(part[part["component"] == "total"])[0]
        single = part[part["component"].astype(str).str.startswith(("head", "mlp"))].sort_values("estimate")
        numbers = (*_named(single[::-1], "for it", "logits"), *_named(single, "against it", "logits"))
        verdict = decide_interval(total["lo"], total["hi"])
        claim = LEADS if total["estimate"] >= 0 else FOIL_LEADS
        found.append(
            Finding.of(
                total,
                claim,
                verdict,
                site=None,
                layer=None,
                numbers=numbers,
                lead=total["subset"] == "all" or subsets == 1,
            )
        )
    return found


FOIL_LEADS = Claim("leads", "the foil leads", "neither leads clearly", not_tested=LEADS.not_tested)


def ablation_found(result: "AnalysisResult") -> list[Finding]:
    """Per model: the logit difference, how many parts change it, and those that change it most."""
    found = []
    for model, table in result.table.groupby("model", sort=False):
        start = records(table[table["metric"] == "logit_difference"])[0]
        part = table[table["metric"] == "effect"].sort_values("estimate", kind="stable")
        numbers = (
            *_named(part, "most is lost without", "logits"),
            *_named(part[::-1], "most is gained without", "logits"),
        )
        found.append(
            _changed(start, part, numbers=numbers, method=f"{start['method']} ablation", model=model)
        )
    return found


def patching_found(result: "AnalysisResult") -> list[Finding]:
    """Per model: what separates the runs, how many parts bring it back, and where else it comes back."""
    found = []
    for model, table in result.table.groupby("model", sort=False):
        rows = {row["metric"]: row for row in records(table.drop_duplicates("metric"))}
        corrupt, clean = rows["corrupt_logit_difference"], rows["clean_logit_difference"]
        part = table[table["metric"] == "recovery"].sort_values("estimate", ascending=False, kind="stable")
        numbers = (
            Number(name=f"with {corrupt['reference']}", value=clean["estimate"], unit="logits"),
            *_named(part, "most comes back with", "share"),
        )
        start = {**corrupt, "metric": "logit_difference"}
        caveats = (*_positions(result, model), *_paths(result, model))
        found.append(_changed(start, part, numbers=numbers, caveats=caveats, reference=None, model=model))
    return found


def _changed(start: dict[str, Any], part: pd.DataFrame, **more: Any) -> Finding:
    clear = int((part["p_familywise"].astype(float) <= ALPHA).sum())
    why = f"{clear} of {len(part)} heads and MLPs, family-wise"
    claim = Claim(CHANGED.name, f"{why}, change it beyond chance", CHANGED.not_found)
    more = {"site": None, "layer": None, "head": None, "test": None, "lead": True, **more}
    return Finding.of(start, claim, "found" if clear else "not_found", **more)


def _named(rows: pd.DataFrame, what: str, unit: str) -> tuple[Number, ...]:
    return tuple(
        Number(
            name=f"{what} {row['component']}", value=row["estimate"], lo=row["lo"], hi=row["hi"], unit=unit
        )
        for row in records(rows.head(MOST))
    )


def _positions(result: "AnalysisResult", model: Any) -> list[str]:
    frame = _of(result, "positions", model)
    if not len(frame):
        return []
    best = extreme(frame, "estimate")
    return [
        f"Of the stream by layer and position, most comes back at the input of layer {best['layer']}, "
        f"position {best['position']} ({best['token']!r}): {number(best['estimate'], 'share')}."
    ]


def _paths(result: "AnalysisResult", model: Any) -> list[str]:
    frame = _of(result, "paths", model)
    if not len(frame):
        return []
    ordered = frame.sort_values("effect", key=abs, ascending=False, kind="stable")
    strongest = "; ".join(
        f"{row['sender']} → {row['receiver']} {number(row['effect'])} [{number(row['lo'])}, "
        f"{number(row['hi'])}] (p {p_value(row['p_familywise'])})"
        for row in records(ordered.head(MOST))
    )
    return [
        f"Along {len(ordered)} single paths, all else held as it was, the logit difference changes most by "
        f"{strongest}."
    ]


def _of(result: "AnalysisResult", name: str, model: Any) -> pd.DataFrame:
    frame = result.frames.get(name, pd.DataFrame())
    return frame[frame["model"] == model] if "model" in frame else frame


def component_map(
    frame: pd.DataFrame, *, title: str, value_title: str, found: str | None = None
) -> "alt.LayerChart | alt.FacetChart":
    """A map of layers by heads and MLP, a panel for each model and subset.

    Args:
        frame: rows with `component`, `layer`, `site`, `estimate`; `head`, `model`, `subset` where known.
        title: of the picture.
        value_title: of the colour scale.
        found: boolean column: cells to mark.
    """
    from ..result.charts import layer_map

    frame = frame.assign(part=[_part(row) for row in records(frame)])
    told = [name for name in ("model", "subset", "minus") if name in frame and _differs(frame[name])]
    if told:
        frame = frame.assign(panel=[_panel(row) for row in records(frame[told])])
    return layer_map(
        frame,
        x="part",
        y="layer",
        x_title="",
        value_title=value_title,
        facet="panel" if told else None,
        found=found,
        title=title,
    )


def _part(row: Mapping[str, Any]) -> str:
    return str(row["site"]).removesuffix("_out") if missing(row.get("head")) else f"head {int(row['head'])}"


def _differs(values: pd.Series) -> bool:
    return values.nunique(dropna=False) > 1


def _panel(row: Mapping[Any, Any]) -> str:
    model = "" if missing(row.get("model")) else str(row["model"])
    minus = None if missing(row.get("minus")) else str(row["minus"])
    return f"{model}{on_prompts(row.get('subset'), minus)}".strip().removeprefix("on ") or "all prompts"


def attribution_drawn(result: "AnalysisResult") -> Any:
    """Layer × head (and MLP) map per subset."""
    return component_map(
        result.frames["map"], title="Direct logit attribution", value_title="logits towards the answer"
    )


def ablation_drawn(result: "AnalysisResult") -> Any:
    """Layer × head (and MLP) map of the changes."""
    return component_map(
        _marked(result.frames["map"]),
        title=f"Change of the logit difference by {result.table['method'].iloc[0]} ablation",
        value_title="logits",
        found="found",
    )


def patching_drawn(result: "AnalysisResult") -> Any:
    """Layer × head map; beside it layer × position, with the tokens that most prompts share."""
    from ..result.charts import layer_map

    parts = component_map(
        _marked(result.frames["map"]), title="Recovery by component", value_title="recovery", found="found"
    )
    frame = result.frames.get("positions")
    if frame is None or not len(frame):
        return parts
    token = frame["token"].where(frame["token_share"] > 0.5, "")
    frame = frame.assign(place=(frame["position"].astype(str) + " " + token).str.strip())
    several = frame["model"].nunique() > 1
    by_place = layer_map(
        frame,
        x="place",
        y="layer",
        x_title="position from the end, and its token where most prompts share it",
        value_title="recovery",
        facet="model" if several else None,
        title="Recovery by the stream entering a layer",
    )
    return (parts & by_place).resolve_scale(color="independent")


def _marked(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(found=frame["p_familywise"].astype(float) <= ALPHA)
