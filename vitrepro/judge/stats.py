"""Counts and seeds to estimates, intervals and p-values. Accuracies and differences are in percent throughout.

Every function takes one case or an array of them: the calibration study and the forecast judge thousands at once by
the arithmetic that judges one. scipy is imported where it is used: listing claims must not wait for it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vitrepro.arrays import Bools, Floats


@dataclass(frozen=True)
class Interval:
    """A confidence interval, in the unit of its estimate.

    Attributes:
        method: name of what it accounts for; `report.words` has the text.
        bound: its width is an upper bound, so that it covers at least at its level.
    """

    low: float
    high: float
    level: float
    method: str = ""
    bound: bool = False


@dataclass(frozen=True)
class Estimate:
    """A true value as seeds and images tell it; interval and p-values come from the same numbers.

    Attributes:
        centre: middle of every interval.
        se: standard error; 0 where nothing is random.
        freedom: degrees of freedom of Student's t; infinite for a normal.
        method, bound: see `Interval`.
        hidden: half the range that rounding of printed digits leaves open.

    The numbers may be arrays of one shape; then so are intervals and p-values.
    """

    centre: Any
    se: Any = 0.0
    freedom: Any = math.inf
    method: str = ""
    bound: bool = False
    hidden: float = 0.0

    def ends(self, tail: float) -> tuple[Any, Any]:
        """Ends of the interval that leaves out `tail` on each side."""
        half = t_quantile(1 - tail, self.freedom) * self.se + self.hidden
        return self.centre - half, self.centre + half

    def interval(self, level: float) -> Interval:
        low, high = self.ends((1 - level) / 2)
        return Interval(float(low), float(high), level, self.method, self.bound)

    def p_above(self, edge: float) -> Any:
        """One-sided p-value for the true value lying above `edge`: below 5% where the 90% interval does."""
        from scipy.special import stdtr

        beyond = np.asarray(self.centre - self.hidden - edge, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = stdtr(self.freedom, -beyond / self.se)
        return np.where(np.asarray(self.se) > 0, p, np.where(beyond > 0, 0.0, 1.0))[()]

    def p_below(self, edge: float) -> Any:
        """The same for below."""
        return replace(self, centre=-self.centre).p_above(-edge)


@dataclass(frozen=True)
class Share(Estimate):
    """Share of runs, percent, by the exact interval of Clopper and Pearson.

    Attributes:
        k, runs: how many of how many.
    """

    k: int = 0
    runs: int = 1

    @staticmethod
    def of(k: int, runs: int) -> Share:
        p = k / runs
        return Share(100 * p, 100 * math.sqrt((p * (1 - p) + 0.25 / runs) / runs), method="runs", k=k, runs=runs)

    def ends(self, tail: float) -> tuple[float, float]:
        i = binomial(self.k, self.runs, 1 - 2 * tail, "exact")
        return i.low, i.high

    def p_above(self, edge: float) -> float:
        from scipy.stats import binom

        return float(binom.sf(self.k - 1, self.runs, min(edge / 100, 1.0))) if edge >= 0 else 0.0

    def p_below(self, edge: float) -> float:
        from scipy.stats import binom

        return float(binom.cdf(self.k, self.runs, max(edge / 100, 0.0))) if edge <= 100 else 0.0


def t_quantile(share: float, freedom: Any) -> Any:
    """Quantile of Student's t; of the normal for infinite degrees of freedom."""
    from scipy.special import stdtrit

    return stdtrit(freedom, share)


def binomial(correct: int, n: int, level: float = 0.95, method: str = "wilson") -> Interval:
    """Sampling interval of an accuracy: what other test images of the same kind would give.

    Args:
        method: `wilson`, or `exact` for the conservative one of Clopper and Pearson.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(level, method=method)
    return Interval(100 * interval.low, 100 * interval.high, level, method)


def binomial_sd(accuracy: Any, n: int) -> Any:
    """Binomial standard error of an accuracy in percent, the unit `bound` of docs/verdicts.md.

    One success and one failure are added, so that 100% is not certain either.
    """
    p = (np.asarray(accuracy, float) / 100 * n + 1) / (n + 2)
    return (100 * np.sqrt(p * (1 - p) / n))[()]


def sd_of(values: Any) -> Any:
    """Standard deviation over the last axis; exactly 0 where all are the same number, whatever rounding makes of it."""
    x = np.asarray(values, float)
    if x.shape[-1] < 2:
        return np.zeros(x.shape[:-1])[()]
    return np.where((x == x[..., :1]).all(-1), 0.0, x.std(-1, ddof=1))[()]


def sum_of(parts: Sequence[tuple[Any, Any, float]]) -> tuple[Any, Any]:
    """Standard error and degrees of freedom of a sum of variances.

    Args:
        parts: the variance used, the variance seen, and its degrees of freedom; infinite ones are known. A variance
            used that is larger than the one seen narrows no interval: the fewer degrees of freedom of both count.
    """
    known = sum((used for used, _, freedom in parts if math.isinf(freedom)), 0.0)
    uncertain = [part for part in parts if not math.isinf(part[2])]
    if not uncertain:
        return np.sqrt(known), math.inf
    each = np.array([freedom for _, _, freedom in uncertain])
    used, seen = (np.array(np.broadcast_arrays(*(part[i] for part in uncertain)), float) for i in (0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        freedoms = [freedom_of_sum(variances, each, known) for variances in (used, seen)]
    fewer = np.fmin(*freedoms)
    return np.sqrt(known + used.sum(0)), np.where(np.isnan(fewer), math.inf, fewer)[()]


def freedom_of_sum(variances: Floats, freedoms: Floats, known: Any = 0.0) -> Any:
    """Degrees of freedom of sums of estimated variances, and of one that is known.

    Satterthwaite's estimate is too low where parts have few degrees of freedom each, and its unbiased form too high;
    halfway between them intervals cover what they promise (docs/calibration.md). Never more than the parts have
    together, but for what the known variance adds.

    Args:
        variances: (parts, ...), each the variance of a mean.
        freedoms: (parts,), finite.

    Returns:
        (...); for one part exactly its own, and infinite nowhere.
    """
    each = freedoms.reshape(-1, *[1] * (variances.ndim - 1))
    estimated = variances.sum(0)
    shares = variances / estimated  # whose squares are no smaller for another unit
    halfway = 1 / (shares**2 / (each + 1)).sum(0) - 1
    return np.minimum(halfway, freedoms.sum()) * ((estimated + known) / estimated) ** 2


def mcnemar(a: Bools, b: Bools) -> float:
    """Two-sided exact p-value that two trained models are equally often right on the same images.

    Args:
        a, b: correctness per image, (n,).
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def above_chance(correct: Any, n: int, chance: float) -> Any:
    """One-sided p-value that an accuracy is better than guessing.

    Args:
        chance: share of images that guessing gets right.
    """
    from scipy.special import betainc  # the same as scipy.stats.binomtest, in a hundredth of its time

    k = np.asarray(correct)
    return np.where(k > 0, betainc(np.maximum(k, 1), n - np.maximum(k, 1) + 1, chance), 1.0)[()]


def right_together(arms: Sequence[Bools]) -> Floats:
    """On how many images every two runs are both right, (R, R), the runs of all arms one after another.

    Args:
        arms: correctness per arm, (K_a, n); the images in the same order.

    Raises:
        ValueError: arms of different images.
    """
    if len({a.shape[1] for a in arms}) != 1:
        raise ValueError("arms must cover the same images")
    rows = np.concatenate(arms).astype(np.float32)  # exact: counts stay below 2**24
    return (rows @ rows.T).astype(float)


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms' accuracies, taken apart; all in points and squared points.

    Attributes:
        value: the contrast itself.
        centre: of its intervals, drawn a little towards zero by two added images.
        images: variance over images of the contrast averaged over seeds, as a variance of the mean.
        means: (..., K_a) per arm, or (..., K) once where arms are paired: each seed's own part of the contrast.
        luck: per part, the variance of one seed's part by the chance that each image leaves to seeds.
        half_images: per part, the squared effect of half an image.
    """

    value: Any
    centre: Any
    images: Any
    means: tuple[Any, ...]
    luck: tuple[Any, ...]
    half_images: tuple[float, ...]


def contrast(both: Any, n: int, seeds: Sequence[int], weights: Sequence[float], *, paired: bool = False) -> Contrast:
    """Take a weighted sum of arms' accuracies on the same test images apart.

    Two images are added, one on which one run of every arm speaks for the contrast and one against it, or models
    that agree on all of ten images would be equal beyond doubt. For one seed each and two arms, `images` is then the
    variance of the interval of Bonett & Price (2012).

    Args:
        both: see `right_together`, (..., R, R).
        n: test images.
        seeds: runs of each arm, R in all.
        weights: one per arm; 1 and -1 for a difference, 1, -1, -1, 1 for an interaction.
        paired: run by run the arms are of the same seeds, from which they started alike.

    Raises:
        ValueError: as many weights as arms are not given, or arms to be paired have different numbers of seeds.
    """
    if len(seeds) != len(weights) or (paired and len(set(seeds)) != 1):
        raise ValueError("arms and weights pair up, and arms paired by seed have the same seeds")
    ends = np.cumsum((0, *seeds))
    w = np.repeat(np.asarray(weights, float), seeds)
    counts = np.diagonal(both, axis1=-2, axis2=-1)
    each = w / np.repeat(seeds, seeds)
    fewest = min(seeds)
    added = [sum(x for x in weights if x * sign > 0) / fewest for sign in (1, -1)]
    spans = list(itertools.pairwise(ends))
    total = sum(x * counts[..., a:b].mean(-1) for x, (a, b) in zip(weights, spans, strict=True))  # 0 for equal arms
    squares = np.einsum("r,...rs,s->...", each, both, each)
    centre = (total + sum(added)) / (n + 2)
    images = ((squares + sum(x * x for x in added)) / (n + 2) - centre**2) / (n + 2)
    scaled = both * w[:, None] * w
    if paired:
        k = seeds[0]
        parts = [scaled.reshape(*scaled.shape[:-2], len(seeds), k, len(seeds), k).sum((-4, -2))]
        means = [(counts * w).reshape(*counts.shape[:-1], len(seeds), k).sum(-2)]
        half_images = [sum((50 * x / n) ** 2 for x in weights)]
    else:
        parts = [scaled[..., a:b, a:b] for a, b in spans]
        means = [counts[..., a:b] * w[a:b] for a, b in spans]
        half_images = [(50 * x / n) ** 2 for x in weights]
    luck = []
    for part in parts:
        k = part.shape[-1]
        of_all = np.trace(part, axis1=-2, axis2=-1) - part.sum((-2, -1)) / k
        luck.append(1e4 * of_all / max(k - 1, 1) / n**2)
    return Contrast(
        100 * total / n, 100 * centre, 1e4 * images, tuple(100 * m / n for m in means), tuple(luck), tuple(half_images)
    )


def simes(p_values: Sequence[float]) -> float:
    """p-value of all hypotheses holding together: small if one is far off, or many are a little (Simes 1986)."""
    ordered = sorted(p_values)
    return min(1.0, *(len(ordered) * p / rank for rank, p in enumerate(ordered, 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: those below 5% are all true but with a chance of 5% (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
