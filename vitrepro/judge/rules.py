"""From an expectation to findings: each kind of claim makes an estimate and a region, and `finding.decide` decides.

Rules and their reasons: docs/verdicts.md.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vitrepro.judge import stats
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import ALPHA, DECIDED, EXCEEDS, FAIL, PASS, Finding, Form, Note, Outcome, Region, note
from vitrepro.judge.spread import FEWEST, Regime, Spread, Stored, spread
from vitrepro.judge.stats import Estimate, Share
from vitrepro.metrics import FAILED_RUNS, TOP1, is_accuracy, limits
from vitrepro.spec import (
    Bound,
    Cell,
    Comparison,
    Conditional,
    EquivalenceExpect,
    ExactExpect,
    Expect,
    OrderingExpect,
    TrendExpect,
    ValueExpect,
)

BOTH_SIDES = 0.025  # tail of a 95% interval
Blocks = dict[Outcome, Note]


@dataclass(frozen=True)
class Question:
    """One comparison as a claim asks for it, before anything is measured; judging and forecasts read the same.

    Attributes:
        weights: arm -> its part in what is estimated; one arm where it is held against a number.
        bound: margin, gap, edge or tolerance, as the claim states it.
        cell: the reported number, where there is one.
        quantity: of a counted one.
        rivals: of a gap, the arm that must be high for it, and the one that must not.
        both: both rivals must be above chance; of a line of arms the first may guess.
        step: it is part of a rise with dips, which as a whole can fail where this part cannot.
        paired: run by run the arms are of the same seeds, from which they started alike.
    """

    label: str
    form: Form
    weights: Mapping[str, float]
    region: Region
    bound: float
    metric: str = TOP1
    cell: Cell | None = None
    relation: str = ""
    quantity: str = ""
    rivals: tuple[str, str] = ("", "")
    both: bool = False
    step: bool = False
    paired: bool = False

    def arms(self, arms: Mapping[str, Arm]) -> list[Arm]:
        return [arms[name] for name in self.weights]


def questions(expect: Expect, cells: Mapping[str, Cell]) -> Iterator[Question]:
    """Every comparison of an expectation, in its order; all must hold.

    Args:
        cells: the reported numbers, by name.
    """
    match expect:
        case ExactExpect():
            for name, exact in expect.cells.items():
                value = cells[name].value
                bound = exact.tolerance if exact.tolerance is not None else abs(value) * (exact.relative_tolerance or 0)
                region = _around(bound, exact.direction, unit=bound or abs(value) or 1.0)
                yield Question(
                    name, "exact", {exact.arm: 1}, region, bound, cell=cells[name], relation=exact.direction,
                    quantity=exact.quantity,
                )  # fmt: skip
        case ValueExpect():
            for name, c in expect.cells.items():
                accurate = is_accuracy(c.metric)
                form: Form = "count" if c.same_weights else "value" if c.metric == TOP1 else "measure"
                region = _around(c.margin, c.direction, above=EXCEEDS if accurate else FAIL, unit=c.margin)
                relation = "-" if c.direction == "at_least" else "±"
                yield Question(name, form, {c.arm: 1}, region, c.margin, c.metric, cells[name], relation)
        case OrderingExpect():
            yield from map(_ordered, expect.all)
        case TrendExpect():
            yield from _trend(expect)
        case EquivalenceExpect():
            for a, b in itertools.combinations(expect.equal, 2):
                region = Region(-expect.within, expect.within, unit=expect.within)
                yield Question(
                    f"{a} - {b}", "equal", {a: 1, b: -1}, region, expect.within, paired=expect.paired_by_seed
                )  # fmt: skip


def _around(bound: float, direction: str, **more: Any) -> Region:
    low = -math.inf if direction == "at_most" else -bound
    return Region(low, math.inf if direction == "at_least" else bound, **more)


def _ordered(c: Comparison | Bound) -> Question:
    if isinstance(c, Bound):
        up, edge = c.above is not None, c.above if c.above is not None else c.below or 0.0
        region = Region(edge, tail=BOTH_SIDES) if up else Region(high=edge, tail=BOTH_SIDES)
        form: Form = "share" if c.metric == FAILED_RUNS else "measure"
        region = replace(region, unit=10.0 if form == "share" else abs(edge))
        return Question(f"{c.arm} {c.metric}", form, {c.arm: 1}, region, edge, c.metric, relation=">" if up else "<")
    region = Region(c.by, tail=BOTH_SIDES, unit=abs(c.by))
    weights, rivals = {c.greater: 1, c.than: -1}, (c.greater, c.than)
    if c.metric == TOP1:
        return _gap(f"{c.greater} - {c.than}", weights, c.by, rivals, both=True)
    return Question(f"{c.greater} - {c.than} {c.metric}", "measure", weights, region, c.by, c.metric, relation=">")


def _gap(label: str, weights: Mapping[str, float], by: float, rivals: tuple[str, str], **more: Any) -> Question:
    return Question(
        label, "gap", weights, Region(by, tail=BOTH_SIDES, unit=abs(by) or 1.0), by, rivals=rivals, **more
    )  # fmt: skip


def _trend(expect: TrendExpect) -> Iterator[Question]:
    """A rise at every step; or, where a dip is allowed, one of the fitted line and no step that falls by more."""
    if expect.increasing is None:
        (low, high), (other_low, other_high) = expect.larger_gain or ("", ""), expect.than or ("", "")
        weights = {high: 1.0, low: -1.0, other_high: -1.0, other_low: 1.0}
        label = f"({high} - {low}) - ({other_high} - {other_low})"
        yield _gap(label, weights, expect.by, (high, other_high), both=True)
        return
    names, step = expect.increasing, expect.dip is not None
    if expect.dip is not None:
        x = np.arange(len(names)) - (len(names) - 1) / 2
        slope = (len(names) - 1) * x / (x @ x)
        weights = dict(zip(names, slope.tolist(), strict=True))
        yield _gap(f"line from {names[0]} to {names[-1]}", weights, expect.by, (names[-1], names[0]), step=True)
    for a, b in itertools.pairwise(names):
        yield _gap(f"{b} - {a}", {b: 1.0, a: -1.0}, -expect.dip if expect.dip else expect.by, (b, a), step=step)


def findings(
    expect: Expect, cells: Mapping[str, Cell], arms: Mapping[str, Arm], *, alpha: float = ALPHA
) -> list[Finding]:
    """What every comparison of an expectation comes to.

    Args:
        alpha: level of this look at the claim.
    """
    return _found(questions(expect, cells), arms, alpha)


def unmet(expect: Expect, arms: Mapping[str, Arm], *, alpha: float = ALPHA) -> list[Finding]:
    """The same of what must hold for the test to mean anything and does not.

    A bound is on these runs themselves and holds if every run is on its side; a comparison must PASS.
    """
    asked = expect.given if isinstance(expect, Conditional) else ()
    found = zip(asked, _found(map(_ordered, asked), arms, alpha), strict=True)
    return [f for c, f in found if f.outcome is not PASS and not (isinstance(c, Bound) and _every_run(c, arms[c.arm]))]


def _every_run(bound: Bound, arm: Arm) -> bool:
    values = arm.values(bound.metric)
    return len(values) >= arm.seeds > 0 and all(map(bound.holds, values))


def _found(asked: Iterable[Question], arms: Mapping[str, Arm], alpha: float) -> list[Finding]:
    found = [RULES[q.form](q, arms) for q in asked]
    return [replace(f, region=f.region.at(alpha)) for f in found]


# --- estimates ----------------------------------------------------------------------------------


def difference(
    accuracies: Any,
    n: int,
    reported: Any,
    sd: Any = None,
    runs: int | None = None,
    *,
    regime: Regime = "scratch",
    known: Stored | None = None,
) -> Estimate:
    """Ours minus the reported accuracy. Its 90% interval inside (-margin, margin) is equivalence at 5% (TOST).

    Args:
        accuracies: (..., K), percent.
        n: test images behind each.
        sd, runs: the printed spread and its runs; without a spread theirs is taken to be ours, and without runs one is
            assumed. From scratch a printed spread is not believed below what ours may be.
    """
    x = np.asarray(accuracies, float)
    own = spread(x, n, regime, known)
    least = spread(x.mean(-1, keepdims=True).repeat(FEWEST, -1), n, regime, known).sd if regime == "scratch" else 0.0
    return _difference(x, reported, sd, runs, own, least)


def _difference(x: Any, reported: Any, sd: Any, runs: int | None, own: Spread, least: Any = 0.0) -> Estimate:
    theirs = runs or 1
    share = 1 / x.shape[-1] + (1 / theirs if sd is None else 0.0)  # without a printed spread one is estimated once
    parts = [(own.sd**2 * share, own.seen**2 * share, own.freedom)]
    if sd is not None:
        parts.append((np.maximum(sd, least) ** 2 / theirs, sd**2 / theirs, theirs - 1 or math.inf))
    return Estimate(x.mean(-1) - reported, *stats.sum_of(parts), own.source, own.source in ("bound", "stored"))


def contrast(
    both: Any,
    n: int,
    seeds: Sequence[int],
    weights: Sequence[float],
    regimes: Sequence[Regime],
    *,
    paired: bool = False,
    known: Stored | None = None,
) -> tuple[Any, Estimate]:
    """A weighted sum of arms' accuracies on the same test images: what other seeds and other such images would give.

    Seeds and images are two crossed sources of chance. The squared standard error is that of the seed means, S, plus
    what images add to it, I - E: I is the variance over images of the contrast averaged over seeds, E the part of
    it that is the seeds' own chance, which S holds already. Degrees of freedom are those of S, raised as the rest is
    well known (Hillis, Statistics in Medicine 2007, 26:596-619, for readers and cases). S has the spread of each arm
    by its regime, and at least a quarter of what the seeds' own chance on each image says. One or two fine-tuned seeds
    have no S: their own chance stays in I, which is the bound.

    Paired by seed, the contrast of each seed takes the place of the arms, and the quantile is that of a paired t test;
    one pair tells nothing of seeds, and counts as one run each.

    Args:
        both, n, seeds, weights, paired: see `stats.contrast`; `both` may be an array of cases, (..., R, R).
        regimes: one per arm.

    Returns:
        The contrast in points, and the estimate of its true value.
    """
    paired = paired and seeds[0] > 1
    made = stats.contrast(both, n, seeds, weights, paired=paired)
    parts, own = [], 0.0
    for i, (means, luck, half_image) in enumerate(zip(made.means, made.luck, made.half_images, strict=True)):
        k = means.shape[-1]
        if not weights[i]:  # the middle of a line
            continue
        if paired:
            each = Spread(stats.sd_of(means), stats.sd_of(means), k - 1.0, "seeds")
        else:
            each = spread(means / weights[i], n, regimes[i], known)
        if not math.isinf(each.freedom):
            own = own + (luck / k if k >= 2 else 0.0)
            scale = 1.0 if paired else weights[i] ** 2
            least = np.maximum(half_image, luck / 4)
            parts.append((np.maximum(scale * each.variance, least) / k, scale * each.seen**2 / k, each.freedom))
    images = np.maximum(made.images - own, 0.0)
    se, freedom = stats.sum_of([*parts, (images, images, math.inf)])
    method = ("paired" if paired else "seeds-and-images") if parts else "images"
    return made.value, Estimate(made.centre, se, parts[0][2] if paired and parts else freedom, method, paired)


def unpaired(
    arms: Sequence[Any], weights: Sequence[float], n: int, regimes: Sequence[Regime], known: Stored | None = None
) -> tuple[Any, Estimate]:
    """The same from accuracies alone, where nothing tells which images were right.

    Every arm enters with the variance of its mean over seeds or the binomial bound, whichever is more. Models find the
    same images hard, so this is wider than what pairs of predictions would give.

    Args:
        arms: accuracies in percent, (..., K) per arm.
    """
    parts, value = [], 0.0
    for accuracies, w, regime in zip(arms, weights, regimes, strict=True):
        x = np.asarray(accuracies, float)
        own, bound = spread(x, n, regime, known), stats.binomial_sd(x.mean(-1), n)
        variance = np.maximum(own.variance / x.shape[-1], bound**2)
        is_own = not math.isinf(own.freedom) and np.all(variance > bound**2)
        seen = w**2 * np.minimum(own.seen**2 / x.shape[-1], variance)
        parts.append((w**2 * variance, seen if is_own else w**2 * variance, own.freedom if is_own else math.inf))
        value = value + w * x.mean(-1)
    return value, Estimate(value, *stats.sum_of(parts), "unpaired", bound=True)


def contrast_of(
    weights: Mapping[str, float], arms: Mapping[str, Arm], *, paired: bool = False
) -> tuple[float, Estimate]:
    """The contrast of arms, paired over images where their predictions are known, and over seeds if asked.

    Raises:
        ValueError: seeds cannot be paired without predictions.
    """
    used, w = [arms[name] for name in weights], list(weights.values())
    rows, regimes = [a.correct for a in used if a.correct is not None], [a.regime for a in used]
    if len(rows) == len(used):
        both = stats.right_together(rows)
        return contrast(both, used[0].n, [len(r) for r in rows], w, regimes, paired=paired)
    if paired:
        raise ValueError("accuracies alone do not tell which seed is behind them")
    return unpaired([a.accuracies for a in used], w, min(a.n for a in used), regimes)


def over_seeds(arms: Sequence[Arm], metric: str, known: Stored | None = None) -> tuple[Estimate | None, bool]:
    """Mean of a measure over seeds, less that of a second arm, by Student's t; Welch's for two arms.

    Returns:
        None with fewer than two values on a side, or where all agree: then nothing tells how much they vary. And
        whether the interval may bear a PASS: three seeds or more on every side.
    """
    centre, parts, methods = 0.0, [], []
    for sign, arm in zip((1, -1), arms, strict=False):
        x = np.asarray(arm.values(metric), float)
        centre += sign * float(x.mean())
        n = arm.counted(metric)
        if is_accuracy(metric) and n:
            own = spread(x, n, arm.regime, known)
            parts.append((own.variance / len(x), own.seen**2 / len(x), own.freedom))
            methods.append(own.source)
        else:
            sd = float(stats.sd_of(x))
            parts.append((max(sd, arm.floor(metric)) ** 2 / len(x), sd**2 / len(x), len(x) - 1.0))
            methods.append("images" if sd < arm.floor(metric) else "own")
    fewest = min(len(arm.values(metric)) for arm in arms)
    spreads = [float(stats.sd_of(arm.values(metric))) for arm in arms]
    counts = is_accuracy(metric) and all(arm.counted(metric) for arm in arms)
    if not np.isfinite(centre) or (not counts and (fewest < 2 or not any(spreads))):
        return None, False
    se, freedom = stats.sum_of(parts)
    largest = max(range(len(parts)), key=lambda i: float(parts[i][0]))
    return Estimate(centre, float(se), float(freedom), methods[largest]), fewest >= FEWEST


# --- against a reported number ------------------------------------------------------------------


def counted(q: Question, arms: Mapping[str, Arm]) -> Finding:
    """A counted quantity against a reported one: nothing is random."""
    assert q.cell is not None
    x = q.arms(arms)[0].quantities[q.quantity]
    return Finding(
        q.label, "exact", x, Estimate(x - q.cell.value), q.region, q.bound, q.cell.value, relation=q.relation
    )


def evaluated(q: Question, arms: Mapping[str, Arm]) -> Finding:
    """One set of weights evaluated again: nothing is random, so counts decide.

    The printed number stands for every count that rounds to it, or for all that it may be where none does. PASS if all
    of them lie within the margin, which is at least one image, FAIL or EXCEEDS if none does.
    """
    (arm,), cell = q.arms(arms), q.cell
    assert cell is not None
    n, per_image = arm.n, 100 / arm.n
    half = 0.0 if cell.decimals is None else 0.5 * 10.0**-cell.decimals
    low, high = (cell.value - half) / per_image, (cell.value + half) / per_image
    counts = max(math.ceil(low - 1e-6), 0), min(math.floor(high + 1e-6), n)
    if half and counts[0] <= counts[1]:
        low, high = counts
    ours = arm.mean / per_image
    edge = max(q.bound, per_image) + 1e-6 * per_image  # floats of counts must not decide
    estimate = Estimate((ours - (low + high) / 2) * per_image, hidden=(high - low) / 2 * per_image)
    region = replace(q.region, low=-edge, high=edge if q.region.high < math.inf else math.inf)
    blocks = {} if arm.learned else {PASS: note("at_chance", arm="ours")}
    return Finding(q.label, "count", arm.mean, estimate, region, q.bound, cell.value, blocks, n=n, seeds=1)


def value(q: Question, arms: Mapping[str, Arm]) -> Finding:
    """Our training runs against a reported accuracy or measure, by equivalence or, of accuracies, non-inferiority.

    More than was reported is EXCEEDS where it is an accuracy; of any other measure neither side is the better. A
    reported accuracy that is itself no better than guessing is a failure: how many of our runs fail is counted.
    """
    (arm,), cell, metric = q.arms(arms), q.cell, q.metric
    assert cell is not None
    n = arm.counted(metric)
    if metric == TOP1 and cell.value <= arm.chance:
        at_chance = Region(50.0, tail=BOTH_SIDES, unit=10.0)
        return share(replace(q, label=f"{q.label} at chance", region=at_chance, bound=50.0, relation=">"), arms)
    x = np.asarray(arm.values(metric), float)
    mean, blocks = float(x.mean()), dict(_broken(q, arms))
    if not arm.learned:
        blocks.setdefault(PASS, note("at_chance", arm="ours"))
    estimate, shown = None, None
    if is_accuracy(metric) and n:
        own = spread(x, n, arm.regime)
        confirms = own.confirms
        estimate = difference(x, n, cell.value, printed_sd(cell), cell.runs, regime=arm.regime)
        t = Estimate(mean, own.sd / math.sqrt(len(x)), own.freedom, own.source).interval(0.95)
        shown = t if len(x) >= FEWEST else stats.binomial(round(mean / 100 * n), n)
    else:
        alone, confirms = over_seeds([arm], metric)
        if alone is not None:
            sd = alone.se * math.sqrt(len(x))
            estimate = _difference(
                x, cell.value, printed_sd(cell), cell.runs, Spread(sd, stats.sd_of(x), len(x) - 1.0, alone.method)
            )
            shown = alone.interval(0.95)
    least, most = limits(metric)
    if not confirms:
        _few(blocks, len(x), arm.regime, metric)
    return Finding(
        q.label, q.form, mean, estimate or Estimate(mean - cell.value, math.inf, method="none"), q.region, q.bound,
        cell.value, blocks, shown and replace(shown, low=max(shown.low, least), high=min(shown.high, most)),
        (least - cell.value, most - cell.value), q.relation, metric, len(x), arm.n,
        notes=(note("reported", sd=cell.sd, runs=cell.runs),),
    )  # fmt: skip


def printed_sd(cell: Cell) -> float | None:
    """The deviation printed with a number, but at least half its last digit: ± 0.00 is not certainty."""
    if cell.sd is None or cell.decimals is None:
        return cell.sd
    return max(cell.sd, 0.5 * 10.0**-cell.decimals)


def _broken(q: Question, arms: Mapping[str, Arm]) -> Iterator[tuple[Outcome, Note]]:
    """What keeps arms from deciding of which some runs failed and some did not."""
    for name, arm in zip(q.weights, q.arms(arms), strict=True):
        if 0 < len(arm.failed) < len(arm.accuracies):
            which = tuple((arm.seeds_of[i] if arm.seeds_of else None, arm.accuracies[i]) for i in arm.failed)
            why = note("failed_runs", arm=name, failed=arm.failed_runs, runs=arm.runs, which=which)
            yield from ((outcome, why) for outcome in DECIDED)


def _few(blocks: Blocks, seeds: int, regime: Regime | Literal["paired"], metric: str) -> None:
    """Too few seeds confirm nothing; of a metric without counts they decide nothing at all."""
    why = note("few_seeds", seeds=seeds, regime=regime, metric=metric, counted=is_accuracy(metric))
    for outcome in (PASS,) if is_accuracy(metric) else DECIDED:
        blocks.setdefault(outcome, why)


def _must_learn(blocks: Blocks, names: Sequence[str], arms: Mapping[str, Arm]) -> None:
    """That an arm learned nothing tells of how it was trained, and decides nothing."""
    for name in names:
        if not arms[name].learned:
            for outcome in DECIDED:
                blocks.setdefault(outcome, note("at_chance", arm=name))


# --- arms among themselves ----------------------------------------------------------------------


def gap(q: Question, arms: Mapping[str, Arm]) -> Finding:
    """Whether a contrast is above its bound, which is negative where it may fall short by so much."""
    used, weights = q.arms(arms), q.weights
    difference, estimate = contrast_of(weights, arms)
    most = 100 * sum(w for w in weights.values() if w > 0)
    first, second = used[0].correct, used[1].correct
    pair = len(used) == 2 and used[0].seeds == used[1].seeds == 1
    blocks = dict(_broken(q, arms))
    _must_learn(blocks, q.rivals if q.both else q.rivals[:1], arms)  # a rival that did not train shows no order
    for arm in used:
        if arm.seeds < FEWEST and arm.regime == "scratch":
            _few(blocks, arm.seeds, arm.regime, TOP1)
    made = Finding(
        q.label, "gap", float(difference), estimate, q.region, q.bound, blocks=blocks, limits=(-most, most),
        seeds=min(a.seeds for a in used), n=used[0].n,
        mcnemar=stats.mcnemar(first[0], second[0]) if pair and first is not None and second is not None else None,
    )  # fmt: skip
    _forced(blocks, made, q, arms)
    return made


def _forced(blocks: Blocks, f: Finding, q: Question, arms: Mapping[str, Arm]) -> None:
    """Why a gap could not have come out otherwise, if so."""
    winner, other, by = arms[q.rivals[0]], arms[q.rivals[1]], q.bound
    left, room = 100 - other.mean, 100 - winner.mean
    if not q.step:
        if by < 0 and other.mean - other.chance <= -2 * by:
            blocks.setdefault(PASS, note("wide_shortfall", by=-by, over_chance=other.mean - other.chance))
        elif by < 0 and _one_model(winner, other):
            blocks.setdefault(PASS, note("one_model"))
        if f.measured - abs(q.weights[q.rivals[1]]) * left > by:
            blocks.setdefault(PASS, note("no_room", arm=q.rivals[1], left=left, outcome="FAIL"))
    reversed_order = f.deciding is not None and f.deciding.high < 0  # which is refuted all the same
    if f.measured + abs(q.weights[q.rivals[0]]) * room < (min(0.0, by) if reversed_order else by):
        blocks.setdefault(FAIL, note("no_room", arm=q.rivals[0], left=room, outcome="PASS"))


def equal(q: Question, arms: Mapping[str, Arm]) -> Finding:
    """Whether two arms differ by less than a margin."""
    first, second = used = q.arms(arms)
    difference, estimate = contrast_of(q.weights, arms, paired=q.paired)
    seeds = min(first.seeds, second.seeds)
    blocks = dict(_broken(q, arms))
    if q.paired and seeds < 2:
        blocks |= dict.fromkeys(DECIDED, note("one_pair"))
    elif seeds < FEWEST and (q.paired or any(a.regime == "scratch" for a in used)):
        _few(blocks, seeds, "paired" if q.paired else "scratch", TOP1)
    empty = _empty_equality(first, second, q.bound, paired=q.paired)
    if empty:
        blocks.setdefault(PASS, empty)
    return Finding(
        q.label, "equal", float(difference), estimate, q.region, q.bound, blocks=blocks, limits=(-100, 100),
        seeds=seeds, n=first.n, paired=q.paired,
    )  # fmt: skip


def _empty_equality(a: Arm, b: Arm, within: float, *, paired: bool) -> Note | None:
    """Why two equal arms show nothing, if so: models that guess or make no error would be as equal.

    Runs that started alike may well be right on the same images; whether they are one run, `consistency` sees.
    """
    lower, chance = min(a.mean, b.mean), max(a.chance, b.chance)
    if not (a.learned and b.learned):
        return note("at_chance", arm="an arm")
    if lower - chance <= 2 * within:
        return note("wide_margin", chance=chance)
    if 100 - lower <= within:
        return note("no_errors")
    return note("one_model") if not paired and _one_model(a, b) else None


def _one_model(a: Arm, b: Arm) -> bool:
    """Whether a run of one arm is right on just the images on which a run of the other is."""
    rows = [set() if arm.correct is None else {row.tobytes() for row in arm.correct} for arm in (a, b)]
    return bool(rows[0] & rows[1])


# --- measures of training runs ------------------------------------------------------------------


def measured(q: Question, arms: Mapping[str, Arm]) -> Finding:
    """A measure of one arm against a number, or of two arms against each other, by t over seeds."""
    if q.cell is not None:
        return value(q, arms)
    used, metric = q.arms(arms), q.metric
    least, most = limits(metric)
    estimate, confirms = over_seeds(used, metric)
    values = [np.asarray(a.values(metric), float) for a in used]
    mean, seeds = float(values[0].mean()) - sum(float(v.mean()) for v in values[1:]), min(map(len, values))
    piled = _piled(metric, used[0].values(metric), q.bound) if len(used) == 1 else None
    blocks: Blocks = dict.fromkeys(DECIDED, piled) if piled else {}
    for outcome, why in _broken(q, arms):
        blocks[outcome] = why
    _must_learn(blocks, list(q.weights), arms)
    if not confirms:
        _few(blocks, seeds, used[0].regime, metric)
    estimate = estimate or Estimate(mean, math.inf, method="none")
    half = float(estimate.ends(q.region.tail)[1] - estimate.centre)
    unit = q.region.unit or (1.0 if is_accuracy(metric) or not math.isfinite(half) else half)
    return Finding(
        q.label, "measure", mean, estimate, replace(q.region, unit=unit), q.bound, blocks=blocks,
        limits=(least, most) if len(used) == 1 else (least - most, most - least), relation=q.relation, metric=metric,
        seeds=seeds, n=used[0].n,
    )  # fmt: skip


def share(q: Question, arms: Mapping[str, Arm]) -> Finding:
    """The share of failed runs against an edge, by the exact interval: an expectation about failure counts runs."""
    (arm,) = q.arms(arms)
    found = Share.of(arm.failed_runs, arm.runs)
    return Finding(
        q.label, "share", found.centre, found, q.region, q.bound, limits=(0, 100), relation=q.relation,
        metric=FAILED_RUNS, seeds=arm.runs, n=arm.n,
    )  # fmt: skip


def _piled(metric: str, values: Sequence[float], edge: float) -> Note | None:
    """Why seeds that pile up at the limit of a measure do not tell on which side of an edge its mean is, if so."""
    for limit, word in zip(limits(metric), ("least", "most"), strict=True):
        at = sum(v == limit for v in values)
        if at and min(values) < edge < max(values):
            return note("piled", at=at, of=len(values), limit=limit, word=word)
    return None


RULES: Mapping[Form, Callable[[Question, Mapping[str, Arm]], Finding]] = {
    "exact": counted,
    "count": evaluated,
    "value": value,
    "gap": gap,
    "equal": equal,
    "measure": measured,
    "share": share,
}
