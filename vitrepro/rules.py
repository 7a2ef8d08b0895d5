"""What one comparison comes to: an estimate against an expectation, by the rule for its kind.

Every rule gives a `Finding`: an outcome, the interval and the p-values that decide it, how strong a test it was, and
two sentences that say so. Rules and their reasons: docs/verdicts.md.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Literal

import numpy as np

from vitrepro import stats
from vitrepro.arrays import Bools
from vitrepro.metrics import TOP1, counted_on, is_accuracy, limits
from vitrepro.spec import (
    Bound,
    Cell,
    Comparison,
    EquivalenceExpect,
    ExactCheck,
    ExactExpect,
    Expect,
    OrderingExpect,
    TrendExpect,
    ValueCheck,
    ValueExpect,
)
from vitrepro.stats import Estimate, Interval

ALPHA = 0.05
POWER = 0.8  # with which a detectable difference is told


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


Form = Literal["exact", "count", "value", "gap", "equal", "measure", "literal"]


@dataclass(frozen=True)
class Finding:
    """One comparison: what was measured, with its interval, against what was expected.

    Attributes:
        measured: percent, points of difference, or the quantity's own unit.
        interval: of what was measured, as it is printed beside it.
        bound: the margin, the minimum gap or the tolerance.
        measures: one sentence with what was measured.
        decides: one sentence with the interval that decides and what it comes to.
        slack: how far it is from another outcome, in points; in tolerances where it was counted.
        form: what was compared: a counted quantity, the counts of one model evaluated twice, an accuracy, a gap between
            arms, their equality, a measure with a number or a reported one, or two printed numbers.
        relation: how measured should stand to the bound or the reported number, where it is not a margin.
        measured_open, reported_open: the value is more than this number, by how much nothing tells.
        deciding: the interval that decides: of the difference from the reported number, or `interval` itself.
        accepted: where `deciding` must lie for a PASS; infinite where open.
        p, p_against: of PASS and of FAIL or EXCEEDS; below 5% where the interval decides so. None where nothing is
            random.
        power: probability of PASS if ours equals the reported number, or the arms each other, at the spread seen.
        detectable: the true difference that this test tells with a probability of 80%: for a gap as PASS, for a value
            or equality as FAIL.
    """

    label: str
    outcome: Outcome
    measured: float
    interval: Interval | None
    reported: float | None
    bound: float
    measures: str
    decides: str
    slack: float
    form: Form
    relation: str = ""
    measured_open: bool = False
    reported_open: bool = False
    deciding: Interval | None = None
    accepted: tuple[float, float] | None = None
    p: float | None = None
    p_against: float | None = None
    power: float | None = None
    detectable: float | None = None

    @property
    def because(self) -> str:
        return f"{self.measures} {self.decides}".strip()

    def but(self, why: str) -> Finding:
        """The same without a decision, for a result that could not have come out otherwise."""
        decides = self.decides.removesuffix(f", so {self.outcome.value}.")
        decides = f"{decides}, but {why}, so INCONCLUSIVE instead of {self.outcome.value}."
        return replace(self, outcome=Outcome.INCONCLUSIVE, decides=decides)


@dataclass(frozen=True)
class Arm:
    """Runs of one arm, or the quantities of an analytic one.

    Attributes:
        accuracies: percent, one per seed; seeds that agree on every image (of arms that are paired by seed: in every
            arm) stand here once.
        n: test images behind each.
        runs: how many seeds there were.
        correct: (K, n), seeds by images ascending by id; None where only accuracies are known.
        commonest: test images of the most frequent class.
        quantities: of an analytic arm.
        measures: of trained models, a value per seed.
        dev_n: images behind an accuracy on the dev split.
    """

    accuracies: tuple[float, ...] = ()
    n: int = 0
    runs: int = 1
    correct: Bools | None = None
    num_classes: int = 2
    commonest: int = 0
    quantities: Mapping[str, float] = field(default_factory=dict)
    measures: Mapping[str, Sequence[float]] = field(default_factory=lambda: defaultdict(list))
    dev_n: int = 0

    @staticmethod
    def of(correct: Bools, runs: int | None = None, *, num_classes: int = 2, commonest: int = 0) -> Arm:
        """From correctness, (K, n)."""
        return Arm(
            tuple((100 * correct.mean(1)).tolist()),
            correct.shape[1],
            runs if runs is not None else len(correct),
            correct,
            num_classes,
            commonest,
        )

    @property
    def seeds(self) -> int:
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def chance(self) -> float:
        """What guessing gives, percent."""
        return 100 * max(1 / self.num_classes, self.commonest / self.n)

    @cached_property
    def learned(self) -> bool:
        """Every seed is better than guessing."""
        counts = (round(a * self.n / 100) for a in self.accuracies)
        return all(stats.above_chance(k, self.n, self.num_classes, self.commonest) < ALPHA for k in counts)

    def least_sd(self, metric: str) -> float:
        """The least that a measure may vary over seeds: more than zero for what is counted on images."""
        n = {"test": self.n, "dev": self.dev_n, None: 0}[counted_on(metric)]
        if not n:
            return 0.0
        return stats.least_sd(float(np.mean(self.measures[metric])) if is_accuracy(metric) else self.mean, n)


def findings(
    expect: Expect, cells: Mapping[str, Cell], arms: Mapping[str, Arm], *, moved: float = 0.0
) -> Iterable[Finding]:
    """Every comparison of an expectation, in its order; all must hold.

    Args:
        cells: the reported numbers, by name.
        moved: lay every reported number, or the difference that equality is held against, this many margins
            (tolerances) higher than it is: what would the same runs have said then?
    """
    match expect:
        case ExactExpect():
            for name, exact in expect.cells.items():
                yield _exact(name, exact, cells[name], arms[exact.arm], moved)
        case ValueExpect():
            for name, value in expect.cells.items():
                cell = cells[name].model_copy(update={"value": cells[name].value + moved * value.margin})
                rule = evaluated if value.same_weights else accuracy if value.metric == TOP1 else measure
                yield rule(name, value, cell, arms[value.arm])
        case OrderingExpect():
            for c in expect.all:
                if isinstance(c, Bound):
                    yield _bound(c, arms[c.arm])
                elif c.metric != TOP1:
                    yield _measured_gap(c, arms[c.greater], arms[c.than])
                else:
                    label = f"{c.greater} - {c.than}"
                    yield gap(label, {c.greater: 1, c.than: -1}, c.by, arms, (c.greater, c.than))
        case TrendExpect(increasing=None):
            assert expect.larger_gain
            assert expect.than
            (low, high), (other_low, other_high) = expect.larger_gain, expect.than
            label = f"({high} - {low}) - ({other_high} - {other_low})"
            weights = {high: 1, low: -1, other_high: -1, other_low: 1}
            yield gap(label, weights, expect.by, arms, (high, other_high), interaction=True)
        case TrendExpect():
            yield from _rise(expect, arms)
        case EquivalenceExpect():
            for i, a in enumerate(expect.equal):
                for b in expect.equal[i + 1 :]:
                    yield equal(a, b, expect.within, arms, moved * expect.within, paired=expect.paired_by_seed)


def combine(outcomes: Iterable[Outcome]) -> Outcome:
    """All parts must hold: one refutation refutes, one doubt leaves doubt (intersection-union)."""
    present = set(outcomes)
    order = (Outcome.FAIL, Outcome.EXCEEDS, Outcome.INCONCLUSIVE, Outcome.PASS)
    return next(o for o in order if o in present)


def tightest(found: Sequence[Finding]) -> Finding:
    """The finding that comes nearest to another outcome."""
    return min(found, key=lambda f: f.slack)


# --- against a reported number ------------------------------------------------------------------


def number_text(value: float) -> str:
    """Six digits, and all of a count of millions: what is counted exactly is shown exactly."""
    return f"{value:,.0f}" if 1e6 <= abs(value) < 1e15 and float(value).is_integer() else f"{value:.6g}"


def _exact(name: str, check: ExactCheck, cell: Cell, arm: Arm, moved: float) -> Finding:
    value = arm.quantities[check.quantity]
    bound = check.tolerance if check.tolerance is not None else abs(cell.value) * (check.relative_tolerance or 0.0)
    reported = cell.value + moved * (bound or abs(cell.value) or 1.0)
    difference = value - reported
    room = {"equal": bound - abs(difference), "at_least": difference + bound, "at_most": bound - difference}
    slack = room[check.direction]
    holds = slack >= 0
    outcome = Outcome.PASS if holds else Outcome.FAIL
    relation = {"equal": "", "at_least": "at least ", "at_most": "at most "}[check.direction]
    measures = f"{name}: counted {number_text(value)}, reported {relation}{number_text(reported)}."
    inside = "within" if holds else "outside"
    off = f"{difference:+,.0f}" if abs(difference) >= 1000 else f"{difference:+.3g}"
    decides = f"The difference of {off} is {inside} the tolerance of {bound:.3g}, so {outcome.value}."
    # where no difference is allowed, an exact hit is no near miss
    share = abs(slack) / (bound or abs(reported) or 1.0) if bound or difference else 1.0
    accepted = (-np.inf if check.direction == "at_most" else -bound, np.inf if check.direction == "at_least" else bound)
    return Finding(name, outcome, value, None, reported, bound, measures, decides, share, "exact", accepted=accepted)


def evaluated(name: str, check: ValueCheck, cell: Cell, arm: Arm) -> Finding:
    """One set of weights evaluated again: nothing is random, so counts decide.

    The printed number stands for every count that rounds to it, or for all that it may be where none does. PASS if all
    of them lie within the margin, which is at least one image, FAIL or EXCEEDS if none does.
    """
    n, mean = arm.n, arm.mean
    tolerance = max(check.margin * n / 100, 1.0) + 1e-6  # images; floats of counts must not decide
    half = 0.0 if cell.decimals is None else 0.5 * 10.0**-cell.decimals
    ours, low, high = mean * n / 100, (cell.value - half) * n / 100, (cell.value + half) * n / 100
    counts = max(math.ceil(low - 1e-6), 0), min(math.floor(high + 1e-6), n)
    if half and counts[0] <= counts[1]:
        low, high = counts
    apart = (ours - high, ours - low)
    if check.direction == "at_least":
        apart = (min(apart[0], 0.0), min(apart[1], 0.0))
    if -tolerance <= apart[0] and apart[1] <= tolerance:
        outcome, where = Outcome.PASS, "within"
    elif apart[1] < -tolerance:
        outcome, where = Outcome.FAIL, "below"
    elif apart[0] > tolerance:
        outcome, where = Outcome.EXCEEDS, "above"
    else:
        outcome, where = Outcome.INCONCLUSIVE, "at the edge of"
    off = ours - cell.value * n / 100
    measures = f"{name}: ours {mean:.2f} ({ours:.0f} of {n:,} images), reported {cell.value:g}."
    decides = (
        f"The same weights, so nothing is random: {off:+.1f} images{', as far as the digits go,' if half else ''} "
        f"{'is' if where == 'within' else 'are'} {where} the tolerance of {tolerance:.4g} images, so {outcome.value}."
    )
    slack = min(abs(abs(a) - tolerance) for a in apart) * 100 / n
    edge = tolerance * 100 / n
    accepted = (-edge, np.inf if check.direction == "at_least" else edge)
    made = Finding(
        name, outcome, mean, None, cell.value, check.margin, measures, decides, slack, "count", accepted=accepted
    )
    return made if outcome is not Outcome.PASS or arm.learned else made.but("ours is not above chance")


def accuracy(name: str, check: ValueCheck, cell: Cell, arm: Arm) -> Finding:
    """Our training runs against a reported accuracy, by equivalence or non-inferiority."""
    n, accuracies, mean, margin = arm.n, arm.accuracies, arm.mean, check.margin
    estimate = stats.difference(accuracies, n, cell.value, printed_sd(cell), cell.runs)
    i = _possible(estimate.interval(0.90), -cell.value, 100 - cell.value)
    p_low, p_high = estimate.p_above(-margin), estimate.p_below(margin)
    at_least = check.direction == "at_least"
    if i.low > -margin and (at_least or i.high < margin):
        outcome = Outcome.PASS
    elif i.high < -margin:
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.EXCEEDS if i.low > margin and not at_least else Outcome.INCONCLUSIVE
    over_images = stats.wilson(round(mean / 100 * n), n)
    shown = _possible(stats.t_interval(accuracies), 0, 100) if len(accuracies) >= 3 else over_images
    where = {
        Outcome.PASS: "above the lower margin" if at_least else "inside the margin",
        Outcome.FAIL: "below the lower margin",
        Outcome.EXCEEDS: "above the margin",
        Outcome.INCONCLUSIVE: "across the edge of the margin",
    }[outcome]
    signed = f"{-margin:g}" if "lower" in where else f"{margin:g}"
    seeds = f"{arm.seeds} seed{'s' if arm.seeds > 1 else ''}"
    measures = (
        f"{name}: ours {mean:.2f} ({shown.low:.2f} to {shown.high:.2f}, {seeds}) lies "
        f"{_apart(mean - cell.value)} the reported {_reported(cell)}."
    )
    decides = f"The 90% interval of the difference, {_interval(i)}, is {where} of {signed}, so {outcome.value}."
    edges = (-margin,) if at_least else (-margin, margin)
    against = [estimate.p_below(-margin)] if at_least else [estimate.p_below(-margin), estimate.p_above(margin)]
    made = Finding(
        name,
        outcome,
        mean,
        shown,
        cell.value,
        margin,
        measures,
        decides,
        _distance(i, *edges),
        "value",
        deciding=i,
        accepted=(-margin, np.inf if at_least else margin),
        p=p_low if at_least else max(p_low, p_high),
        p_against=min(against),
        power=_power_inside(estimate, margin, two_sided=not at_least),
        detectable=_within(margin + _reach(estimate, 0.95), 100),
    )
    return made if outcome is not Outcome.PASS or arm.learned else made.but("ours is not above chance")


def printed_sd(cell: Cell) -> float | None:
    """The deviation printed with a number, but at least half its last digit: ± 0.00 is not certainty."""
    if cell.sd is None or cell.decimals is None:
        return cell.sd
    return max(cell.sd, 0.5 * 10.0**-cell.decimals)


def _reported(cell: Cell) -> str:
    """A printed number with its own spread and runs, as far as they are told."""
    spread = f" ± {cell.sd:g}" if cell.sd is not None else ""
    return f"{cell.value:g}{spread}" + (f" ({cell.runs} run{'s' if cell.runs > 1 else ''})" if cell.runs else "")


def _apart(difference: float) -> str:
    """How far one number lies from another, in words that go before it."""
    shown = f"{abs(difference):.2f}"
    return "on" if float(shown) == 0 else f"{shown} {'below' if difference < 0 else 'above'}"


def _interval(i: Interval, digits: int = 2) -> str:
    """Ends and method; a bound covers more than its level where training is steadier than coin tosses."""
    more = f", so at least {100 * i.level:g}%" if i.bound else ""
    return f"{i.low:+.{digits}f} to {i.high:+.{digits}f} ({i.method}{more})"


def _power_inside(estimate: Estimate, margin: float, *, two_sided: bool) -> float:
    """Probability that the interval lies inside the margin if the true difference is zero, at the spread seen."""
    if estimate.se == 0:
        return 1.0
    room = margin - estimate.quantile(0.95) * estimate.se  # how far from zero the estimate may lie
    miss = estimate.p_above(estimate.centre - room)  # the estimate's distance from its own centre is t
    return max(0.0, 1 - (2 if two_sided else 1) * miss)


def _reach(estimate: Estimate, share: float) -> float:
    """How far beyond an edge a true value must lie to be told with 80%, by a bound at this one-sided level."""
    return (estimate.quantile(share) + estimate.quantile(POWER)) * estimate.se


def _possible(i: Interval, low: float, high: float) -> Interval:
    """The part of an interval that accuracies between 0 and 100% can have."""
    return replace(i, low=max(i.low, low), high=min(i.high, high))


def _within(detectable: float, most: float) -> float | None:
    """None where nothing so large is possible, so that no difference could have been told."""
    return detectable if detectable <= most else None


# --- arms among themselves ----------------------------------------------------------------------


def difference_of(
    weights: Mapping[str, float], arms: Mapping[str, Arm], *, paired: bool = False
) -> tuple[float, Estimate]:
    """The contrast of arms, paired over images where their predictions are known, and over seeds if asked.

    Raises:
        ValueError: seeds cannot be paired without predictions.
    """
    used, w = [arms[name] for name in weights], list(weights.values())
    rows = [a.correct for a in used if a.correct is not None]
    if len(rows) == len(used):
        return stats.contrast(rows, w, paired=paired)
    if paired:
        raise ValueError("accuracies alone do not tell which seed is behind them")
    return stats.unpaired([a.accuracies for a in used], w, min(a.n for a in used))


def gap(
    label: str,
    weights: Mapping[str, float],
    by: float,
    arms: Mapping[str, Arm],
    rivals: tuple[str, str],
    *,
    interaction: bool = False,
    step: bool = False,
) -> Finding:
    """Whether a contrast is above `by`, which is negative where it may fall short by so much.

    Args:
        rivals: the arm that must be high for it, and the one that must not.
        interaction: it compares two gains.
        step: it is part of a rise with dips, which as a whole can fail where this part cannot.
    """
    used = [arms[name] for name in weights]
    difference, estimate = difference_of(weights, arms)
    most = 100 * sum(w for w in weights.values() if w > 0)
    i = _possible(estimate.interval(0.95), -most, most)
    first, second = used[0].correct, used[1].correct
    pair = len(used) == 2 and used[0].seeds == used[1].seeds == 1 and by >= 0
    mcnemar = stats.mcnemar(first[0], second[0]) if pair and first is not None and second is not None else None
    differ = mcnemar is None or mcnemar < ALPHA
    if i.low > by and differ:
        outcome = Outcome.PASS
    elif i.high < by and (differ or by > 0):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE
    where = {Outcome.PASS: "above", Outcome.FAIL: "below", Outcome.INCONCLUSIVE: "not clear of"}[outcome]
    edge = f"the minimum gap of {by:g}" if by > 0 else f"the largest shortfall of {by:g}" if by < 0 else "the zero line"
    seeds = min(a.seeds for a in used)
    measures = (
        f"{label}: {difference:+.2f} points over {used[0].n:,} test images and {seeds} "
        f"seed{'s' if seeds > 1 else ''} an arm."
    )
    test = f" (exact McNemar p = {mcnemar:.2g})" if mcnemar is not None else ""
    decides = f"The 95% interval, {_interval(i)}, is {where} {edge}{test}, so {outcome.value}."
    also = [mcnemar] if mcnemar is not None else []
    made = Finding(
        label,
        outcome,
        difference,
        i,
        None,
        by,
        measures,
        decides,
        _distance(i, by),
        "gap",
        deciding=i,
        accepted=(by, np.inf),
        p=max([min(1.0, 2 * estimate.p_above(by)), *also]),
        p_against=max([min(1.0, 2 * estimate.p_below(by)), *(also if by == 0 else [])]),
        detectable=_within(by + _reach(estimate, 0.975), most),
    )
    forced = _forced(made, weights, rivals, arms, interaction=interaction, step=step)
    return made.but(forced) if forced else made


def _forced(
    f: Finding,
    weights: Mapping[str, float],
    rivals: tuple[str, str],
    arms: Mapping[str, Arm],
    *,
    interaction: bool,
    step: bool,
) -> str | None:
    """Why a gap could not have come out otherwise, if so."""
    winner, other = (arms[name] for name in rivals)
    must_learn = rivals if interaction else rivals[:1]  # to gain less than another arm, one must gain at all
    guessing = [name for name in must_learn if not arms[name].learned]
    assert f.interval is not None
    left, room = 100 - other.mean, 100 - winner.mean
    if f.outcome.decided and guessing:
        return f"{guessing[0]} is not above chance"
    if f.outcome is Outcome.PASS and f.bound < 0 and not step:
        empty = _empty_shortfall(winner, other, -f.bound)
        if empty:
            return empty
    if f.outcome is Outcome.PASS and not step and f.measured - abs(weights[rivals[1]]) * left > f.bound:
        return f"{rivals[1]} has {left:.2f} points left to 100%: even without an error it could not have made this fail"
    edge = min(0.0, f.bound) if f.interval.high < 0 else f.bound  # a reversed order is refuted all the same
    if f.outcome is Outcome.FAIL and f.measured + abs(weights[rivals[0]]) * room < edge:
        return f"{rivals[0]} has {room:.2f} points left to 100%: even without an error it could not have passed"
    return None


def _empty_shortfall(winner: Arm, other: Arm, by: float) -> str | None:
    """Why being no worse by so much shows nothing, if so: a guess, or the other model itself, would be as good."""
    if other.mean - other.chance <= 2 * by:
        return f"{by:g} points are not below half of what the other arm has over chance, {other.chance:.2f}"
    return _SAME if _one_model(winner, other) else None


def _rise(expect: TrendExpect, arms: Mapping[str, Arm]) -> Iterator[Finding]:
    """A rise at every step; or, where a dip is allowed, one of the fitted line and no step that falls by more."""
    names = expect.increasing
    assert names
    steps = list(itertools.pairwise(names))
    if expect.dip is None:
        for a, b in steps:
            yield gap(f"{b} - {a}", {b: 1, a: -1}, expect.by, arms, (b, a))
        return
    yield gap(*line(names), expect.by, arms, (names[-1], names[0]), step=True)
    for a, b in steps:
        yield gap(f"{b} - {a}", {b: 1, a: -1}, -expect.dip, arms, (b, a), step=True)


def line(names: Sequence[str]) -> tuple[str, dict[str, float]]:
    """Label and weights of the rise of the least squares line through arms, from its first to its last."""
    x = np.arange(len(names)) - (len(names) - 1) / 2
    slope = (len(names) - 1) * x / (x @ x)
    return f"line from {names[0]} to {names[-1]}", dict(zip(names, slope.tolist(), strict=True))


def equal(
    a: str, b: str, within: float, arms: Mapping[str, Arm], reference: float = 0.0, *, paired: bool = False
) -> Finding:
    """Whether two arms differ by `reference`, to within a margin.

    Args:
        paired: row by row both arms are of the same seeds, from which they started alike.
    """
    first, second = arms[a], arms[b]
    difference, raw = difference_of({a: 1, b: -1}, arms, paired=paired)
    estimate = replace(raw, centre=raw.centre - reference)
    i = _possible(estimate.interval(0.90), -100 - reference, 100 - reference)
    if -within < i.low and i.high < within:
        outcome, where = Outcome.PASS, "inside"
    elif i.low > within or i.high < -within:
        outcome, where = Outcome.FAIL, "outside"
    else:
        outcome, where = Outcome.INCONCLUSIVE, "across the edge of"
    seeds = min(first.seeds, second.seeds)
    measures = (
        f"{a} - {b}: {difference - reference:+.2f} points over {first.n:,} test images and {seeds} "
        f"seed{'s' if seeds > 1 else ''}{', paired by seed' if paired else ' an arm'}."
    )
    decides = f"The 90% interval, {_interval(i)}, is {where} the margin of {within:g}, so {outcome.value}."
    made = Finding(
        f"{a} - {b}",
        outcome,
        difference - reference,
        i,
        None,
        within,
        measures,
        decides,
        _distance(i, -within, within),
        "equal",
        deciding=i,
        accepted=(-within, within),
        p=max(estimate.p_above(-within), estimate.p_below(within)),
        p_against=min(estimate.p_below(-within), estimate.p_above(within)),
        power=_power_inside(estimate, within, two_sided=True),
        detectable=_within(within + _reach(estimate, 0.95), 100),
    )
    if outcome.decided and paired and seeds < 2:
        return made.but("one seed does not tell how far apart the runs of a seed lie")
    empty = _empty_equality(first, second, within, paired=paired) if outcome is Outcome.PASS else None
    return made.but(empty) if empty else made


def _empty_equality(a: Arm, b: Arm, within: float, *, paired: bool) -> str | None:
    """Why two equal arms show nothing, if so: models that guess or make no error would be as equal.

    Runs that started alike may well be right on the same images; whether they are one run, `verdict.judge` sees.
    """
    lower = min(a.mean, b.mean)
    if not (a.learned and b.learned):
        return "an arm is not above chance"
    if lower - max(a.chance, b.chance) <= 2 * within:
        return f"the margin is not below half the distance to chance, {max(a.chance, b.chance):.2f}"
    if 100 - lower <= within:
        return "a model without a single error would be as equal"
    return _SAME if not paired and _one_model(a, b) else None


_SAME = "they are right on exactly the same images, as if one model were tested twice"


def _one_model(a: Arm, b: Arm) -> bool:
    """Whether a run of one arm is right on just the images on which a run of the other is."""
    rows = [set() if arm.correct is None else {row.tobytes() for row in arm.correct} for arm in (a, b)]
    return bool(rows[0] & rows[1])


# --- measures of training runs ------------------------------------------------------------------


def measure(name: str, check: ValueCheck, cell: Cell, arm: Arm) -> Finding:
    """A measure of our training runs against a reported number, by equivalence or, of accuracies, non-inferiority.

    More than was reported is EXCEEDS where the measure is an accuracy; of any other measure neither side is the better.
    """
    values, margin, metric = arm.measures[check.metric], check.margin, check.metric
    mean, at_least = float(np.mean(values)), check.direction == "at_least"
    least_sd = arm.least_sd(metric)
    estimate = stats.difference_of_measure(values, cell.value, printed_sd(cell), cell.runs, least_sd=least_sd)
    seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    side = "below" if mean < cell.value else "above"
    lies = f"lies {_digits(abs(mean - cell.value))} {side} the reported {_reported(cell)}."
    relation, accepted = ("-" if at_least else "±"), (-margin, np.inf if at_least else margin)
    if estimate is None or estimate.se == 0:
        told = f"{name}: {metric} {_digits(mean)} ({seeds}) {lies}"
        return Finding(
            name, Outcome.INCONCLUSIVE, mean, None, cell.value, margin, told, _no_interval(estimate), 0.0, "measure",
            relation, accepted=accepted,
        )  # fmt: skip
    least, most = limits(metric)
    shown = _possible(stats.t_interval(values, least_sd=least_sd), least, most)
    i = estimate.interval(0.90)
    if i.low > -margin and (at_least or i.high < margin):
        outcome, where = Outcome.PASS, "above the lower margin" if at_least else "inside the margin"
    elif i.high < -margin:
        outcome, where = Outcome.FAIL, "below the lower margin"
    elif i.low > margin and not at_least:
        outcome, where = Outcome.EXCEEDS if is_accuracy(metric) else Outcome.FAIL, "above the margin"
    else:
        outcome, where = Outcome.INCONCLUSIVE, "across the edge of the margin"
    signed = f"{-margin:g}" if "lower" in where else f"{margin:g}"
    decides = f"The 90% interval of the difference, {_interval(i, _decimals(margin))}, is {where} of {signed}"
    p_low, p_high = estimate.p_above(-margin), estimate.p_below(margin)
    against = (estimate.p_below(-margin), *(() if at_least else (estimate.p_above(margin),)))
    made = Finding(
        name,
        outcome,
        mean,
        shown,
        cell.value,
        margin,
        f"{name}: {metric} {_digits(mean)} ({_digits(shown.low)} to {_digits(shown.high)}, {seeds}) {lies}",
        f"{decides}, so {outcome.value}.",
        _distance(i, *((-margin,) if at_least else (-margin, margin))),
        "measure",
        relation,
        deciding=i,
        accepted=accepted,
        p=p_low if at_least else max(p_low, p_high),
        p_against=min(against),
        power=_power_inside(estimate, margin, two_sided=not at_least),
        detectable=_within(margin + _reach(estimate, 0.95), most - least),
    )
    return made if outcome is not Outcome.PASS or arm.learned else made.but("ours is not above chance")


def _digits(value: float) -> str:
    """A number of any size, to five digits."""
    return f"{value:.5g}"


def _decimals(margin: float) -> int:
    """Digits after the point that show a tenth of a margin, and two at least."""
    return max(2, 1 - math.floor(math.log10(margin)))


def _no_interval(estimate: Estimate | None) -> str:
    lacking = "Two seeds or more are needed for an interval" if estimate is None else "Seeds that all agree have none"
    return f"{lacking}, so INCONCLUSIVE."


def _bound(check: Bound, arm: Arm) -> Finding:
    """A measure of one arm against a number."""
    edge = check.above if check.above is not None else check.below
    assert edge is not None
    label, relation = f"{check.arm} {check.metric}", ">" if check.above is not None else "<"
    return _measure(label, check.metric, relation, edge, {check.arm: arm})


def _measured_gap(check: Comparison, greater: Arm, than: Arm) -> Finding:
    """A measure of two arms against each other."""
    label = f"{check.greater} - {check.than} {check.metric}"
    return _measure(label, check.metric, ">", check.by, {check.greater: greater, check.than: than})


def _measure(label: str, metric: str, relation: str, edge: float, arms: Mapping[str, Arm]) -> Finding:
    """Seeds' values, less those of a second arm, against an edge, by Student's t over seeds (Welch's for two arms)."""
    values, *others = (arm.measures[metric] for arm in arms.values())
    mean = float(np.mean(values)) - sum(float(np.mean(other)) for other in others)
    estimate = stats.mean(values, *others, least_sd=[arm.least_sd(metric) for arm in arms.values()])
    seeds = min(map(len, (values, *others)))
    measures = f"{label}: {mean:+.3f} over {seeds} seed{'s' if seeds > 1 else ''}{' an arm' if others else ''}."
    accepted = (edge, np.inf) if relation == ">" else (-np.inf, edge)
    if estimate is None or estimate.se == 0:
        return Finding(
            label, Outcome.INCONCLUSIVE, mean, None, None, edge, measures, _no_interval(estimate), 0.0, "measure",
            relation, accepted=accepted,
        )  # fmt: skip
    i = estimate.interval(0.95)
    up, down = i.low > edge, i.high < edge
    p_up, p_down = min(1.0, 2 * estimate.p_above(edge)), min(1.0, 2 * estimate.p_below(edge))
    sign = 1 if relation == ">" else -1
    holds, fails = (up, down) if sign > 0 else (down, up)
    outcome = Outcome.PASS if holds else Outcome.FAIL if fails else Outcome.INCONCLUSIVE
    side = "above" if up else "below" if down else "not clear of"
    decides = f"The 95% interval, {_interval(i, 3)}, is {side} {edge:g}, so {outcome.value}."
    made = Finding(
        label,
        outcome,
        mean,
        i,
        None,
        edge,
        measures,
        decides,
        _distance(i, edge),
        "measure",
        relation,
        deciding=i,
        accepted=accepted,
        p=p_up if sign > 0 else p_down,
        p_against=p_down if sign > 0 else p_up,
        detectable=edge + sign * _reach(estimate, 0.975),
    )
    guessing = [name for name, arm in arms.items() if not arm.learned]
    if outcome.decided and guessing:
        return made.but(f"{guessing[0]} is not above chance")
    piled = None if others else _piled(metric, values, edge)
    return made.but(piled) if outcome.decided and piled else made


def _piled(metric: str, values: Sequence[float], edge: float) -> str | None:
    """Why seeds that pile up at the limit of a measure do not tell on which side of an edge its mean is, if so."""
    least, most = limits(metric)
    for limit, word in ((least, "least"), (most, "most")):
        at = sum(value == limit for value in values)
        if at and min(values) < edge < max(values):
            return f"{at} of {len(values)} seeds have {limit:g}, the {word} there is, and not all lie on one side"
    return None


def _distance(interval: Interval, *edges: float) -> float:
    """From the nearer end of an interval to the nearest edge of an outcome."""
    return min(abs(end - edge) for end in (interval.low, interval.high) for edge in edges)
