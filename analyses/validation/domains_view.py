"""A result that left one domain out at a time, in findings and as a picture."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ..probes.picture import draw as draw_probe
from ..probes.readable import CHANCE
from ..probes.readable import found as found_by_probe
from ..result.findings import Claim, Finding
from ..statistics.quantities import quantity

if TYPE_CHECKING:
    from altair import Chart

    from ..result.analysis import AnalysisResult

HOLDS = Claim(
    "holds_on_unseen_domain",
    found="holds on this domain, which it has not seen",
    not_found="no evidence that it holds on this domain, which it has not seen",
    undecided="not clear whether it holds on this domain, which it has not seen",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """One finding per model, domain and site, at the layer that the other domains chose; the worst leads."""
    every = [_turned(finding) for finding in found_by_probe(result, HOLDS)]
    worst: dict[tuple[str | None, str | None], list[Finding]] = {}
    for finding in every:
        if finding.lead:
            worst.setdefault((finding.model, finding.target), []).append(finding)
    out = []
    for finding in every:
        mine = worst.get((finding.model, finding.target), [])
        if not finding.lead or len(mine) < 2:
            out.append(finding)
        elif finding is _lowest(mine):
            holds = sum(one.verdict == "found" for one in mine)
            tested = any(one.test for one in mine)
            said = f"The lowest of {len(mine)} domains" + (
                f"; it holds on {holds} of them." if tested else "."
            )
            out.append(replace(finding, caveats=(said, *finding.caveats)))
        else:
            out.append(replace(finding, lead=False))
    return out


def _lowest(findings: list[Finding]) -> Finding:
    sign = -1 if quantity(findings[0].quantity).direction == "lower" else 1
    return min(findings, key=lambda one: sign * (one.estimate if one.estimate is not None else float("inf")))


def _turned(finding: Finding) -> Finding:
    """Says where a direction means the opposite."""
    chance = CHANCE.get(finding.quantity)
    if chance is None or finding.reference or finding.hi is None or finding.hi >= chance:
        return finding
    return replace(
        finding, caveats=(*finding.caveats, "Its scores lie below chance: the direction is reversed.")
    )


def draw(result: "AnalysisResult") -> "Chart":
    """Curves over layers with a panel for each domain left out; for sites read by heads a map for each."""
    return draw_probe(result, scored_on="a domain that it has not seen")
