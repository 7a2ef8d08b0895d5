"""Counts and seeds to intervals and p-values. Accuracies and differences are in percent throughout.

scipy is imported where it is used: listing claims must not wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitrepro.arrays import Bools, Floats
from vitrepro.randomness import derive

DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A confidence interval in percent; `method` says what it accounts for."""

    low: float
    high: float
    level: float
    method: str

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(
            min(self.low, other.low),
            max(self.high, other.high),
            self.level,
            f"{self.method} and {other.method}",
        )


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


def t_interval(accuracies: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of the mean over seeds: what further seeds would give on the same test images.

    Raises:
        ValueError: fewer than two seeds.
    """
    from scipy.stats import t

    k = len(accuracies)
    if k < 2:
        raise ValueError("an interval over seeds needs at least two")
    half = float(t.ppf((1 + level) / 2, k - 1)) * float(np.std(accuracies, ddof=1)) / math.sqrt(k)
    mean = float(np.mean(accuracies))
    return Interval(mean - half, mean + half, level, f"t, {k} seeds")


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
    p = (float(np.mean(accuracies)) / 100 * n + 1) / (n + 2)
    bound = 100 * math.sqrt(p * (1 - p) / n)
    return (bound, "binomial bound") if bound >= sd else (sd, "sd of 2 seeds")


def equivalence_interval(
    accuracies: Sequence[float], n: int, reported: float, reported_sd: float | None, reported_runs: int | None
) -> Interval:
    """90% interval of ours minus the reported number; inside (-margin, margin) it is equivalence at 5% (TOST).

    Args:
        accuracies: one per seed, percent.
        n: test images behind each.
        reported_sd, reported_runs: the printed spread and its runs; without them ours is assumed, for one run.
    """
    sd, source = seed_sd(accuracies, n)
    half = _half_width(sd, len(accuracies), reported_sd, reported_runs)
    difference = float(np.mean(accuracies)) - reported
    return Interval(difference - half, difference + half, 0.90, source)


def expected_half_width(
    seeds: int, n: int, reported: float, reported_sd: float | None, reported_runs: int | None
) -> float:
    """Half the width that `equivalence_interval` should have, before anything is measured.

    With one or two seeds it is known: that of the binomial bound at the reported accuracy. From three on the
    seeds are expected to vary as the reported runs did, or else by 0.8 of the bound.
    """
    sd, _ = seed_sd([reported], n)
    if seeds >= 3:
        sd = 0.8 * sd if reported_sd is None else reported_sd
    return _half_width(sd, seeds, reported_sd, reported_runs)


def _half_width(sd: float, seeds: int, reported_sd: float | None, reported_runs: int | None) -> float:
    """Half a 90% interval of the difference of two means, by Welch and Satterthwaite.

    A binomial bound counts as known, and so does a printed spread of unknown runs. The degrees of freedom are
    never more than those of our own seeds.
    """
    from scipy.stats import t

    ours = sd**2 / seeds
    theirs = (sd if reported_sd is None else reported_sd) ** 2 / (reported_runs or 1)
    most = seeds - 1 if seeds >= 3 else math.inf
    estimated = ours**2 / most
    if reported_sd is not None and reported_runs is not None and reported_runs >= 2:
        estimated += theirs**2 / (reported_runs - 1)
    freedom = min(most, (ours + theirs) ** 2 / estimated if estimated else math.inf)
    return float(t.ppf(0.95, freedom)) * math.sqrt(ours + theirs)


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
    from scipy.stats import binomtest

    return float(binomtest(correct, n, max(1 / num_classes, commonest / n), alternative="greater").pvalue)


def mean_interval(
    values: Sequence[float], others: Sequence[float] | None = None, level: float = 0.95
) -> Interval | None:
    """Student's t interval of a mean over seeds; Welch's of the difference to the mean of `others`.

    Returns:
        None with fewer than two values on a side: one value has no spread.
    """
    from scipy.stats import t

    samples = [np.asarray(sample, float) for sample in (values, others) if sample is not None]
    if min(map(len, samples)) < 2:
        return None
    means, parts = [float(x.mean()) for x in samples], [float(x.var(ddof=1)) / len(x) for x in samples]
    mean = means[0] - (means[1] if others is not None else 0.0)
    estimated = sum(p**2 / (len(x) - 1) for p, x in zip(parts, samples, strict=True))
    freedom = sum(parts) ** 2 / estimated if estimated else math.inf  # Welch and Satterthwaite; K - 1 for one sample
    half = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(sum(parts))
    return Interval(mean - half, mean + half, level, "t over seeds" if others is None else "Welch's t over seeds")


def contrast(arms: Sequence[Bools], weights: Sequence[float], level: float = 0.95) -> tuple[float, Interval]:
    """A weighted sum of arms' accuracies on the same test images, with its interval.

    Two sources of chance are held apart and the wider bound is taken on each side: a bootstrap that draws
    images (the same for all arms) and seeds (within each arm), and, where an arm has two seeds or more,
    Welch's t on the seed means, since a bootstrap of three seeds alone is too narrow. With one seed per
    arm the interval speaks of these trained models only.

    Args:
        arms: correctness, (K_a, n) per arm: seeds by images; the images in the same order.
        weights: one per arm; 1 and -1 for a difference, 1, -1, -1, 1 for an interaction.

    Returns:
        The contrast in points, and its two-sided interval.

    Raises:
        ValueError: arms of different images, or as many weights as arms are not given.
    """
    if len(arms) != len(weights) or len({a.shape[1] for a in arms}) != 1:
        raise ValueError("arms and weights must pair up, and all arms cover the same images")
    means = [float(a.mean()) * 100 for a in arms]
    estimate = float(np.dot(weights, means))
    interval = _bootstrap(arms, weights, level)
    if any(len(a) >= 2 for a in arms):
        interval = interval.hull(_welch(arms, weights, level))
    return estimate, interval


def _bootstrap(arms: Sequence[Bools], weights: Sequence[float], level: float) -> Interval:
    """Percentile interval over images and seeds.

    Two images are added, one that speaks wholly for the contrast and one wholly against it, or models that
    agree on all of ten images would be equal beyond doubt (Bonett & Price 2012 for a paired difference).

    Drawing n images with replacement is a multinomial over the distinct columns of correctness, of which
    there are few: the same distribution as drawing indices, without the indices.
    """
    favoured = np.concatenate([np.full(len(a), w > 0) for a, w in zip(arms, weights, strict=True)])
    rows = np.column_stack([np.concatenate(arms), favoured, ~favoured])  # (R, n + 2) over all runs
    columns, counts = np.unique(np.packbits(rows, axis=0), axis=1, return_counts=True)
    patterns = np.unpackbits(columns, axis=0, count=len(rows)).astype(np.float64)  # (R, P)
    n = rows.shape[1]
    rng = np.random.default_rng(derive(0, "bootstrap", n))
    totals: Floats = np.empty(DRAWS)
    chunk = max(1, 4_000_000 // patterns.shape[1])
    for start in range(0, DRAWS, chunk):
        size = min(chunk, DRAWS - start)
        accuracy = rng.multinomial(n, counts / n, size) @ patterns.T * (100 / n)  # (size, R)
        total: Floats = np.zeros(size)
        first = 0
        for arm, weight in zip(arms, weights, strict=True):
            k = len(arm)
            share = rng.multinomial(k, np.full(k, 1 / k), size) / k  # how often each seed was drawn
            total += weight * (share * accuracy[:, first : first + k]).sum(1)
            first += k
        totals[start : start + size] = total
    tail = (1 - level) / 2 * 100
    low, high = np.percentile(totals, [tail, 100 - tail])
    seeds = "images and seeds" if any(len(a) > 1 for a in arms) else "images, these trained models"
    return Interval(float(low), float(high), level, f"bootstrap over {seeds}")


def _welch(arms: Sequence[Bools], weights: Sequence[float], level: float) -> Interval:
    """Welch's t interval of a contrast of seed means, with Satterthwaite's degrees of freedom.

    An arm of one seed enters with the binomial bound, as known.
    """
    from scipy.stats import t

    accuracies = [a.mean(1) * 100 for a in arms]
    sds = [float(np.std(a, ddof=1)) if len(a) >= 2 else seed_sd(a, arms[0].shape[1])[0] for a in accuracies]
    parts = [w**2 * sd**2 / len(a) for w, sd, a in zip(weights, sds, accuracies, strict=True)]
    variance = sum(parts)
    estimate = float(sum(w * a.mean() for w, a in zip(weights, accuracies, strict=True)))
    estimated = sum(p**2 / (len(a) - 1) for p, a in zip(parts, accuracies, strict=True) if len(a) >= 2)
    freedom = variance**2 / estimated if estimated else math.inf
    half = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return Interval(estimate - half, estimate + half, level, "Welch's t")
