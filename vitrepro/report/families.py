"""Many claims of one source: the sentences that count them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from vitrepro.judge.correction import adjusted, family, groups
from vitrepro.judge.finding import AGAINST, ALPHA, PASS
from vitrepro.judge.verdict import Verdict
from vitrepro.report.text import OURS
from vitrepro.spec import Claim


def sentences(verdicts: Sequence[tuple[Claim, Verdict]]) -> Iterator[str]:
    """For each source with measured claims, and for our questions to it, how many verdicts hold after correction.

    And on how many sets of runs they rest.

    A FAIL or EXCEEDS of runs that could not have confirmed is counted apart.
    """
    kept: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    measured: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for (claim, verdict), a in zip(verdicts, adjusted(verdicts), strict=True):
        if a.p is not None:
            measured[family(claim)].append(verdict)
            if a.holm is not None and a.holm < ALPHA:
                kept[family(claim)].append(verdict)
    for (paper, by), found in measured.items():
        passed = [v for v in kept[paper, by] if v.outcome is PASS]
        against = [v for v in kept[paper, by] if v.outcome in AGAINST]
        one_way = sum(not v.confirmable for v in against)
        if len(found) > 1 and passed + against:
            only = f", {one_way} of them from runs that could not have confirmed" if one_way else ""
            sets = groups(found)
            about, yes, no = (paper, "PASS", "FAIL or EXCEEDS")
            if by == "us":
                about, yes, no = f"Our questions to {paper}", OURS["PASS"], OURS["FAIL"]
            yield (
                f"{about}: Holm-corrected over {len(found)} verdicts on {sets} set{'s' * (sets != 1)} of runs: "
                f"{len(passed)} {yes} and {len(against)} {no} remain{only}."
            )
