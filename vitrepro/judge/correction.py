"""Many claims of one source: p-values adjusted for their number (Holm)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vitrepro.judge import stats
from vitrepro.judge.finding import AGAINST, ALPHA, PASS, Finding
from vitrepro.judge.verdict import Verdict
from vitrepro.spec import Claim


@dataclass(frozen=True)
class Adjusted:
    """p-value of what a verdict says (of PASS where it says nothing), alone and among the others of its family.

    Attributes:
        p: None where nothing is random.
        holm: None there too, and where something other than chance keeps the verdict from deciding.
    """

    p: float | None = None
    holm: float | None = None


def holm(verdicts: Sequence[Verdict]) -> list[tuple[float | None, float | None]]:
    """p-values of PASS and of FAIL or EXCEEDS, adjusted for the number of claims (Holm), in the order given.

    Every verdict in which something is random counts; one that a rule keeps from deciding counts as not significant,
    and has none of its own.
    """
    passed = adjust([v.p for v in verdicts], [v.outcome is PASS for v in verdicts])
    against = adjust([v.p_against for v in verdicts], [v.outcome in AGAINST for v in verdicts])
    return list(zip(passed, against, strict=True))


def adjust(ps: Sequence[float | None], decides: Sequence[bool]) -> list[float | None]:
    """Holm's adjustment of those that are p-values; one below 5% that decides nothing counts as 1, and has none."""
    family = [i for i, p in enumerate(ps) if p is not None]
    own = [p if p is not None and (decides[i] or p >= ALPHA) else 1.0 for i, p in enumerate(ps)]
    values = dict(zip(family, stats.holm([own[i] for i in family]), strict=True))
    return [values[i] if i in values and own[i] == ps[i] else None for i in range(len(ps))]


def family(claim: Claim) -> tuple[str, str]:
    """The claims that must all be right together: what a source says, and apart from it what we ask of that source."""
    return claim.source.paper, claim.by


def adjusted(verdicts: Sequence[tuple[Claim, Verdict]]) -> list[Adjusted]:
    """Holm's adjustment within each family, in the order given."""
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, (claim, _) in enumerate(verdicts):
        families[family(claim)].append(i)
    found = [Adjusted()] * len(verdicts)
    for members in families.values():
        own = [verdicts[i][1] for i in members]
        for i, verdict, (passed, against) in zip(members, own, holm(own), strict=True):
            opposed = verdict.outcome in AGAINST
            found[i] = Adjusted(verdict.p_against, against) if opposed else Adjusted(verdict.p, passed)
    return found


def cells(found: Sequence[Finding]) -> tuple[int, int]:
    """How many of a claim's comparisons PASS, each at its own level, and how many of them stay after Holm's."""
    passed = [f.outcome is PASS for f in found]
    ps = adjust([f.p for f in found], passed)
    certain = sum(f.outcome is PASS and f.p is None for f in found)
    return sum(passed), certain + sum(p is not None and p < ALPHA and own for p, own in zip(ps, passed, strict=True))


def groups(verdicts: Sequence[Verdict]) -> int:
    """How many of them rest on runs of their own: those that share a run are one."""
    sets: list[set[str]] = []
    for v in verdicts:
        mine = set(v.run_ids) or {v.claim_id}
        shared = [s for s in sets if s & mine]
        sets = [*(s for s in sets if not s & mine), mine.union(*shared)]
    return len(sets)
