"""What runs not yet made can tell: power to PASS, the smallest difference they detect, and whether a PASS is possible.

An estimate to come is normal around the truth; its squared standard error has a part that is known beforehand (images,
a binomial bound, a printed spread) and a part from the seeds of every arm, which follows a chi square. Probabilities
are integrated over these chi squares and use the very intervals of `rules`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from vitrepro import stats
from vitrepro.arrays import Floats
from vitrepro.metrics import TOP1
from vitrepro.plan import Run
from vitrepro.recipe import Recipe
from vitrepro.rules import POWER, line, printed_sd
from vitrepro.spec import (
    Bound,
    Claim,
    EquivalenceExpect,
    Expect,
    OrderingExpect,
    TrendExpect,
    ValueExpect,
)

SPREAD = 0.8  # sd over seeds as a share of the binomial bound, unless something tells; fine-tuning has 0.13 to 0.81
SHARED = 0.6  # correlation over images of two arms' chances of being right, unless something tells
HOPELESS = 0.05  # a power to PASS below which runs are not worth their time
_DRAWS = 512  # of the chi squares; a power of two, as Sobol points want


@dataclass(frozen=True)
class Expected:
    """Estimates as runs not yet made should give them.

    Attributes:
        variance: of the estimate around the truth, in squared points.
        known: part of the squared standard error that is the same whatever the seeds say.
        seeds: the other parts, in expectation, each with its degrees of freedom; they vary with the seeds.
        printed: variance of the reported number by its printed spread, part of `known`; its degrees of freedom.
        freedom: of the quantile, where it is not that of the sum.
    """

    variance: float
    known: float
    seeds: tuple[tuple[float, float], ...] = ()
    printed: tuple[float, float] = (0.0, math.inf)
    freedom: float | None = None

    def inside(self, truth: float, low: float, high: float, level: float) -> float:
        """Probability that the interval at this level lies between two edges, either of which may be infinite."""
        from scipy.special import ndtr

        half, sd = self._halves(level), math.sqrt(self.variance)
        upper, lower = (high - half - truth) / sd, (low + half - truth) / sd
        return float(np.mean(np.maximum(ndtr(upper) - ndtr(lower), 0.0)))

    def half_width(self, level: float) -> float:
        """Half the interval's width, as the median of what the seeds may say."""
        return float(np.median(self._halves(level)))

    def detectable(self, edge: float, level: float, *, below: bool = False) -> float:
        """The true value whose interval lies beyond an edge with a probability of 80%."""
        from scipy.optimize import brentq

        def told(distance: float) -> float:
            truth = edge - distance if below else edge + distance
            within = (-math.inf, edge) if below else (edge, math.inf)
            return self.inside(truth, *within, level) - POWER

        most = 60 * (self.half_width(level) + math.sqrt(self.variance))
        distance = float(brentq(told, 0.0, most, xtol=1e-4))
        return edge - distance if below else edge + distance

    def _halves(self, level: float) -> Floats:
        """Half intervals, one for each draw of what the seeds may say."""
        from scipy.special import chdtri, ndtri, stdtrit

        share = (1 + level) / 2
        estimated = self.printed[0] > 0 and not math.isinf(self.printed[1])  # three printed runs may agree
        if not self.seeds and not estimated:
            return np.full(1, float(ndtri(share)) * math.sqrt(self.known))
        drawn = [
            part * chdtri(freedom, u) / freedom
            for (part, freedom), u in zip(self.seeds, _uniform(len(self.seeds)), strict=True)
        ]
        freedoms, known = [freedom for _, freedom in self.seeds], self.known
        if estimated:
            drawn.append(np.full(_DRAWS, self.printed[0]))
            freedoms.append(self.printed[1])
            known -= self.printed[0]
        variances = np.stack(drawn)
        freedom = self.freedom or stats.freedom_of_sum(variances, np.asarray(freedoms, float), known)
        half: Floats = stdtrit(freedom, share) * np.sqrt(known + variances.sum(0))
        return half


@cache
def _uniform(dimensions: int) -> Floats:
    """Evenly spread points of the unit cube, (dimensions, draws), the same every time."""
    from scipy.stats import qmc

    return np.asarray(qmc.Sobol(dimensions, rng=0).random(_DRAWS).T) if dimensions else np.empty((0, 1))


def expected_value(
    seeds: int, n: int, accuracy: float, sd: float | None, runs: int | None, spread: float | None = None
) -> Expected:
    """The difference of ours from a reported accuracy, as `stats.difference` will estimate it.

    Args:
        seeds, n: ours, and the test images of each.
        accuracy: percent, where ours is expected.
        sd, runs: printed with the reported number.
        spread: sd over our seeds in points; without it the printed one, or else 0.8 of the binomial bound.
    """
    bound = stats.binomial_sd(accuracy, n)
    ours = max(spread if spread is not None else sd if sd is not None else SPREAD * bound, 50 / n)  # half an image
    printed = (sd if sd is not None else ours) ** 2 / (runs or 1)
    variance = ours**2 / seeds + ours**2 / (runs or 1)
    if seeds < 3:
        assumed = bound if sd is None else sd
        known = bound**2 / seeds + assumed**2 / (runs or 1)
        freedom = (runs or 1) - 1 if sd is not None else 0
        return Expected(variance, known, printed=(printed, freedom or math.inf))
    if sd is None:  # one spread, estimated once
        return Expected(variance, 0.0, ((variance, seeds - 1),))
    return Expected(variance, printed, ((ours**2 / seeds, seeds - 1),), (printed, (runs or 1) - 1 or math.inf))


def expected_contrast(
    weights: Sequence[float],
    seeds: Sequence[int],
    n: int,
    accuracies: Sequence[float],
    spread: float = SPREAD,
    shared: float = SHARED,
    together: float | None = None,
) -> Expected:
    """A contrast of arms on the same images, as `stats.contrast` will estimate it.

    Args:
        weights, seeds, accuracies: one per arm; accuracies in percent.
        spread: sd over seeds as a share of the binomial bound, by which images' chances of being right are as uneven.
        shared: correlation over images of two arms' chances.
        together: correlation of what is left to the seeds, between two arms that are paired by them; None where arms
            are not.
    """
    bound = np.array([stats.binomial_sd(a, n) ** 2 for a in accuracies])
    w, k = np.asarray(weights, float), np.asarray(seeds)
    own = w**2 * spread**2 * bound / k
    uneven = w * np.sqrt(max(0.0, 1 - spread**2) * bound)  # sd over images of each arm's chances, by the root of n
    images = float((1 - shared) * (uneven @ uneven) + shared * uneven.sum() ** 2)
    if together is not None:  # one contrast a seed, which varies by half an image of every arm at least
        half_images = float(w @ w) * (50 / n) ** 2
        own = np.array([max((1 - together) * float(own.sum()), half_images / k[0])])
        k = k[:1]
    several = k >= 2
    known = images + float(own[~several].sum())
    parts = zip(own[several].tolist(), (k[several] - 1).tolist(), strict=True)
    added = 2 * (100 * sum(abs(w)) / 2 / min(k)) ** 2 / n**2  # by the two images of `stats.contrast`
    freedom = float(k[0] - 1) if together is not None and several[0] else None
    return Expected(images + float(own.sum()), known + added, tuple(parts), freedom=freedom)


# --- of a plan ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outlook:
    """What planned runs can tell of one comparison.

    Attributes:
        power: probability of PASS if ours equals the reported number, or the arms each other; None for a gap, whose
            power depends on how large it is.
        detectable: the true difference told with a probability of 80%: as PASS for a gap, as FAIL for a value or an
            equality.
        edge: the margin or the gap asked for.
        doubt: why no PASS can be expected, or None.
        assumed: it rests on an accuracy of 50%, since none is known.
        least: the power is at least this and the detectable difference at most: how closely runs of one seed stay
            together is not known, and they are taken to share nothing but what images share.
    """

    label: str
    power: float | None
    detectable: float
    edge: float
    doubt: str | None = None
    assumed: bool = False
    least: bool = False

    @property
    def text(self) -> str:
        if self.power is None:
            return f"{self.label}: 80% power to PASS from a gap of {self.detectable:.2f} on"
        least, most = ("at least ", "at most ") if self.least else ("", "")
        return (
            f"{self.label}: {least}{100 * self.power:.0f}% power to PASS if equal, 80% to FAIL from a difference of "
            f"{most}{self.detectable:.2f} on"
        )


def outlook(
    claim: Claim, expect: Expect, runs: Sequence[Run], seen: Mapping[str, float] | None = None
) -> list[Outlook]:
    """What planned runs can tell, comparison by comparison; nothing of counted quantities and measures.

    Args:
        seen: accuracy in percent of arms of which runs are stored. An arm not seen is taken to have an accuracy of 50%,
            where seeds and images vary most.
    """
    return list(_outlook(claim, expect, runs, seen or {}))


def _outlook(claim: Claim, expect: Expect, runs: Sequence[Run], seen: Mapping[str, float]) -> Iterator[Outlook]:
    recipes: dict[str, Recipe] = {r.arm: r.config for r in runs if isinstance(r.config, Recipe)}
    planned = {arm: sum(r.arm == arm for r in runs) for arm in recipes}

    def contrast(weights: Mapping[str, float], **paired: float) -> Expected:
        n = next(recipes[arm].test_size for arm in weights)
        accuracies = [seen.get(arm, 50.0) for arm in weights]
        return expected_contrast(list(weights.values()), [planned[a] for a in weights], n, accuracies, **paired)

    def gap(label: str, weights: Mapping[str, float], by: float) -> Outlook:
        detectable = contrast(weights).detectable(by, 0.95)
        most = 100.0 * sum(w for w in weights.values() if w > 0)
        doubt = f"{label} would have to be above {detectable:.2f} points" if detectable >= most else None
        return Outlook(label, None, detectable, by, doubt, assumed=not set(weights) <= set(seen))

    match expect:
        case ValueExpect() if claim.reported is not None:
            for name, check in expect.cells.items():
                if check.same_weights or check.metric != TOP1:  # nothing is random, or nothing tells its spread
                    continue
                cell = claim.reported.cells[name]
                k, n, at_least = planned[check.arm], recipes[check.arm].test_size, check.direction == "at_least"
                expected = partial(expected_value, n=n, accuracy=cell.value, sd=printed_sd(cell), runs=cell.runs)
                made = expected(k)
                power = made.inside(0.0, -check.margin, math.inf if at_least else check.margin, 0.90)
                doubt = None
                if power < HOPELESS and not at_least:  # a better one makes up for any width
                    half, seeds = made.half_width(0.90), f"{k} seed{'s' if k > 1 else ''}"
                    doubt = (
                        f"{name} with {seeds} has an interval of ±{half:.2f}, the margin is {check.margin:g}"
                        f"{_enough(expected, check.margin)}"
                    )
                told = -made.detectable(-check.margin, 0.90, below=True)
                yield Outlook(name, power, told, check.margin, doubt)
        case OrderingExpect():
            for c in expect.all:
                if not isinstance(c, Bound) and c.metric == TOP1:
                    yield gap(f"{c.greater} - {c.than}", {c.greater: 1, c.than: -1}, c.by)
        case TrendExpect(increasing=None):
            assert expect.larger_gain
            assert expect.than
            (low, high), (other_low, other_high) = expect.larger_gain, expect.than
            label = f"({high} - {low}) - ({other_high} - {other_low})"
            yield gap(label, {high: 1, low: -1, other_high: -1, other_low: 1}, expect.by)
        case TrendExpect():
            assert expect.increasing
            if expect.dip is not None:
                yield gap(*line(expect.increasing), expect.by)
            least = expect.by if expect.dip is None else -expect.dip
            for a, b in itertools.pairwise(expect.increasing):
                yield gap(f"{b} - {a}", {b: 1, a: -1}, least)
        case EquivalenceExpect():
            for i, a in enumerate(expect.equal):
                for b in expect.equal[i + 1 :]:
                    weights, within, by_seed = {a: 1.0, b: -1.0}, expect.within, expect.paired_by_seed
                    # one recipe, computed in two ways: if equal, its images are as hard in both
                    made = contrast(weights, shared=1.0, together=0.0) if by_seed else contrast(weights)
                    at_best = contrast(weights, shared=1.0, together=1.0) if by_seed else made
                    assumed = not {a, b} <= set(seen)
                    power = made.inside(0.0, -within, within, 0.90)
                    doubt = None
                    if at_best.inside(0.0, -within, within, 0.90) < HOPELESS and not assumed:
                        width = f"{'at best ' if by_seed else ''}an interval of ±{at_best.half_width(0.90):.2f}"
                        doubt = f"{a} - {b} has {width}, the margin is {within:g}"
                    detectable = made.detectable(within, 0.90)
                    yield Outlook(f"{a} - {b}", power, detectable, within, doubt, assumed, least=by_seed)


def _enough(expected: Callable[[int], Expected], margin: float) -> str:
    """How many seeds would have a power of 80%, if that is a number anybody would run."""
    for k in range(3, 31):
        if expected(k).inside(0.0, -margin, margin, 0.90) >= POWER:
            return f"; {k} seeds have a power of 80%"
    return "; 30 seeds would not be enough"


def cannot_pass(
    claim: Claim,
    scale_name: str | None,
    runs: Sequence[Run],
    registered_seeds: int = 1,
    seen: Mapping[str, float] | None = None,
) -> str | None:
    """Why runs such as these cannot be expected to PASS, or None.

    A value or an equality must have a power of 5%; measures of models need a spread, so two seeds; and what `judge`
    caps whatever comes out (fewer seeds, part of the test set, a changed recipe, arms that are one) cannot PASS either.
    """
    entry = claim.scales.entries().get(scale_name or "")
    if entry is None or entry.expect is None:
        return None
    trained = [r for r in runs if isinstance(r.config, Recipe)]
    seeds = len({r.seed for r in trained})
    if trained and seeds < registered_seeds:
        return f"cannot PASS: {seeds} of {registered_seeds} registered seeds decide nothing"
    configs = [r.config for r in trained if isinstance(r.config, Recipe)]
    part = next((c for c in configs if (c.data.test_images or c.test_size) < c.test_size), None)
    if part is not None:
        return f"cannot PASS: {part.data.test_images:,} test images are part of the test set"
    if any(r.deviations for r in trained):
        return "cannot PASS: the recipe is changed by hand"
    if isinstance(entry.expect, EquivalenceExpect) and entry.expect.paired_by_seed:
        if seeds < 2:
            return "cannot PASS: one seed does not tell how far apart the runs of a seed lie"
        one = next(((a, b) for a, b in itertools.combinations(trained, 2) if a.id == b.id), None)
        if one:
            return f"cannot PASS: {one[0].arm} and {one[1].arm} come to one recipe here, and nothing is compared"
    if isinstance(entry.expect, OrderingExpect | ValueExpect) and seeds < 2 and entry.expect.measures:
        return "cannot PASS: a measure of one seed has no interval"
    doubts = [o.doubt for o in outlook(claim, entry.expect, trained, seen) if o.doubt] if trained else []
    return f"cannot PASS: {doubts[0]}" if doubts else None
