"""Many claims of one paper: p-values adjusted for their number, and the one sentence that counts them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vitrepro.rules import ALPHA, Outcome
from vitrepro.spec import Claim
from vitrepro.verdict import Verdict, holm


@dataclass(frozen=True)
class Adjusted:
    """p-value of what a verdict says (of PASS where it says nothing), alone and among the claims of its paper.

    Attributes:
        p: None where nothing is random.
        holm: None there too, and where something other than chance keeps the verdict from deciding.
    """

    p: float | None = None
    holm: float | None = None

    @property
    def cells(self) -> tuple[str, str]:
        return p_text(self.p), p_text(self.holm)


def p_text(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def adjusted(verdicts: Sequence[tuple[Claim, Verdict]]) -> list[Adjusted]:
    """Holm's adjustment within each paper, in the order given."""
    papers: dict[str, list[int]] = defaultdict(list)
    for i, (claim, _) in enumerate(verdicts):
        papers[claim.source.paper].append(i)
    found = [Adjusted()] * len(verdicts)
    for members in papers.values():
        own = [verdicts[i][1] for i in members]
        for i, verdict, (passed, against) in zip(members, own, holm(own), strict=True):
            opposed = verdict.outcome in (Outcome.FAIL, Outcome.EXCEEDS)
            found[i] = Adjusted(verdict.p_against, against) if opposed else Adjusted(verdict.p, passed)
    return found


def sentences(verdicts: Sequence[tuple[Claim, Verdict]]) -> Iterator[str]:
    """For each paper with measured claims: how many hold and how many do not, all of them together being right."""
    measured: Counter[str] = Counter()
    counts: dict[str, Counter[Outcome]] = defaultdict(Counter)
    for (claim, verdict), a in zip(verdicts, adjusted(verdicts), strict=True):
        if a.p is not None:
            paper = claim.source.paper
            measured[paper] += 1
            if a.holm is not None and a.holm < ALPHA:
                counts[paper][verdict.outcome] += 1
    for paper, number in measured.items():
        passed, failed = counts[paper][Outcome.PASS], counts[paper][Outcome.FAIL] + counts[paper][Outcome.EXCEEDS]
        if number < 2 or not passed + failed:
            continue
        yield (
            f"{paper}: of the {number} verdicts here with chance in them, {passed} PASS and {failed} FAIL or EXCEEDS "
            f"stay after Holm's correction for their number, which lets one or more wrong PASSes through in at most "
            f"{100 * ALPHA:g}% of repetitions, and as seldom a wrong FAIL or EXCEEDS."
        )
