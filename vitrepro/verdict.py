"""Decide a claim: a pure function of the claim and of what its runs measured.

An outcome is one of seven and never merged with its qualifiers: which fidelity, how many seeds, what
deviates. Rules and their reasons: docs/verdicts.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import numpy as np

from vitrepro import stats
from vitrepro.arrays import Bools
from vitrepro.claims import arms_of
from vitrepro.formula import Span
from vitrepro.literal import Checked
from vitrepro.plan import Run
from vitrepro.recipe import Recipe
from vitrepro.record import AnalyticResult, Deviation, Measured, TrainResult
from vitrepro.spec import (
    Bound,
    Cell,
    Claim,
    Comparison,
    EquivalenceExpect,
    ExactCheck,
    ExactExpect,
    Expect,
    LiteralExpect,
    OrderingExpect,
    Scale,
    TrendExpect,
    ValueCheck,
    ValueExpect,
)
from vitrepro.stats import Interval

ALPHA = 0.05
TOP1 = "top1"


class Outcome(str, Enum):
    PASS = "PASS"
    FAIL = "FAIL"
    EXCEEDS = "EXCEEDS"
    INCONCLUSIVE = "INCONCLUSIVE"
    INFEASIBLE = "INFEASIBLE"
    ERROR = "ERROR"
    NOT_RUN = "NOT_RUN"

    @property
    def decided(self) -> bool:
        return self in (Outcome.PASS, Outcome.FAIL, Outcome.EXCEEDS)


@dataclass(frozen=True)
class Finding:
    """One comparison: what was measured, with its interval, against what was expected.

    Attributes:
        measured: percent, points of difference, or the quantity's own unit.
        bound: the margin, the minimum gap or the tolerance.
        because: one sentence with the numbers that decide.
        slack: how far it is from another outcome, in points; in tolerances where it was counted.
        form: what was compared: a counted quantity, an accuracy, a gap between arms, their equality, a measure with
            a number, or two printed numbers.
        relation: how measured should stand to the bound or the reported number, where it is not a margin.
        measured_open, reported_open: the value is more than this number, by how much nothing tells.
    """

    label: str
    outcome: Outcome
    measured: float
    interval: Interval | None
    reported: float | None
    bound: float
    because: str
    slack: float
    form: Form
    relation: str = ""
    measured_open: bool = False
    reported_open: bool = False


Form = Literal["exact", "value", "gap", "equal", "measure", "literal"]


@dataclass(frozen=True)
class Verdict:
    """Outcome of one claim at one scale; qualifiers stand beside it and are never dropped."""

    claim_id: str
    outcome: Outcome
    scale: str | None
    fidelity: str | None
    reason: str
    qualifiers: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    seeds: int | None = None
    n: int | None = None
    run_ids: tuple[str, ...] = field(default=())

    @property
    def support(self) -> str:
        """What the outcome says of the paper, no more: only an exact protocol reproduces or contradicts it."""
        if not self.outcome.decided:
            return "undecided"
        if self.fidelity == "literal":  # nothing was measured
            agrees = "agrees with" if self.outcome is Outcome.PASS else "disagrees with"
            return f"the statement {agrees} the source's own numbers"
        if self.fidelity == "exact":
            return "reproduced" if self.outcome is Outcome.PASS else "contradicted"
        return f"{'supports' if self.outcome is Outcome.PASS else 'speaks against'} ({self.fidelity})"


def infeasible(claim: Claim, why: str) -> Verdict:
    """A claim that cannot be checked here."""
    return Verdict(claim.id, Outcome.INFEASIBLE, None, None, why)


def judge(
    claim: Claim,
    scale_name: str,
    measured: Sequence[Measured],
    *,
    registered_seeds: int,
    deviations: Sequence[Deviation] = (),
) -> Verdict:
    """The verdict on a claim from its planned runs.

    Args:
        scale_name: the key of `claim.scales` that was checked.
        measured: every planned run, whether it has finished or not.
        registered_seeds: how many the experiment file names.
        deviations: settings changed by hand, as the runs list them.

    Returns:
        ERROR if a run failed, was incomplete, saw other images than the rest or is another run over again;
        NOT_RUN if one is missing; else what the kind of claim decides, capped where the runs deviate.
    """
    entry = claim.scales.entries()[scale_name]
    assert entry.expect is not None

    def undecided(outcome: Outcome, reason: str) -> Verdict:
        return Verdict(claim.id, outcome, scale_name, entry.fidelity, reason, run_ids=tuple(m.run_id for m in measured))

    failed = [f"{m.arm} seed {m.seed}: {m.error}" for m in measured if m.error]
    if failed:
        return undecided(Outcome.ERROR, f"{len(failed)} of {len(measured)} runs failed; {failed[0]}")
    missing = [m for m in measured if m.record is None]
    unplanned = {arm for _, arm in arms_of(entry.expect)} - {m.arm for m in measured}
    if missing or unplanned:
        none = f"; none was planned of {', '.join(sorted(unplanned))}" if unplanned else ""
        return undecided(Outcome.NOT_RUN, f"{len(measured) - len(missing)} of {len(measured)} runs are stored{none}")
    broken = next(_inconsistencies(measured), None)
    if broken:
        return undecided(Outcome.ERROR, broken)

    arms = _by_arm(measured)
    lacking = [f"{m} of {arm}" for arm, m in _measures(entry.expect) if len(arms[arm].measures[m]) < arms[arm].runs]
    if lacking:
        return undecided(Outcome.NOT_RUN, f"the stored runs did not measure {', '.join(lacking)}; verify it again")
    findings = tuple(_findings(claim, entry, arms))
    outcome = combine(f.outcome for f in findings)
    reason = _first_reason(findings, outcome)
    trained = [m.record.result for m in measured if m.record and isinstance(m.record.result, TrainResult)]
    seeds = min(len(a.correct) for a in arms.values()) if trained else None
    qualifiers = []
    if trained:
        assert seeds is not None
        if seeds < max(registered_seeds, 3):
            less = f" of {registered_seeds}" if seeds < registered_seeds else ""
            qualifiers.append(f"{seeds}{less} seed{'s' if seeds > 1 or less else ''}")
            planned = min(Counter(m.arm for m in measured).values())
            if planned < registered_seeds:  # or one could stop at the seeds that please
                outcome, reason = _cap(outcome, reason, "fewer seeds than registered decide nothing")
        same = [name for name, a in arms.items() if len(a.correct) < a.runs]
        if same:
            qualifiers.append(f"seeds that agree on every image count once: {', '.join(same)}")
        guessing = [name for name, a in arms.items() if not a.learned]
        if guessing:
            qualifiers.append(f"not above chance: {', '.join(guessing)}")
        partial = next((r for r in trained if r.n < r.complete_n), None)
        if partial:
            qualifiers.append(f"partial test set: {partial.n} of {partial.complete_n}")
            outcome, reason = _cap(outcome, reason, "part of the test set decides nothing")
    if deviations:
        qualifiers.append("deviates: " + "; ".join(str(d) for d in deviations))
        outcome, reason = _cap(outcome, reason, "the recipe was changed by hand")
    return Verdict(
        claim.id,
        outcome,
        scale_name,
        entry.fidelity,
        reason,
        tuple(qualifiers),
        findings,
        seeds,
        trained[0].n if trained else None,
        tuple(m.run_id for m in measured),
    )


def judge_literal(claim: Claim, checked: Sequence[Checked]) -> Verdict:
    """Whether a statement agrees with the numbers its source prints: PASS, FAIL or EXCEEDS; INCONCLUSIVE where only
    digits that were rounded away could tell. It says nothing of whether the numbers can be had again."""
    entry = claim.scales.literal
    assert entry is not None
    assert isinstance(entry.expect, LiteralExpect)
    findings = []
    for name, check in entry.expect.checks.items():
        cases = [c for c in checked if c.check == name]
        found = [_literal(c, Outcome(check.otherwise)) for c in cases]
        findings += [_most(name, cases, found, Outcome(check.otherwise))] if check.holds == "most" else found
    outcome = combine(f.outcome for f in findings)
    if outcome is Outcome.PASS:
        reason = _first_reason(findings, outcome)
    else:
        against = sorted((f for f in findings if f.outcome is not Outcome.PASS), key=lambda f: f.outcome is not outcome)
        reason = f"{len(against)} of {len(findings)} do not hold: " + "; ".join(f.because for f in against)
    return Verdict(
        claim.id,
        outcome,
        "literal",
        entry.fidelity,
        reason,
        ("the source's own numbers, nothing measured",),
        tuple(findings),
    )


def _literal(case: Checked, otherwise: Outcome) -> Finding:
    c = case.comparison
    outcome = {True: Outcome.PASS, False: otherwise, None: Outcome.INCONCLUSIVE}[c.holds]
    label = "-".join(part for part in (case.check, case.case) if part)
    cells = ", ".join(f"{address.lstrip('@')} {cell.value:g}" for address, cell in case.cells.items())
    shown = {True: "holds", False: "does not hold", None: "is hidden by the rounding of the printed digits"}[c.holds]
    left, right = _span_text(c.left), _span_text(c.right)
    because = f"{label}: {left} {c.relation} {right} {shown}" + (f" ({cells})" if 0 < len(case.cells) <= 6 else "")
    opened = [not np.isfinite(x.value) for x in (c.left, c.right)]
    measured, reported = (x.low if o else x.value for x, o in zip((c.left, c.right), opened, strict=True))
    return Finding(label, outcome, measured, None, reported, 0.0, because, c.slack, "literal", c.relation, *opened)


def _span_text(span: Span) -> str:
    """A value as far as the printed digits carry it."""
    if not np.isfinite(span.value):
        return f"more than {span.low:.4g}"
    return f"{span.value:.6g}"


def _most(name: str, cases: Sequence[Checked], found: Sequence[Finding], otherwise: Outcome) -> Finding:
    """More than half of the comparisons hold, whatever the rounding hides."""
    holding = sum(c.comparison.holds is True for c in cases)
    open_ = sum(c.comparison.holds is None for c in cases)
    half = len(cases) / 2
    outcome = Outcome.PASS if holding > half else otherwise if holding + open_ <= half else Outcome.INCONCLUSIVE
    against = "; ".join(f.because for f in found if f.outcome is not Outcome.PASS)
    because = f"{name}: {holding} of {len(cases)} hold" + (f"; not: {against}" if against else "")
    return Finding(name, outcome, holding, None, half, 0.0, because, abs(holding - half), "literal", ">")


def cannot_pass(claim: Claim, scale_name: str | None, runs: Sequence[Run], registered_seeds: int = 1) -> str | None:
    """Why runs such as these cannot be expected to PASS, or None.

    Half the interval that is expected must be smaller than the margin; measures of models need a spread, so two seeds;
    and what `judge` caps whatever comes out (fewer seeds, part of the test set, a changed recipe) cannot PASS either.
    """
    entry = claim.scales.entries().get(scale_name or "")
    if entry is None or entry.expect is None:
        return None
    trained = [r for r in runs if isinstance(r.config, Recipe)]
    seeds = len({r.seed for r in trained})
    if trained and seeds < registered_seeds:
        return f"cannot PASS: {seeds} of {registered_seeds} registered seeds decide nothing"
    configs = [r.config for r in trained if isinstance(r.config, Recipe)]
    partial = next((c for c in configs if (c.data.test_images or c.test_size) < c.test_size), None)
    if partial is not None:
        return f"cannot PASS: {partial.data.test_images:,} test images are part of the test set"
    if any(r.deviations for r in trained):
        return "cannot PASS: the recipe is changed by hand"
    match entry.expect:
        case ValueExpect() as expect if claim.reported is not None:
            for name, check in expect.cells.items():
                recipes = [r.config for r in runs if r.arm == check.arm and isinstance(r.config, Recipe)]
                cell = claim.reported.cells[name]
                half = stats.expected_half_width(len(recipes), recipes[0].test_size, cell.value, cell.sd, cell.runs)
                if half >= check.margin and check.direction == "two_sided":  # a better one makes up for any width
                    return (
                        f"cannot PASS: {name} with {len(recipes)} seed(s) has an interval of ±{half:.2f}, the margin "
                        f"is {check.margin:g}"
                    )
        case OrderingExpect() as expect if seeds < 2 and any(
            isinstance(c, Bound) or c.metric != TOP1 for c in expect.all
        ):
            return "cannot PASS: a measure of one seed has no interval"
    return None


def _measures(expect: Expect) -> tuple[tuple[str, str], ...]:
    return expect.measures if isinstance(expect, OrderingExpect) else ()


def combine(outcomes: Iterable[Outcome]) -> Outcome:
    """All parts must hold: one refutation refutes, one doubt leaves doubt (intersection-union)."""
    present = set(outcomes)
    order = (Outcome.FAIL, Outcome.EXCEEDS, Outcome.INCONCLUSIVE, Outcome.PASS)
    return next(o for o in order if o in present)


def _cap(outcome: Outcome, reason: str, why: str) -> tuple[Outcome, str]:
    if not outcome.decided:
        return outcome, reason
    return Outcome.INCONCLUSIVE, f"{why}; it would have been {outcome.value}: {reason}"


def _inconsistencies(measured: Sequence[Measured]) -> Iterator[str]:
    """Why the stored runs cannot be held against each other, if so."""
    images: set[tuple[str, str, bytes, bytes]] = set()
    data: set[str] = set()
    answers: dict[tuple[str, bytes], str] = {}
    for m in measured:
        assert m.record is not None
        result = m.record.result
        if isinstance(result, AnalyticResult):
            continue
        name = f"{m.arm} seed {m.seed} (run {m.run_id})"
        if m.predictions is None:
            yield f"{name}: its predictions are missing"
            return
        ids = m.predictions.ids
        if len(ids) != result.n or len(np.unique(ids)) != result.n:
            yield f"{name}: incomplete evaluation, {len(np.unique(ids))} different images stored of {result.n}"
            return
        if int(m.predictions.correct.sum()) != result.correct:
            stored = int(m.predictions.correct.sum())
            yield f"{name}: the record counts {result.correct} correct, its predictions {stored}"
            return
        p, order = m.predictions, np.argsort(ids)
        data.add(result.data_sha256)
        images.add((result.test_sha256, result.ids_sha256, ids[order].tobytes(), p.labels[order].tobytes()))
        twin = answers.setdefault((result.weights_sha256, p.predicted[order].tobytes()), name)
        if twin != name:
            yield f"{twin} and {name} ended with the same weights: they are one run, not two"
            return
    if len(data) > 1:
        yield "the runs saw different data under one name; run them again with --fresh on the same data"
    if len(images) > 1:
        yield "the runs were evaluated on different images; run them again with --fresh on the same data"


@dataclass(frozen=True)
class _Arm:
    """Runs of one arm, or the quantities of an analytic one.

    Attributes:
        correct: (K, n), seeds by images ascending by id; seeds that agree on every image stand here once.
        runs: how many seeds there were.
        commonest: test images of the most frequent class.
        quantities: of an analytic arm.
        measures: of trained models, a value per seed.
    """

    correct: Bools
    runs: int
    num_classes: int
    commonest: int
    quantities: Mapping[str, float]
    measures: Mapping[str, Sequence[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def accuracies(self) -> list[float]:
        return [float(a) * 100 for a in self.correct.mean(1)]

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def chance(self) -> float:
        """What guessing gives, percent."""
        return 100 * max(1 / self.num_classes, self.commonest / self.correct.shape[1])

    @property
    def learned(self) -> bool:
        """Every seed is better than guessing."""
        n = self.correct.shape[1]
        ps = (stats.above_chance(int(row.sum()), n, self.num_classes, self.commonest) for row in self.correct)
        return all(p < ALPHA for p in ps)


def _by_arm(measured: Sequence[Measured]) -> dict[str, _Arm]:
    groups: dict[str, list[Measured]] = defaultdict(list)
    for m in measured:
        groups[m.arm].append(m)
    arms = {}
    for name, members in groups.items():
        rows: dict[bytes, Bools] = {}
        num_classes, commonest = 2, 0
        quantities: Mapping[str, float] = {}
        measures: defaultdict[str, list[float]] = defaultdict(list)
        for m in members:
            assert m.record is not None
            if isinstance(m.record.result, AnalyticResult):
                quantities = m.record.result.quantities
            elif m.predictions is not None:
                row = m.predictions.correct[np.argsort(m.predictions.ids)]
                rows[row.tobytes()] = row
                num_classes = m.record.result.num_classes
                for measure, value in m.record.result.measures.items():
                    measures[measure].append(value)
                commonest = int(np.bincount(m.predictions.labels).max())
        correct = np.stack(list(rows.values())) if rows else np.zeros((0, 0), bool)
        arms[name] = _Arm(correct, len(members), num_classes, commonest, quantities, measures)
    return arms


def _findings(claim: Claim, entry: Scale, arms: Mapping[str, _Arm]) -> Iterable[Finding]:
    cells = claim.reported.cells if claim.reported else {}
    match entry.expect:
        case ExactExpect() as expect:
            for name, exact in expect.cells.items():
                yield _exact(name, exact, cells[name], arms[exact.arm])
        case ValueExpect() as expect:
            for name, value in expect.cells.items():
                yield _value(name, value, cells[name], arms[value.arm])
        case OrderingExpect() as expect:
            for c in expect.all:
                if isinstance(c, Bound):
                    yield _bound(c, arms[c.arm])
                elif c.metric != TOP1:
                    yield _measured_gap(c, arms[c.greater], arms[c.than])
                else:
                    label = f"{c.greater} - {c.than}"
                    yield _exceeds(label, {c.greater: 1, c.than: -1}, c.by, arms, (c.greater, c.than))
        case TrendExpect(increasing=None) as expect:
            assert expect.larger_gain
            assert expect.than
            (low, high), (other_low, other_high) = expect.larger_gain, expect.than
            label = f"({high} - {low}) - ({other_high} - {other_low})"
            weights = {high: 1, low: -1, other_high: -1, other_low: 1}
            yield _exceeds(label, weights, expect.by, arms, (high, other_high))
        case TrendExpect() as expect:
            assert expect.increasing
            for a, b in zip(expect.increasing, expect.increasing[1:], strict=False):
                yield _exceeds(f"{b} - {a}", {b: 1, a: -1}, expect.by, arms, (b, a))
        case EquivalenceExpect() as expect:
            for i, a in enumerate(expect.equal):
                for b in expect.equal[i + 1 :]:
                    yield _equal(a, b, expect.within, arms)


def _exact(name: str, check: ExactCheck, cell: Cell, arm: _Arm) -> Finding:
    value = arm.quantities[check.quantity]
    bound = check.tolerance if check.tolerance is not None else abs(cell.value) * (check.relative_tolerance or 0.0)
    difference = value - cell.value
    room = {"equal": bound - abs(difference), "at_least": difference + bound, "at_most": bound - difference}
    slack = room[check.direction]
    holds = slack >= 0
    outcome = Outcome.PASS if holds else Outcome.FAIL
    relation = {"equal": "", "at_least": "at least ", "at_most": "at most "}[check.direction]
    because = (
        f"{name}: counted {value:.6g}, reported {relation}{cell.value:.6g}; the difference of {difference:+.3g} is "
        f"{'within' if holds else 'outside'} the tolerance of {bound:.3g}"
    )
    # where no difference is allowed, an exact hit is no near miss
    share = abs(slack) / (bound or abs(cell.value) or 1.0) if bound or difference else 1.0
    return Finding(name, outcome, value, None, cell.value, bound, because, share, "exact")


def _value(name: str, check: ValueCheck, cell: Cell, arm: _Arm) -> Finding:
    n = arm.correct.shape[1]
    accuracies, mean, margin = arm.accuracies, arm.mean, check.margin
    i = stats.equivalence_interval(accuracies, n, cell.value, cell.sd, cell.runs)
    if check.direction == "at_least":
        outcome = Outcome.PASS if i.low > -margin else Outcome.FAIL if i.high < -margin else Outcome.INCONCLUSIVE
    elif -margin < i.low and i.high < margin:
        outcome = Outcome.PASS
    elif i.high < -margin:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.EXCEEDS if i.low > margin else Outcome.INCONCLUSIVE
    shown = stats.t_interval(accuracies) if len(accuracies) >= 3 else stats.wilson(round(mean / 100 * n), n)
    where = {
        Outcome.PASS: "above the lower margin" if check.direction == "at_least" else "inside the margin",
        Outcome.FAIL: "below the margin",
        Outcome.EXCEEDS: "above the margin",
        Outcome.INCONCLUSIVE: "across the edge of the margin",
    }[outcome]
    because = (
        f"{name}: ours {mean:.2f} ({shown.low:.2f} to {shown.high:.2f}, {len(accuracies)} seed"
        f"{'s' if len(accuracies) > 1 else ''}) lies {mean - cell.value:+.2f} from the reported {cell.value:g}; "
        f"the 90% interval of the difference, {i.low:+.2f} to {i.high:+.2f} ({i.method}), is {where} of {margin:g}"
    )
    if outcome is Outcome.PASS and not arm.learned:
        outcome, because = Outcome.INCONCLUSIVE, f"{because}, but ours is not above chance"
    edges = (-margin,) if check.direction == "at_least" else (-margin, margin)
    return Finding(name, outcome, mean, shown, cell.value, margin, because, _distance(i, *edges), "value")


def _exceeds(
    label: str, weights: Mapping[str, float], by: float, arms: Mapping[str, _Arm], rivals: tuple[str, str]
) -> Finding:
    """Whether a contrast is above `by`.

    Args:
        rivals: the arm that must be high for it, and the one that must not.
    """
    used = [arms[name] for name in weights]
    difference, i = stats.contrast([a.correct for a in used], list(weights.values()))
    single = len(used) == 2 and all(len(a.correct) == 1 for a in used)
    p = stats.mcnemar(used[0].correct[0], used[1].correct[0]) if single else None
    differ = p is None or p < ALPHA
    if i.low > by and differ:
        outcome = Outcome.PASS
    elif i.high < by and (differ or by > 0):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
    where = {Outcome.PASS: "above", Outcome.FAIL: "below", Outcome.INCONCLUSIVE: "not clear of"}[outcome]
    because = (
        f"{label}: {difference:+.2f} points, 95% interval {i.low:+.2f} to {i.high:+.2f} ({i.method}), {where} the "
        f"{'minimum gap of ' + format(by, 'g') if by else 'zero line'}"
        + (f"; exact McNemar p = {p:.2g}" if p is not None else "")
    )
    winner, other = (arms[name] for name in rivals)
    must_learn = rivals if len(used) == 4 else rivals[:1]  # to gain less than another arm, one must gain at all
    guessing = [name for name in must_learn if not arms[name].learned]
    forced = None
    if outcome is Outcome.PASS and guessing:
        forced = f"{guessing[0]} is not above chance"
    elif outcome is Outcome.PASS and difference - (100 - other.mean) > by:
        forced = f"{rivals[1]} has {100 - other.mean:.2f} points left to 100%, so no better one could have failed it"
    elif outcome is Outcome.FAIL and difference + (100 - winner.mean) < (0 if i.high < 0 else by):
        forced = f"{rivals[0]} has {100 - winner.mean:.2f} points left to 100%, so no better one could have passed"
    if forced:
        outcome, because = Outcome.INCONCLUSIVE, f"{because}, but {forced}"
    return Finding(label, outcome, difference, i, None, by, because, _distance(i, by), "gap")


def _bound(check: Bound, arm: _Arm) -> Finding:
    """A measure of one arm against a number."""
    edge = check.above if check.above is not None else check.below
    assert edge is not None
    label, relation = f"{check.arm} {check.metric}", ">" if check.above is not None else "<"
    return _measured(label, relation, edge, arm.measures[check.metric], None, {check.arm: arm})


def _measured_gap(check: Comparison, greater: _Arm, than: _Arm) -> Finding:
    """A measure of two arms against each other."""
    label = f"{check.greater} - {check.than} {check.metric}"
    values = greater.measures[check.metric], than.measures[check.metric]
    return _measured(label, ">", check.by, *values, {check.greater: greater, check.than: than})


def _measured(
    label: str,
    relation: str,
    edge: float,
    values: Sequence[float],
    others: Sequence[float] | None,
    arms: Mapping[str, _Arm],
) -> Finding:
    """Seeds' values, less those of other seeds, against an edge, by Student's t over seeds (Welch's for two arms)."""
    mean = float(np.mean(values)) - (float(np.mean(others)) if others is not None else 0.0)
    i = stats.mean_interval(values, others)
    sign = 1 if relation == ">" else -1
    if i is None:
        outcome, shown = Outcome.INCONCLUSIVE, "two seeds or more are needed for an interval"
    else:
        above, below = (i.low > edge, i.high < edge) if sign > 0 else (i.high < edge, i.low > edge)
        outcome = Outcome.PASS if above else Outcome.FAIL if below else Outcome.INCONCLUSIVE
        shown = f"95% interval {i.low:+.3f} to {i.high:+.3f} ({i.method})"
    side = "above" if (outcome is Outcome.PASS) == (sign > 0) else "below"
    because = f"{label}: {mean:+.3f}, {shown}, {side if outcome.decided else 'not clear of'} {edge:g}"
    guessing = [name for name, arm in arms.items() if not arm.learned]
    if outcome.decided and guessing:
        outcome, because = Outcome.INCONCLUSIVE, f"{because}, but {guessing[0]} is not above chance"
    slack = _distance(i, edge) if i is not None else 0.0
    return Finding(label, outcome, mean, i, None, edge, because, slack, "measure", relation)


def _equal(a: str, b: str, within: float, arms: Mapping[str, _Arm]) -> Finding:
    first, second = arms[a], arms[b]
    difference, i = stats.contrast([first.correct, second.correct], [1, -1], level=0.90)
    if -within < i.low and i.high < within:
        outcome, where = Outcome.PASS, "inside"
    elif i.low > within or i.high < -within:
        outcome, where = Outcome.FAIL, "outside"
    else:
        outcome, where = Outcome.INCONCLUSIVE, "across the edge of"
    because = (
        f"{a} - {b}: {difference:+.2f} points, 90% interval {i.low:+.2f} to {i.high:+.2f} ({i.method}), {where} "
        f"the margin of {within:g}"
    )
    empty = _empty_equality(first, second, within) if outcome is Outcome.PASS else None
    if empty:
        outcome, because = Outcome.INCONCLUSIVE, f"{because}, but {empty}"
    distance = _distance(i, -within, within)
    return Finding(f"{a} - {b}", outcome, difference, i, None, within, because, distance, "equal")


def _empty_equality(a: _Arm, b: _Arm, within: float) -> str | None:
    """Why two equal arms show nothing, if so: models that guess or make no error would be as equal."""
    lower = min(a.mean, b.mean)
    if not (a.learned and b.learned):
        return "an arm is not above chance"
    if lower - max(a.chance, b.chance) <= 2 * within:
        return f"the margin is not below half the distance to chance, {max(a.chance, b.chance):.2f}"
    if 100 - lower <= within:
        return "a model without a single error would be as equal"
    if {row.tobytes() for row in a.correct} & {row.tobytes() for row in b.correct}:
        return "they are right on exactly the same images, as if one model were tested twice"
    return None


def _first_reason(findings: Sequence[Finding], outcome: Outcome) -> str:
    """The sentence of the finding that decided: the least certain of those that agree with the outcome."""
    same = [f for f in findings if f.outcome is outcome]
    more = len(findings) - 1
    tail = f" ({len(same)} of {len(findings)} comparisons)" if more else ""
    return tightest(same).because + tail


def tightest(findings: Sequence[Finding]) -> Finding:
    """The finding that comes nearest to another outcome."""
    return min(findings, key=lambda f: f.slack)


def _distance(interval: Interval, *edges: float) -> float:
    """From the nearer end of an interval to the nearest edge of an outcome."""
    return min(abs(end - edge) for end in (interval.low, interval.high) for edge in edges)
