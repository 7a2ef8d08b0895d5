"""Many claims of one paper: the sentences that count them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from vitrepro.judge.correction import adjusted, groups
from vitrepro.judge.finding import AGAINST, ALPHA, PASS
from vitrepro.judge.verdict import Verdict
from vitrepro.spec import Claim


def sentences(verdicts: Sequence[tuple[Claim, Verdict]]) -> Iterator[str]:
    """For each paper with measured claims: how many verdicts hold after correction, and on how many sets of runs.

    A FAIL or EXCEEDS of runs that could not have confirmed is counted apart.
    """
    kept: dict[str, list[Verdict]] = defaultdict(list)
    measured: dict[str, list[Verdict]] = defaultdict(list)
    for (claim, verdict), a in zip(verdicts, adjusted(verdicts), strict=True):
        if a.p is not None:
            measured[claim.source.paper].append(verdict)
            if a.holm is not None and a.holm < ALPHA:
                kept[claim.source.paper].append(verdict)
    for paper, found in measured.items():
        passed = [v for v in kept[paper] if v.outcome is PASS]
        against = [v for v in kept[paper] if v.outcome in AGAINST]
        one_way = sum(not v.confirmable for v in against)
        if len(found) > 1 and passed + against:
            only = f", {one_way} of them from runs that could not have confirmed" if one_way else ""
            sets = groups(found)
            yield (
                f"{paper}: Holm-corrected over {len(found)} verdicts on {sets} set{'s' * (sets != 1)} of runs: "
                f"{len(passed)} PASS and {len(against)} FAIL or EXCEEDS remain{only}."
            )
