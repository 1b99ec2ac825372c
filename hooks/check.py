"""The self-check of a loaded model: hooks compared with the model's own outputs and with each other."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .comparisons import (
    Finding,
    _additive,
    _head_sums,
    _hidden_states,
    _intervention,
    _lens_is_logits,
    _padding,
    _shapes,
)
from .errors import LayerprobeError
from .identity import text_sha256
from .remembered import recall, remember

if TYPE_CHECKING:
    from .model import Model


@dataclass(frozen=True)
class CheckReport:
    """What `model.check()` found.

    Attributes:
        findings: one per comparison.
        remembered: the report of an earlier run with the same weights, engine, dtype and versions.
    """

    findings: tuple[Finding, ...]
    remembered: bool = False

    @property
    def unavailable(self) -> dict[str, str]:
        """Sites that failed, with the first reason of each; "generate" where left padding changes numbers."""
        found: dict[str, str] = {}
        for finding in self.findings:
            if not finding.good:
                found = {**dict.fromkeys(finding.sites, finding.reason), **found}
        return found

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def check(model: "Model", *, again: bool = False) -> CheckReport:
    """Run the self-check, or recall its result for the same weights, engine, dtype and library versions.

    Each site is judged by itself: one that fails is not available from then on, and says why; the rest is.

    Args:
        model: any loaded model.
        again: run it even if it is remembered.

    Raises:
        LayerprobeError: the stream itself (`resid_post`) is off, padding changes it, or an edit changes
            nothing: where, and by how much.
    """
    key = _key(model)
    known = None if again else recall("checks.json", key)
    if known:
        report = CheckReport(
            tuple(Finding(**{**f, "sites": tuple(f["sites"])}) for f in known), remembered=True
        )
    else:
        report = _compared(model)
        remember("checks.json", key, [asdict(f) for f in report.findings])
    model.unavailable = report.unavailable
    return report


def _compared(model: "Model") -> CheckReport:
    model.unavailable = {}
    report = CheckReport(())
    for compare in COMPARISONS:
        try:
            report = CheckReport((*report.findings, *compare(model)))
        except LayerprobeError:
            raise
        except Exception as error:  # whatever an architecture that we do not know trips over
            raise LayerprobeError(
                f"self-check of {model.name} (engine {model.engine.name}) failed: the model cannot be run on "
                f"token ids alone ({type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]})"
            ) from error
        _refuse(model, report)
        model.unavailable = report.unavailable
    return report


def _key(model: "Model") -> str:
    who = model.identity
    parts = [
        who.weights_sha256,
        who.config_sha256,
        who.dtype,
        who.engine,
        str(model.device),
        *map("=".join, who.versions.items()),
        *(compare.__name__ for compare in COMPARISONS),  # a pass of fewer comparisons is not one of these
        "by site",
    ]
    return str(text_sha256("|".join(parts)))


def _refuse(model: "Model", report: CheckReport) -> None:
    failed = (f for f in report.findings if not f.good and (not f.sites or "resid_post" in f.sites))
    worst = next(failed, None)
    if worst is not None:
        raise LayerprobeError(
            f"self-check of {model.name} (engine {model.engine.name}) failed: {worst.reason}. See "
            "docs/sites.md, or load with check=False at your own risk"
        )


COMPARISONS: tuple[Callable[["Model"], list[Finding]], ...] = (
    _shapes,
    _hidden_states,
    _additive,
    _head_sums,
    _lens_is_logits,
    _padding,
    _intervention,
)
