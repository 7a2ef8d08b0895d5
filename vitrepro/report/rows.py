"""A verdict as the words and numbers of one table row; terminal, markdown and JSON all print these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from vitrepro.judge.correction import Adjusted, adjusted, cells
from vitrepro.judge.finding import PASS, Finding
from vitrepro.judge.stats import Interval
from vitrepro.judge.verdict import Verdict
from vitrepro.report import words
from vitrepro.report.words import deciding, number_text, p_text
from vitrepro.spec import Claim

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
        outcome=words.outcome(verdict.outcome, verdict.ours),
        measured=measured_text(shown, verdict) if shown else words.reason(verdict),
        reported=reported_text(claim, shown),
        margin=margin_text(shown) if shown else "",
        seeds=str(verdict.seeds or ""),
        p=p_text(p.p),
        holm=p_text(p.holm),
        scale=verdict.scale or "",
        fidelity=verdict.fidelity or "",
        qualifiers="; ".join(words.qualifiers(verdict)),
    )


def interval_text(interval: Interval, digits: str = ".2f") -> str:
    return f"[{interval.low:{digits}}, {interval.high:{digits}}]"


def measured_text(finding: Finding, verdict: Verdict) -> str:
    """The measured value with its interval, what it is of, and how many findings stand behind it."""
    digits = {"value": ".2f", "count": ".2f", "gap": "+.2f", "equal": "+.2f", "measure": "+.3f", "share": ".1f"}
    digit = ".5g" if finding.form == "measure" and finding.reported is not None else digits.get(finding.form)
    value = format(finding.measured, digit) if digit else number_text(finding.measured)
    small = finding.form == "measure" and finding.reported is None  # as many digits as the measure has
    text = f"{value} {interval_text(finding.interval, '.3f' if small else '.2f')}" if finding.interval else value
    text = f"{finding.label}: {'more than ' if words.opened(finding)[0] else ''}{text}"
    findings = verdict.findings
    if len(findings) > 1:
        agree = sum(f.outcome is finding.outcome for f in findings)
        passed, stay = cells(findings)
        after = f"; {stay} of {passed} {words.outcome(PASS, verdict.ours)} after Holm" if passed > stay else ""
        text += f" ({agree} of {len(findings)} {words.outcome(finding.outcome, verdict.ours)}{after})"
    return text


def reported_text(claim: Claim, finding: Finding | None) -> str:
    """The reported number that the finding is held against, or the cells behind an ordering."""
    if finding is not None and finding.reported is not None:
        whose = "ours: " if claim.reported is not None and claim.reported.by == "us" else ""
        return f"{whose}{'more than ' if words.opened(finding)[1] else ''}{number_text(finding.reported)}"
    if claim.reported is None:
        return "our question" if claim.ours else "in words"
    named = [f"{name} {cell.value:g}" for name, cell in claim.reported.cells.items()]
    return ", ".join(named[:3]) + (f", ... ({len(named)} cells)" if len(named) > 3 else "")


def margin_text(finding: Finding) -> str:
    """How far from the reported number is still equal, or how large a gap must be."""
    if finding.form == "literal":
        return finding.relation
    if finding.form in ("gap", "share") or (finding.form == "measure" and finding.reported is None):
        return f"{finding.relation or '>'} {finding.bound:g}"
    side = {"at_least": "at least", "at_most": "at most", "-": "at least"}.get(finding.relation)
    if side:
        return f"{side}, {'+' if side == 'at most' else '-'} {finding.bound:.3g}" if finding.bound else side
    return f"± {finding.bound:.3g}" if finding.bound else "none"


def as_json(claim: Claim, verdict: Verdict, p: Adjusted) -> dict[str, Any]:
    """A verdict as plain values: integers and floats as measured, no text to parse; an open edge is null."""
    history = verdict.history
    return {
        "claim_id": verdict.claim_id,
        "by": claim.by,
        "outcome": verdict.outcome.value,
        "scale": verdict.scale,
        "fidelity": verdict.fidelity,
        "reason": words.reason(verdict),
        "qualifiers": words.qualifiers(verdict),
        "findings": [_finding_json(f) for f in verdict.findings],
        "seeds": verdict.seeds,
        "n": verdict.n,
        "run_ids": verdict.run_ids,
        "support": words.support(verdict),
        "statement": claim.statement,
        "claim_hash": claim.hash,
        "p": verdict.p,
        "p_against": verdict.p_against,
        "p_holm": p.holm,
        "could_have_been_pass": verdict.confirmable,
        "could_have_been_fail": verdict.refutable,
        "looks": {"number": history.number, "level": history.alpha, "earlier": history.earlier},
    }


def _finding_json(f: Finding) -> dict[str, Any]:
    left, right = words.opened(f)
    accepted = f.accepted
    return {
        "label": f.label,
        "outcome": f.outcome.value,
        "measured": f.measured,
        "interval": asdict(f.interval) if f.interval else None,
        "reported": f.reported,
        "bound": f.bound,
        "measures": words.measures(f),
        "decides": words.decides(f),
        "because": words.because(f),
        "slack": f.slack if math.isfinite(f.slack) else None,
        "form": f.form,
        "relation": words.relation(f),
        "measured_open": left,
        "reported_open": right,
        "deciding": asdict(f.deciding) if f.deciding else None,
        "accepted": [edge if math.isfinite(edge) else None for edge in accepted] if accepted else None,
        "p": f.p,
        "p_against": f.p_against,
        "power": f.power,
        "detectable": f.detectable,
        "mcnemar": f.mcnemar,
        "blocked_by": f.block.name if f.block else None,
    }
