"""Statements held against the numbers that their own source prints: nothing is measured, nothing is random."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitrepro.judge.finding import INCONCLUSIVE, PASS, Finding, Outcome, Region, combine, note
from vitrepro.judge.stats import Estimate
from vitrepro.judge.verdict import Verdict
from vitrepro.literal import Checked
from vitrepro.spec import Claim, LiteralExpect


def judge_literal(claim: Claim, checked: Sequence[Checked]) -> Verdict:
    """Whether a statement agrees with the numbers its source prints: PASS, FAIL or EXCEEDS; INCONCLUSIVE where only
    digits that were rounded away could tell. It says nothing of whether the numbers can be had again."""
    entry = claim.scales.literal
    assert entry is not None
    assert isinstance(entry.expect, LiteralExpect)
    findings: list[Finding] = []
    for name, check in entry.expect.checks.items():
        cases = [c for c in checked if c.check == name]
        found = [_compared(c, Outcome(check.otherwise)) for c in cases]
        findings += [_most(name, cases, found, Outcome(check.otherwise))] if check.holds == "most" else found
    outcome = combine(f.outcome for f in findings)
    return Verdict(
        claim.id, outcome, "literal", entry.fidelity, note("printed"), (note("own_numbers"),), tuple(findings),
        ours=claim.ours,
    )  # fmt: skip


def _compared(case: Checked, otherwise: Outcome) -> Finding:
    c = case.comparison
    outcome = {True: PASS, False: otherwise, None: INCONCLUSIVE}[c.holds]
    cells = tuple((address.lstrip("@"), cell.value) for address, cell in case.cells.items())
    left, right = (x.value if math.isfinite(x.value) else x.low for x in (c.left, c.right))
    opened = tuple(not math.isfinite(x.value) for x in (c.left, c.right))
    return Finding(
        "-".join(part for part in (case.check, case.case) if part), "literal", left, Estimate(left - right), Region(),
        reported=right, relation=c.relation, known=outcome,
        notes=(note("printed", slack=c.slack, cells=cells, opened=opened, holds=c.holds),),
    )  # fmt: skip


def _most(name: str, cases: Sequence[Checked], found: Sequence[Finding], otherwise: Outcome) -> Finding:
    """More than half of the comparisons hold, whatever the rounding hides."""
    holding = sum(c.comparison.holds is True for c in cases)
    hidden = sum(c.comparison.holds is None for c in cases)
    half = len(cases) / 2
    outcome = PASS if holding > half else otherwise if holding + hidden <= half else INCONCLUSIVE
    against = tuple(f for f in found if f.outcome is not PASS)
    told = note("printed", slack=abs(holding - half), opened=(False, False))
    return Finding(
        name, "literal", holding, Estimate(holding - half), Region(), reported=half, relation=">", known=outcome,
        notes=(note("most", of=len(cases), against=against), told),
    )  # fmt: skip
