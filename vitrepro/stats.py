"""Counts and seeds to estimates, intervals and p-values. Accuracies and differences are in percent throughout.

scipy is imported where it is used: listing claims must not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrepro.arrays import Bools, Floats


@dataclass(frozen=True)
class Interval:
    """A confidence interval in percent; `method` says what it accounts for.

    Attributes:
        bound: its width is an upper bound, so that it covers at least at its level.
    """

    low: float
    high: float
    level: float
    method: str
    bound: bool = False


@dataclass(frozen=True)
class Estimate:
    """What seeds and images say of a true value: its interval and its p-values come from the same three numbers.

    Attributes:
        centre: of every interval; where images were added (`contrast`) a little nearer to zero than the difference.
        se: standard error; never zero unless all values are the same number.
        freedom: degrees of freedom of Student's t; infinite for a normal.
        bound: `se` is an upper bound.
    """

    centre: float
    se: float
    freedom: float
    method: str
    bound: bool = False

    def interval(self, level: float) -> Interval:
        half = self.quantile((1 + level) / 2) * self.se
        return Interval(self.centre - half, self.centre + half, level, self.method, self.bound)

    def p_above(self, edge: float) -> float:
        """One-sided p-value for the true value lying above `edge`: below 5% where the 90% interval does."""
        if self.se == 0:
            return 0.0 if self.centre > edge else 1.0
        return _t_sf((self.centre - edge) / self.se, self.freedom)

    def p_below(self, edge: float) -> float:
        """The same for below."""
        return Estimate(-self.centre, self.se, self.freedom, self.method).p_above(-edge)

    def quantile(self, share: float) -> float:
        return t_quantile(share, self.freedom)


def t_quantile(share: float, freedom: float) -> float:
    """Quantile of Student's t; of the normal for infinite degrees of freedom."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(share) if math.isinf(freedom) else stdtrit(freedom, share))


def _t_sf(x: float, freedom: float) -> float:
    from scipy.special import ndtr, stdtr

    return float(ndtr(-x) if math.isinf(freedom) else stdtr(freedom, -x))


def wilson(correct: int, n: int, level: float = 0.95) -> Interval:
    """Sampling interval of an accuracy: what other test images of the same kind would give."""
    return _binomial(correct, n, level, "wilson", "Wilson, test images")


def clopper_pearson(correct: int, n: int, level: float = 0.95) -> Interval:
    """The conservative alternative to `wilson`."""
    return _binomial(correct, n, level, "exact", "Clopper-Pearson, test images")


def _binomial(correct: int, n: int, level: float, method: str, label: str) -> Interval:
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(level, method=method)
    return Interval(100 * interval.low, 100 * interval.high, level, label)


def t_interval(values: Sequence[float], level: float = 0.95, *, least_sd: float = 0.0) -> Interval:
    """Interval of the mean over seeds: what further seeds would give on the same test images.

    Args:
        least_sd: see `mean`.

    Raises:
        ValueError: fewer than two seeds.
    """
    over_seeds = mean(values, least_sd=(least_sd,))
    if over_seeds is None:
        raise ValueError("an interval over seeds needs at least two")
    i = over_seeds.interval(level)
    return Interval(i.low, i.high, level, f"t, {len(values)} seeds")


BOUND = "binomial bound"


def seed_sd(accuracies: Sequence[float], n: int) -> tuple[float, str]:
    """Standard deviation between runs, and where it comes from.

    From three seeds on it is the sample's, but never below half an image, so that three equal counts do not
    pass for certainty. With fewer it is the binomial standard error at n test images: an upper bound of the
    seed noise where training is stable (Jordan, arXiv 2304.01910), here with one success and one failure
    added so that 100% is not certain either. Two seeds further apart than the bound allows replace it.
    """
    k = len(accuracies)
    sd = float(np.std(accuracies, ddof=1)) if k >= 2 else 0.0
    if k >= 3:
        return max(sd, 50 / n), f"sd of {k} seeds"
    bound = binomial_sd(float(np.mean(accuracies)), n)
    return (bound, BOUND) if bound >= sd else (sd, "sd of 2 seeds")


def binomial_sd(accuracy: float, n: int) -> float:
    """Binomial standard error of an accuracy in percent, with one success and one failure added."""
    p = (accuracy / 100 * n + 1) / (n + 2)
    return 100 * math.sqrt(p * (1 - p) / n)


def least_sd(accuracy: float, n: int) -> float:
    """The least that an accuracy may vary over seeds, or a difference of two that are near it: half of what coin tosses
    do. Few seeds may lie closer together by luck, gains of zero above all.

    Args:
        accuracy: percent.
        n: images that it is counted on.
    """
    return max(binomial_sd(accuracy, n) / 2, 50 / n)


def difference(
    accuracies: Sequence[float], n: int, reported: float, reported_sd: float | None, reported_runs: int | None
) -> Estimate:
    """Ours minus the reported number. Its 90% interval inside (-margin, margin) is equivalence at 5% (TOST).

    Degrees of freedom are those of `freedom_of_sum`; a binomial bound counts as known, and so does a printed spread of
    unknown runs.

    Args:
        accuracies: one per seed, percent.
        n: test images behind each.
        reported_sd, reported_runs: the printed spread and its runs; without a spread theirs is taken to be ours, and
            without runs one is assumed.
    """
    k = len(accuracies)
    sd, source = seed_sd(accuracies, n)
    known = k < 3 and source == BOUND
    parts = _with_reported(sd, k, math.inf if known else k - 1, reported_sd, reported_runs or 1)
    return Estimate(float(np.mean(accuracies)) - reported, *_sum(parts), source, bound=known)


def difference_of_measure(
    values: Sequence[float],
    reported: float,
    reported_sd: float | None,
    reported_runs: int | None,
    *,
    least_sd: float = 0.0,
) -> Estimate | None:
    """The same for a number of which the seeds alone tell how much it varies.

    Args:
        least_sd: see `mean`.

    Returns:
        None with fewer than two values; an estimate without error where all are the same number.
    """
    k = len(values)
    if k < 2:
        return None
    centre, own = float(np.mean(values)) - reported, float(np.std(values, ddof=1))
    if len(set(values)) == 1:
        return Estimate(centre, 0.0, k - 1, OVER_SEEDS)
    sd, method = (own, OVER_SEEDS) if own >= least_sd else (least_sd, BY_IMAGES)
    return Estimate(centre, *_sum(_with_reported(sd, k, k - 1, reported_sd, reported_runs or 1)), method)


def _with_reported(
    sd: float, k: int, freedom: float, reported_sd: float | None, runs: int
) -> list[tuple[float, float]]:
    """Variances of the mean of our seeds and of the reported number, each with its degrees of freedom."""
    if reported_sd is None:  # one spread, estimated once
        return [(sd**2 / k + sd**2 / runs, freedom)]
    return [(sd**2 / k, freedom), (reported_sd**2 / runs, runs - 1 or math.inf)]


def _sum(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of variances, each with its own; infinite ones are known."""
    known = sum(v for v, freedom in parts if math.isinf(freedom))
    uncertain = [(v, freedom) for v, freedom in parts if v > 0 and not math.isinf(freedom)]
    variance = known + sum(v for v, _ in uncertain)
    if not uncertain:
        return math.sqrt(variance), math.inf
    variances, freedoms = np.array([v for v, _ in uncertain]), np.array([freedom for _, freedom in uncertain])
    return math.sqrt(variance), float(freedom_of_sum(variances[:, None], freedoms, known)[0])


def freedom_of_sum(variances: Floats, freedoms: Floats, known: float = 0.0) -> Floats:
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


def above_chance(correct: int, n: int, num_classes: int, commonest: int = 0) -> float:
    """One-sided p-value that an accuracy is better than guessing.

    Args:
        commonest: test images of the most frequent class; naming it every time is a guess, too.
    """
    from scipy.special import betainc  # the same as scipy.stats.binomtest, in a hundredth of its time

    return float(betainc(correct, n - correct + 1, max(1 / num_classes, commonest / n))) if correct else 1.0


OVER_SEEDS = "t over seeds"
BY_IMAGES = "t over seeds, whose spread is by the number of images"


def mean(
    values: Sequence[float], others: Sequence[float] | None = None, *, least_sd: Sequence[float] = (0.0, 0.0)
) -> Estimate | None:
    """Mean over seeds, Student's t; with `others` its difference to their mean, with unequal variances.

    Args:
        least_sd: what takes the place of the standard deviation of a side whose seeds lie closer together.

    Returns:
        None with fewer than two values on a side: one value has no spread. Without error if no side has any.
    """
    samples = [np.asarray(sample, float) for sample in (values, others) if sample is not None]
    if min(map(len, samples)) < 2:
        return None
    centre = float(samples[0].mean()) - (float(samples[1].mean()) if others is not None else 0.0)
    own = [float(x.var(ddof=1)) if len(set(x.tolist())) > 1 else 0.0 for x in samples]  # rounding is no spread
    if not any(own):
        return Estimate(centre, 0.0, len(samples[0]) - 1.0, OVER_SEEDS)
    variances = [max(v, least**2) for v, least in zip(own, least_sd, strict=False)]
    seen, used = ([(v / len(x), len(x) - 1.0) for v, x in zip(vs, samples, strict=True)] for vs in (own, variances))
    method = OVER_SEEDS if variances == own else BY_IMAGES
    return Estimate(centre, _sum(used)[0], _sum(seen)[1], method)  # so that a spread put in narrows nothing


def contrast(arms: Sequence[Bools], weights: Sequence[float], *, paired: bool = False) -> tuple[float, Estimate]:
    """A weighted sum of arms' accuracies on the same test images: what other seeds and other such images would give.

    Seeds and images are two crossed sources of chance. The squared standard error is that of the seed means, S, plus
    what images add to it, I - E: I is the variance over images of the contrast averaged over seeds, E the part of
    it that is the seeds' own chance, which S holds already. Degrees of freedom are those of S, raised as the rest is
    well known (Hillis, Statistics in Medicine 2007, 26:596-619, for readers and cases). Seeds that happen to lie
    close together do not pass for certainty: the variance of an arm's seeds is at least a quarter of what their own
    chance on each image says. With one seed in every arm only I is left, and the estimate speaks of these trained
    models on other images.

    Paired by seed, the contrast of each seed takes the place of the arms: S is the variance of its mean, and E the
    seeds' own chance in the contrast. The quantile is that of a paired t test, with one degree of freedom less than
    there are seeds, and is not lowered for what images add: the interval is a bound, never narrower than that test's.

    Two images are added, one on which one run of every arm speaks for the contrast and one against it, or models
    that agree on all of ten images would be equal beyond doubt. For one seed each and two arms this is the interval
    of Bonett & Price (2012).

    Args:
        arms: correctness, (K_a, n) per arm: seeds by images; the images in the same order.
        weights: one per arm; 1 and -1 for a difference, 1, -1, -1, 1 for an interaction.
        paired: row by row the arms are of the same seeds, from which they started alike.

    Returns:
        The contrast in points, and the estimate of its true value.

    Raises:
        ValueError: arms of different images, as many weights as arms are not given, or arms to be paired of different
            numbers of seeds.
    """
    if len(arms) != len(weights) or len({a.shape[1] for a in arms}) != 1:
        raise ValueError("arms and weights must pair up, and all arms cover the same images")
    if paired and len({len(a) for a in arms}) != 1:
        raise ValueError("arms are paired by seed, so all have the same seeds")
    n = arms[0].shape[1]
    # of the contrast, by seed and image
    parts: list[Floats] = [np.multiply(100 * w, a, dtype=float) for a, w in zip(arms, weights, strict=True)]
    half_images = [(50 * w / n) ** 2 for w in weights]
    if paired:
        parts, half_images = [np.sum(parts, 0)], [sum(half_images)]
    z: Floats = np.sum([part.mean(0) for part in parts], 0)
    fewest = min(len(a) for a in arms)
    added = [100 * sum(w for w in weights if w * sign > 0) / fewest for sign in (1, -1)]
    total, squares = float(z.sum()) + sum(added), float(z @ z) + sum(x * x for x in added)
    centre = total / (n + 2)
    over_images = (squares / (n + 2) - centre**2) / (n + 2)
    seeds, own = [], 0.0
    for part, half_image in zip(parts, half_images, strict=True):
        k = len(part)
        if k >= 2:
            by_images = float(part.var(0, ddof=1).mean()) / n  # of one seed, with n images
            variance = max(float(part.mean(1).var(ddof=1)), half_image, by_images / 4)
            seeds.append((variance / k, k - 1.0))
            own += by_images / k
    kept = max(over_images - own, 0.0)
    method = "seeds and images" if seeds else "images, these trained models"
    se, freedom = _sum([*seeds, (kept, math.inf)])
    if paired and seeds:
        return float(z.mean()), Estimate(centre, se, seeds[0][1], f"{method}, paired by seed", bound=True)
    return float(z.mean()), Estimate(centre, se, freedom, method)


def unpaired(arms: Sequence[Sequence[float]], weights: Sequence[float], n: int) -> tuple[float, Estimate]:
    """The same from accuracies alone, where nothing tells which images were right.

    Every arm enters with the variance of its mean over seeds or the binomial bound, whichever is more. Models find the
    same images hard, so this is wider than what pairs of predictions would give.

    Args:
        arms: accuracies in percent, one per seed.
        n: test images behind each.
    """
    parts, value = [], 0.0
    for accuracies, w in zip(arms, weights, strict=True):
        k = len(accuracies)
        sd, source = seed_sd(accuracies, n)
        bound = binomial_sd(float(np.mean(accuracies)), n)
        own = source != BOUND and sd**2 / k > bound**2
        parts.append((w**2 * (sd**2 / k if own else bound**2), k - 1.0 if own else math.inf))
        value += w * float(np.mean(accuracies))
    return value, Estimate(value, *_sum(parts), "unpaired, images or seeds", bound=True)


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
