"""The verdict table at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from vitrepro.judge.finding import Outcome, combine
from vitrepro.judge.verdict import Verdict
from vitrepro.report import words
from vitrepro.report.explain import KEY, ascii_only, picture
from vitrepro.report.rows import HEADINGS, Row
from vitrepro.report.terminal import can_encode, style, table
from vitrepro.report.words import deciding, strength
from vitrepro.spec import Claim

TABLE_WIDTH = 130  # columns below which the table's cells would be folded beyond reading


def print_verdicts(out: Console, rows: Sequence[Row]) -> None:
    """The verdict table; on a narrow terminal a short block for each claim, since so many columns do not fit."""
    if out.width >= TABLE_WIDTH:
        out.print(table(HEADINGS, [row.cells for row in rows]))
        return
    for row in rows:
        out.print(Text(row.outcome, style=style(row.outcome)), Text(row.claim))
        facts = (
            ("measured", row.measured),
            ("reported", row.reported),
            ("margin", row.margin),
            ("seeds", row.seeds),
            ("p", f"{row.p} (Holm {row.holm})" if row.holm else row.p),
        )
        last = ", ".join(part for part in (row.scale, row.fidelity, row.qualifiers) if part)
        for name, text in (*facts, ("scale", last)):
            if text:
                out.print(f"  {name:<9} {text}", markup=False, soft_wrap=True)


def print_reasons(out: Console, verdicts: Sequence[Verdict]) -> None:
    """Why each verdict is not a PASS; of a PASS in which something is random, what the test could have told."""
    for v in verdicts:
        shown = deciding(v)
        told = strength(shown, v.ours) if shown and v.outcome is Outcome.PASS else None
        if v.outcome is not Outcome.PASS or told:
            text = words.reason(v) if v.outcome is not Outcome.PASS else told
            word = words.outcome(v.outcome, v.ours)
            out.print(f"{v.claim_id}: {word}: {text}", markup=False, soft_wrap=True)
        if past := words.history(v):
            out.print(f"{v.claim_id}: {past}", markup=False, soft_wrap=True)


def print_findings(out: Console, claim: Claim, verdict: Verdict, source: Claim | None = None) -> None:
    """Every decision in two sentences, with what it could have told and a picture; the claim's own words first.

    Args:
        source: the claim that reports the numbers, if one does; it says what they are of.
    """

    def say(text: str) -> None:
        out.print(text, markup=False, soft_wrap=True)

    say(f"{claim.statement} ({words.origin(claim)})")
    if source is not None:
        say(f"Numbers of {source.id}: {source.statement} ({source.source.paper}, {source.source.where})")
    unicode = can_encode(out)
    for f in verdict.findings:
        say(f"{words.outcome(f.outcome, verdict.ours)}: {words.because(f, verdict.ours)}")
        told = strength(f, verdict.ours) if f.outcome.decided else None
        for line in (*((told,) if told else ()), *picture(f, unicode=unicode)):
            say(f"  {line}")
    if any(picture(f) for f in verdict.findings):
        say(f"  {KEY if unicode else ascii_only(KEY)}")
    # something keeps them from deciding
    if verdict.outcome is not combine(f.outcome for f in verdict.findings) or words.failed(verdict):
        say(f"{words.outcome(verdict.outcome, verdict.ours)}: {words.reason(verdict)}")
    word = words.outcome(verdict.outcome, verdict.ours)
    say(f"{claim.id}{_part(claim, verdict)}: {word}: {words.support(verdict)}. {claim.notes}".rstrip())


def _part(claim: Claim, verdict: Verdict) -> str:
    """How many of the reported cells a verdict is of, where it is not of all; a PASS of one is none of the rest."""
    cells = claim.reported.cells if claim.reported else {}
    judged = [f.label for f in verdict.findings if f.label in cells and f.form in ("value", "count", "measure")]
    if not judged or len(judged) == len(cells):
        return ""
    return f" ({', '.join(judged)} alone)" if len(judged) == 1 else f" ({len(judged)} of {len(cells)} cells)"
