"""A verdict as the words and numbers of one table row; terminal, markdown and JSON all print these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from vitrepro.report.families import Adjusted, adjusted
from vitrepro.rules import number_text
from vitrepro.spec import Claim, ExactExpect, ValueExpect
from vitrepro.stats import Interval
from vitrepro.verdict import Finding, Outcome, Verdict, tightest

HEADINGS = (
    "claim",
    "outcome",
    "measured",
    "reported",
    "margin",
    "seeds",
    "p",
    "p (Holm)",
    "scale",
    "fidelity",
    "qualifiers",
)


@dataclass(frozen=True)
class Row:
    """One line of the verdict table, ready to print; the fields are the table's columns."""

    claim: str
    outcome: str
    measured: str
    reported: str
    margin: str
    seeds: str
    p: str
    holm: str
    scale: str
    fidelity: str
    qualifiers: str

    @property
    def cells(self) -> tuple[str, ...]:
        return astuple(self)


def rows(verdicts: Sequence[tuple[Claim, Verdict]]) -> list[Row]:
    """The rows of verdicts, with their p-values adjusted for the number of claims of each paper."""
    return [row(claim, v, a) for (claim, v), a in zip(verdicts, adjusted(verdicts), strict=True)]


def row(claim: Claim, verdict: Verdict, p: Adjusted) -> Row:
    """The row of one verdict; where a claim has several findings, the one nearest to another outcome."""
    shown = deciding(verdict)
    return Row(
        claim=claim.id,
        outcome=verdict.outcome.value,
        measured=measured_text(shown, verdict.findings) if shown else verdict.reason,
        reported=reported_text(claim, verdict.scale, shown),
        margin=margin_text(claim, verdict.scale, shown) if shown else "",
        seeds=str(verdict.seeds or ""),
        p=p.cells[0],
        holm=p.cells[1],
        scale=verdict.scale or "",
        fidelity=verdict.fidelity or "",
        qualifiers="; ".join(verdict.qualifiers),
    )


def deciding(verdict: Verdict) -> Finding | None:
    """The finding nearest to another outcome, among those that agree with the verdict where there are any."""
    if not verdict.findings:
        return None
    same = [f for f in verdict.findings if f.outcome is verdict.outcome]
    return tightest(same or verdict.findings)


def interval_text(interval: Interval) -> str:
    return f"[{interval.low:.2f}, {interval.high:.2f}]"


def measured_text(finding: Finding, findings: Sequence[Finding]) -> str:
    """The measured value with its interval, what it is of, and how many findings stand behind it."""
    digits = {"value": ".2f", "count": ".2f", "gap": "+.2f", "equal": "+.2f", "measure": "+.3f"}.get(finding.form)
    if finding.form == "measure" and finding.reported is not None:
        digits = ".5g"
    value = format(finding.measured, digits) if digits else number_text(finding.measured)
    text = f"{value} {interval_text(finding.interval)}" if finding.interval else value
    text = f"{finding.label}: {'more than ' if finding.measured_open else ''}{text}"
    if len(findings) > 1:
        agree = sum(f.outcome is finding.outcome for f in findings)
        text += f" ({agree} of {len(findings)} {finding.outcome.value})"
    return text


def reported_text(claim: Claim, scale: str | None, finding: Finding | None) -> str:
    """The reported number that the finding is held against, or the cells behind an ordering."""
    if finding is not None and finding.reported is not None:
        sign = {"at_least": "at least ", "at_most": "at most "}.get(_direction(claim, scale, finding), "")
        return f"{'more than ' if finding.reported_open else sign}{number_text(finding.reported)}"
    if claim.reported is None:
        return "in words"
    cells = [f"{name} {cell.value:g}" for name, cell in claim.reported.cells.items()]
    return ", ".join(cells[:3]) + (f", ... ({len(cells)} cells)" if len(cells) > 3 else "")


def margin_text(claim: Claim, scale: str | None, finding: Finding) -> str:
    """How far from the reported number is still equal, or how large a gap must be."""
    if finding.form == "literal":
        return finding.relation
    if finding.form in ("gap", "measure"):
        return f"{finding.relation or '>'} {finding.bound:g}"
    sign = {"at_least": "-", "at_most": "+"}.get(_direction(claim, scale, finding), "±")
    return f"{sign} {finding.bound:.3g}" if finding.bound else "none"


def _direction(claim: Claim, scale: str | None, finding: Finding) -> str:
    entry = claim.scales.entries().get(scale or "")
    cells = entry.expect.cells if entry and isinstance(entry.expect, ExactExpect | ValueExpect) else {}
    return cells[finding.label].direction if finding.label in cells else ""


def as_json(claim: Claim, verdict: Verdict, p: Adjusted) -> dict[str, Any]:
    """A verdict as plain values: integers and floats as measured, no text to parse; an open edge is null."""
    values = asdict(verdict)
    values["outcome"] = verdict.outcome.value
    values["support"] = verdict.support
    values["statement"] = claim.statement
    values["claim_hash"] = claim.hash
    values |= {"p": verdict.p, "p_against": verdict.p_against, "p_holm": p.holm}
    for finding in values["findings"]:
        finding["outcome"] = Outcome(finding["outcome"]).value
        finding["because"] = f"{finding['measures']} {finding['decides']}".strip()
        if finding["accepted"] is not None:
            finding["accepted"] = [edge if math.isfinite(edge) else None for edge in finding["accepted"]]
    return values
