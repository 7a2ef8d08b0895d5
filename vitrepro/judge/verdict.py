"""Decide a claim: a pure function of the claim, of what its runs measured, and of earlier looks at it.

An outcome is one of seven and never merged with its qualifiers: which fidelity, how many seeds, what
deviates. Rules and their reasons: docs/verdicts.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vitrepro.arrays import Bools
from vitrepro.claims import arms_of
from vitrepro.judge import stats
from vitrepro.judge.arm import Arm
from vitrepro.judge.consistency import chosen_on_the_test_split, computed_alike, inconsistencies
from vitrepro.judge.finding import (
    AGAINST,
    ALPHA,
    INCONCLUSIVE,
    PASS,
    Finding,
    Note,
    Outcome,
    combine,
    note,
    tightest,
)
from vitrepro.judge.rules import findings, unmet
from vitrepro.judge.spread import FEWEST
from vitrepro.metrics import FAILED_RUNS, TOP1
from vitrepro.record import AnalyticResult, Deviation, Measured, TrainResult
from vitrepro.spec import Claim, Conditional, Edge, EquivalenceExpect, ExactExpect, Expect


@dataclass(frozen=True)
class History:
    """Which look at a claim this is.

    Attributes:
        number: from 1 on.
        alpha: its level; see `looks.level`.
        earlier: outcomes of the looks before it.
        notes: what must be said of them.
        first_seeds: how many seeds the first look had, which are the registration; 0 if this is the first.
    """

    number: int = 1
    alpha: float = ALPHA
    earlier: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    first_seeds: int = 0


@dataclass(frozen=True)
class Verdict:
    """Outcome of one claim at one scale; qualifiers stand beside it and are never dropped.

    Attributes:
        why: what decided; `report.words` has its sentence.
        ours: it answers a question of ours and says nothing of what the source states.
        caps: what keeps these numbers from deciding, whatever they are.
        would_be: what the findings come to without the caps.
    """

    claim_id: str
    outcome: Outcome
    scale: str | None
    fidelity: str | None
    why: Note
    qualifiers: tuple[Note, ...] = ()
    findings: tuple[Finding, ...] = ()
    seeds: int | None = None
    n: int | None = None
    run_ids: tuple[str, ...] = field(default=())
    caps: tuple[Note, ...] = ()
    would_be: Outcome | None = None
    history: History = History()
    ours: bool = False

    @property
    def p(self) -> float | None:
        """p-value of PASS: all findings must hold, so the largest. None where nothing is random."""
        ps = [f.p for f in self.findings if f.p is not None]
        if ps and any(f.p is None and f.outcome is not PASS for f in self.findings):
            return 1.0
        return max(ps, default=None)

    @property
    def p_against(self) -> float | None:
        """p-value of FAIL or EXCEEDS: of all comparisons holding together (Simes). None where nothing is random."""
        return refuting(self.findings)

    def could(self, outcome: Outcome) -> bool:
        """Whether such runs could have come to PASS (all findings could) or FAIL (one could)."""
        if self.caps or not self.findings:
            return False
        return (all if outcome is PASS else any)(f.could(outcome) for f in self.findings)

    @property
    def confirmable(self) -> bool:
        """Whether a PASS was in reach."""
        return self.could(PASS)

    @property
    def refutable(self) -> bool:
        """Whether a FAIL or EXCEEDS was in reach."""
        return any(self.could(outcome) for outcome in AGAINST)

    @property
    def support(self) -> Note:
        """What the outcome says of the paper, no more: only an exact protocol reproduces or contradicts it."""
        if not self.outcome.decided:
            return note("undecided")
        if self.ours:
            return note("ours_support", passed=self.outcome is PASS, fidelity=self.fidelity)
        return note(f"{self.fidelity if self.fidelity in ('literal', 'elsewhere', 'exact') else 'other'}_support",
                    passed=self.outcome is PASS, fidelity=self.fidelity)  # fmt: skip


def infeasible(claim: Claim, why: str) -> Verdict:
    """A claim that cannot be checked here."""
    return Verdict(claim.id, Outcome.INFEASIBLE, None, None, note("told", text=why), ours=claim.ours)


def judge(
    claim: Claim,
    scale_name: str,
    measured: Sequence[Measured],
    *,
    registered_seeds: int,
    deviations: Sequence[Deviation] = (),
    history: History = History(),
    failed_if: Edge | None = None,
) -> Verdict:
    """The verdict on a claim from its planned runs.

    Args:
        scale_name: the key of `claim.scales` that was checked.
        measured: every planned run, whether it has finished or not.
        registered_seeds: how many the experiment file names.
        deviations: settings changed by hand, as the runs list them.
        history: which look this is.
        failed_if: what the experiment declares a failed run.

    Returns:
        ERROR if a run failed, was incomplete, saw other images than the rest, is another run over again or has no
        partner of its seed where arms are paired;
        NOT_RUN if one is missing; else what the kind of claim decides, capped where the runs deviate.
    """
    entry = claim.scales.entries()[scale_name]
    assert entry.expect is not None

    def undecided(outcome: Outcome, why: Note) -> Verdict:
        ids = tuple(m.run_id for m in measured)
        return Verdict(
            claim.id, outcome, scale_name, entry.fidelity, why, run_ids=ids, history=history, ours=claim.ours
        )

    failed = [f"{m.arm} seed {m.seed}: {m.error}" for m in measured if m.error]
    if failed:
        return undecided(Outcome.ERROR, note("runs_failed", failed=len(failed), runs=len(measured), first=failed[0]))
    missing = [m for m in measured if m.record is None]
    unplanned = {arm for _, arm in arms_of(entry.expect)} - {m.arm for m in measured}
    if missing or unplanned:
        stored = len(measured) - len(missing)
        why = note("runs_missing", stored=stored, runs=len(measured), unplanned=tuple(sorted(unplanned)))
        return undecided(Outcome.NOT_RUN, why)
    paired = isinstance(entry.expect, EquivalenceExpect) and entry.expect.paired_by_seed
    broken = next(inconsistencies(measured, paired), None)
    if broken:
        return undecided(Outcome.ERROR, broken)

    arms = by_arm(measured, paired, failed_if)
    lacking = tuple(_lacking(entry.expect, arms))
    if lacking:
        return undecided(Outcome.NOT_RUN, note("not_measured", lacking=lacking))
    trained = [m.record.result for m in measured if m.record and isinstance(m.record.result, TrainResult)]
    caps: list[Note] = []
    if trained:
        planned = min(Counter(m.arm for m in measured).values())
        if planned < max(registered_seeds, history.first_seeds):  # or one could stop at the seeds that please
            caps.append(note("fewer_than_registered"))
        partial = next((r for r in trained if r.n < r.complete_n), None)
        if partial:
            caps.append(note("partial_test_set", n=partial.n, of=partial.complete_n))
    alike = computed_alike(measured) if paired else None
    caps += [alike] if alike else []
    if deviations:
        caps.append(note("deviates", deviations=tuple(map(str, deviations))))
    return weigh(
        claim,
        entry.expect,
        arms,
        scale=scale_name,
        fidelity=entry.fidelity,
        registered_seeds=max(registered_seeds, history.first_seeds),
        caps=caps,
        beside=tuple(chosen_on_the_test_split(measured)),
        run_ids=tuple(m.run_id for m in measured),
        history=history,
    )


def weigh(
    claim: Claim,
    expect: Expect,
    arms: Mapping[str, Arm],
    *,
    scale: str | None,
    fidelity: str | None,
    registered_seeds: int,
    caps: Sequence[Note] = (),
    beside: Sequence[Note] = (),
    run_ids: tuple[str, ...] = (),
    history: History = History(),
) -> Verdict:
    """The verdict that arms give, wherever their numbers come from.

    Args:
        registered_seeds: how many were to be made of each arm.
        caps: everything that keeps these numbers from deciding, whatever they are.
        beside: qualifiers that keep nothing from deciding.
    """
    found = tuple(findings(expect, claim.reported.cells if claim.reported else {}, arms, alpha=history.alpha))
    if claim.reported and claim.reported.by == "us":
        found = tuple(replace(f, notes=(*f.notes, note("expected"))) for f in found)
    would_be, why = together(found)
    caps = [*caps, *(note("condition", label=f.label, finding=f) for f in unmet(expect, arms, alpha=history.alpha)[:1])]
    trained = {name: a for name, a in arms.items() if a.accuracies}
    seeds = min((a.seeds for a in trained.values()), default=None)
    qualifiers = [*history.notes]
    if history.earlier:
        qualifiers.insert(0, note("looks", outcomes=history.earlier, level=history.alpha))
    qualifiers += beside
    if seeds is not None:
        if seeds < max(registered_seeds, FEWEST) and any(f.form != "count" for f in found):
            qualifiers.append(note("seeds", seeds=seeds, registered=registered_seeds))
        if 1 < registered_seeds < seeds:  # or one could go on until it passes, unseen
            qualifiers.append(note("more_seeds", seeds=seeds, registered=registered_seeds))
    partly = [n for n, a in trained.items() if 0 < len(a.failed) < a.seeds]
    for name, told in (
        ("failed_some", partly),
        ("merged_seeds", [n for n, a in trained.items() if a.seeds < a.runs]),
        ("not_above_chance", [n for n, a in trained.items() if not a.learned and n not in partly]),
    ):
        if told:
            counts = tuple((arms[n].failed_runs, arms[n].runs) for n in told)
            qualifiers.append(note(name, arms=tuple(told), counts=counts))
    outcome = INCONCLUSIVE if caps and would_be.decided else would_be
    n = next(iter(trained.values())).n if trained else None
    return Verdict(
        claim.id, outcome, scale, fidelity, why, (*qualifiers, *caps), found, seeds, n, run_ids, tuple(caps), would_be,
        history, claim.ours,
    )  # fmt: skip


def refuting(found: Sequence[Finding]) -> float | None:
    """p-value of all comparisons holding together; what a rule keeps from deciding speaks against nothing."""
    random = [f for f in found if f.p_against is not None]
    if not random:
        return None
    if any(f.p_against is None and f.outcome in AGAINST for f in found):  # counted, so certain
        return 0.0
    ps = [f.p_against or 0.0 for f in random]
    kept = [f.outcome not in AGAINST and p < ALPHA for f, p in zip(random, ps, strict=True)]
    return stats.simes([1.0 if k else p for k, p in zip(kept, ps, strict=True)])


def together(found: Sequence[Finding]) -> tuple[Outcome, Note]:
    """Outcome and reason of all comparisons: all must hold; one that fails alone need not stand among many tries."""
    p = refuting(found)
    alone = [f for f in found if f.outcome in AGAINST]
    if not alone or p is None or p < ALPHA:
        return combine(f.outcome for f in found), note("findings")
    would = tuple(dict.fromkeys(f.outcome.value for f in alone))
    return INCONCLUSIVE, note("many_tries", alone=len(alone), of=len(found), would=would, p=p, first=tightest(alone))


def _lacking(expect: Expect, arms: Mapping[str, Arm]) -> Iterator[tuple[str, str]]:
    """What is looked at and the runs of an arm did not measure, and the arm."""
    if isinstance(expect, ExactExpect):
        yield from ((c.quantity, c.arm) for c in expect.cells.values() if c.quantity not in arms[c.arm].quantities)
        return
    yield from ((TOP1, arm) for _, arm in arms_of(expect) if not arms[arm].accuracies)
    for arm, metric in expect.measures if isinstance(expect, Conditional) else ():
        if metric != FAILED_RUNS and len(arms[arm].values(metric)) < arms[arm].runs:
            yield metric, arm


def by_arm(measured: Sequence[Measured], paired: bool = False, failed_if: Edge | None = None) -> dict[str, Arm]:
    """The arms, each with its seeds; where they are paired, row by row with the same ones."""
    groups: dict[str, list[Measured]] = defaultdict(list)
    of_seed: dict[int, bytes] = defaultdict(bytes)  # all that was right from a seed, in every arm
    for m in sorted(measured, key=lambda m: m.seed) if paired else measured:
        groups[m.arm].append(m)
        if paired and m.predictions is not None:
            of_seed[m.seed] += m.predictions.by_id().correct.tobytes()
    return {name: _arm(members, of_seed if paired else None, failed_if) for name, members in groups.items()}


def _arm(members: Sequence[Measured], of_seed: Mapping[int, bytes] | None, failed_if: Edge | None) -> Arm:
    first = members[0].record
    assert first is not None
    if isinstance(first.result, AnalyticResult):
        return Arm(runs=len(members), quantities=first.result.quantities)
    rows: dict[bytes, Bools] = {}
    measures: defaultdict[str, list[float]] = defaultdict(list)
    seeds: defaultdict[bytes, list[int]] = defaultdict(list)
    broken: set[bytes] = set()
    for m in members:
        assert m.record is not None
        assert m.predictions is not None
        assert isinstance(m.record.result, TrainResult)
        row = m.predictions.by_id().correct
        key = of_seed[m.seed] if of_seed is not None else row.tobytes()
        rows[key] = row
        seeds[key].append(m.seed)
        every = m.record.result.every_measure
        for measure, value in every.items():
            measures[measure].append(value)
        if failed_if is not None and failed_if.holds(every.get(failed_if.metric, np.nan)):
            broken.add(key)
    assert members[0].predictions is not None
    made = Arm.of(
        np.stack(list(rows.values())),
        len(members),
        num_classes=first.result.num_classes,
        commonest=int(np.bincount(members[0].predictions.labels).max()),
        regime="fine-tuned" if first.result.initial_sha256 else "scratch",
    )
    return replace(
        made,
        measures=measures,
        dev_n=first.result.dev_n or 0,
        seeds_of=tuple(s[0] for s in seeds.values()),
        times=tuple(len(s) for s in seeds.values()),
        declared=tuple(i for i, key in enumerate(rows) if key in broken),
    )
