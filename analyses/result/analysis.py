"""The one result type of every analysis: a tidy table, what stands behind it, its findings and its picture.

What a kind of result finds and how it is drawn is registered beside its analysis (`registry`).
"""

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...hooks.errors import LayerprobeError
from . import catalogue, registry
from .directions import Directions
from .files import read_parts, write_parts
from .findings import Finding
from .words import sentence

if TYPE_CHECKING:
    from altair import Chart

__all__ = ["AnalysisResult", "Directions", "Sentences", "read_result"]

COLUMNS = (
    *(
        "model",
        "reference",
        "dataset",
        "subset",
        "minus",
        "site",
        "layer",
        "head",
        "tokens",
        "method",
        "space",
    ),
    *(
        "target",
        "metric",
        "split",
        "estimate",
        "lo",
        "hi",
        "ci_method",
        "n",
        "n_groups",
        "null_mean",
        "null_sd",
        "null_lo",
        "null_hi",
    ),
    *("p", "p_familywise", "q", "baseline_majority", "baseline_text", "baseline_length", "converged", "seed"),
    "note",
)
"""The order in which known columns appear; those that do not apply to an analysis are absent."""


class Sentences(tuple[str, ...]):
    """Plain-language findings; printing shows one a line."""

    def __new__(cls, sentences: Iterable[str] = ()) -> "Sentences":
        return super().__new__(cls, tuple(sentences))

    def __str__(self) -> str:
        return "\n".join(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in self)


@dataclass(frozen=True)
class Findings:
    """Findings of one result; prints and shows one sentence a line."""

    items: tuple[Finding, ...] = field(default=())

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Finding:
        return self.items[index]

    def to_frame(self) -> pd.DataFrame:
        """One row per finding."""
        return pd.DataFrame([finding.to_dict() for finding in self.items])

    def __repr__(self) -> str:
        return "\n".join(sentence(finding) for finding in self.items)


@dataclass(frozen=True, eq=False)
class AnalysisResult:
    """What an analysis found. Nothing in it changes after it was made.

    >>> import numpy as np
    >>> from layerprobe import from_arrays, separation
    >>> x = np.random.default_rng(0).normal(size=(1, 40, 4)); x[0, ::2] += 9
    >>> store = from_arrays({"resid_post": x}, labels={"odd": np.arange(40) % 2})
    >>> result = separation(store, label="odd", groups=None, n_permutations=50, n_bootstrap=20)
    >>> result.findings[0].verdict, round(float(result.table["estimate"].iloc[0]), 2) > 0.8
    ('found', True)
    """

    kind: str
    """Which analysis: `linear_probe`, `separation`, `suppression`, …"""
    table: pd.DataFrame
    """Tidy: one row per model × site × layer × method × metric."""
    scores: pd.DataFrame | None = None
    """Out-of-fold, one row per example × site × layer, from a fit that had not seen the example."""
    directions: Directions | None = None
    """Raw-space weights and biases."""
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Further tables by name: trajectories, learning curves, pairs."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Everything needed to say what was run on what; plain values only."""
    notes: tuple[str, ...] = ()
    """What a reader must know before quoting a number."""

    @cached_property
    def findings(self) -> Findings:
        """What was found and what was not, as data: one claim each, with the numbers that carry it."""
        find = registry.find(self.kind).findings
        return Findings(tuple(find(self)) if find else ())

    def summary(self) -> Sentences:
        """Findings in plain language, each sentence with its number."""
        return Sentences([*map(sentence, self.findings), *self.notes])

    def plot(self) -> "Chart":
        """The picture of the result: an Altair chart, which shows itself in a notebook.

        Raises:
            LayerprobeError: this kind of result has none.
        """
        draw = registry.find(self.kind).picture
        if draw is None:
            raise LayerprobeError(f"results of {self.kind} have no picture; read .table")
        from .saving import offline

        chart: Chart = offline(draw(self))
        return chart

    def save_figure(self, path: str | Path) -> Path:
        """Write the picture to a file, without a browser.

        Args:
            path: ending in .svg, .pdf, .png, .html or .json.

        Raises:
            LayerprobeError: another ending, or a result without a picture.
        """
        from .charts import save_figure

        return save_figure(self.plot(), path)

    def examples(
        self,
        layer: int | None = None,
        *,
        site: str | None = None,
        head: int | None = None,
        target: str | None = None,
        worst: int = 20,
        best: int = 0,
    ) -> pd.DataFrame:
        """The examples that went most wrong (or right) by one probe, to be read.

        Args:
            layer: which layer's scores; default: the first in the scores.
            site: which site's; default: the first in the scores.
            head: which head's, where the site was read by heads.
            target: which label's, where there are several.
            worst: how many of the worst.
            best: how many of the best; given, `worst` is ignored.

        Raises:
            LayerprobeError: this analysis keeps no scores, none at this layer, or those of several probes.
        """
        if self.scores is None or "margin" not in self.scores:
            raise LayerprobeError(
                f"a {self.kind} result keeps no scores per example, so there are none to show"
            )
        rows = self.scores
        site = rows["site"].iloc[0] if site is None else site
        rows = rows[rows["site"] == site]
        if "layer" in rows and len(rows):
            layer = rows["layer"].iloc[0] if layer is None else layer
            chosen = rows["layer"].isna() if pd.isna(layer) else rows["layer"] == layer
            if not chosen.any():
                have = ", ".join(str(value) for value in rows["layer"].unique())
                raise LayerprobeError(f"no scores for {site}[{layer}]; layers with scores: {have}")
            rows = rows[chosen]
        if not len(rows):
            raise LayerprobeError(
                f"no scores for site {site!r}; sites: {', '.join(self.scores['site'].unique())}"
            )
        for name, value in (("target", target), ("head", head)):
            rows = _only(rows, name, value, f"{site}" if pd.isna(layer) else f"{site}[{layer}]")
        ordered = rows.sort_values("margin", ascending=not best, kind="stable")
        shown = ordered.head(best or worst).reset_index(drop=True)
        texts = self.frames.get("texts")
        if texts is None or "id" not in shown:
            return shown
        if "example" in shown and "example" in texts:  # ids may occur twice
            return shown.merge(texts.drop(columns="id"), on="example", how="left")
        return shown.merge(texts, on="id", how="left")

    def to_parquet(self, path: str | Path) -> Path:
        """Write the result to disk; `read_result(path)` gives it back unchanged.

        Args:
            path: of the table, ending in `.parquet`. Scores, further tables and directions lie beside it as
                `<stem>.scores.parquet`, `<stem>.<name>.parquet` and `<stem>.directions.safetensors`.

        Returns:
            The path of the table.
        """
        return write_parts(
            Path(path),
            kind=self.kind,
            table=self.table,
            scores=self.scores,
            frames=self.frames,
            directions=self.directions,
            provenance=self.provenance,
            notes=self.notes,
        )

    def __repr__(self) -> str:
        parts = [f"{len(self.table)} rows"]
        for column in ("model", "site", "layer", "method", "metric"):
            if column in self.table and len(values := self.table[column].dropna().unique()):
                shown = ", ".join(str(value) for value in values[:3]) + (", …" if len(values) > 3 else "")
                parts.append(f"{len(values)} layers" if column == "layer" else shown)
        extras = [name for name in ("scores", "directions") if getattr(self, name) is not None]
        kept = f"; with {' and '.join(extras)}" if extras else ""
        return f"<AnalysisResult {self.kind}: {'; '.join(parts)}{kept}>"

    def _repr_html_(self) -> str:
        try:
            sentences = self.summary()._repr_html_()
        except LayerprobeError:
            sentences = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        table = self.table.head(30).to_html(
            index=False, escape=True, float_format=lambda v: f"{v:.4g}", border=0
        )
        more = f"<p>… {len(self.table) - 30} more rows in .table</p>" if len(self.table) > 30 else ""
        return f"<div><b>{html.escape(repr(self))}</b>{sentences}{table}{more}</div>"


def read_result(path: str | Path) -> AnalysisResult:
    """Read what `AnalysisResult.to_parquet` wrote.

    Args:
        path: of the table.

    Raises:
        LayerprobeError: no such file, a file that is no result, or one of its parts is missing.

    >>> import tempfile
    >>> import numpy as np
    >>> from layerprobe import from_arrays, separation
    >>> x = np.random.default_rng(0).normal(size=(1, 40, 4)); x[0, ::2] += 9
    >>> store = from_arrays({"resid_post": x}, labels={"odd": np.arange(40) % 2})
    >>> result = separation(store, label="odd", groups=None, n_permutations=50, n_bootstrap=20)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = read_result(result.to_parquet(f"{folder}/separation.parquet"))
    >>> again.table.equals(result.table), str(again.summary()) == str(result.summary())
    (True, True)
    """
    parts = read_parts(Path(path))
    kind = _FORMER_KINDS.get(parts["kind"], parts["kind"])
    return AnalysisResult(**{**parts, "kind": catalogue.name_of(kind) or kind})


# results of an analysis that had the name which a command has now
_FORMER_KINDS = {"preferences": "reward_decomposition"}


def joined(results: Sequence[AnalysisResult], models: Sequence[str] = ()) -> AnalysisResult:
    """Results of one question asked of several models as one result, so that one picture shows them all.

    Args:
        results: of one kind.
        models: what each is called; tables of one model then go by that name.
    """
    if len(results) == 1 and not models:
        return results[0]
    names = list(models) or [""] * len(results)

    def together(frames: Sequence[pd.DataFrame | None]) -> pd.DataFrame:
        named = []
        for frame, name in zip(frames, names, strict=True):
            if frame is not None:
                own = "model" in frame and frame["model"].nunique() > 1  # a comparison names its models
                named.append(frame if own or not name else frame.assign(model=name))
        return tidy(pd.concat(named, ignore_index=True))

    keys = dict.fromkeys(key for result in results for key in result.frames)
    return AnalysisResult(
        kind=results[0].kind,
        table=together([result.table for result in results]),
        frames={key: together([result.frames.get(key) for result in results]) for key in keys},
        provenance=results[0].provenance,
        notes=tuple(dict.fromkeys(note for result in results for note in result.notes)),
    )


def tidy(rows: Iterable[dict[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """A table from dicts: known columns first and in order, columns without a single value left out."""
    table = rows.copy() if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    table = table.dropna(axis=1, how="all")
    if "layer" in table:
        table["layer"] = table["layer"].astype("Int64")
    known = [name for name in COLUMNS if name in table]
    return table[known + [name for name in table if name not in known]]


def _only(rows: pd.DataFrame, name: str, value: Any, where: str) -> pd.DataFrame:
    """Rows of one label or head; several are not mixed."""
    have = list(rows[name].dropna().unique()) if name in rows else []
    if value is None and len(have) < 2:
        return rows
    listed = ", ".join(str(one) for one in have) or "none"
    if value is None:
        raise LayerprobeError(f"{where} has scores of several {name}s: {listed}; pass {name}=, one of them")
    if value not in have:
        raise LayerprobeError(f"{name}={value!r} has no scores at {where}, which has: {listed}")
    return rows[rows[name] == value]
