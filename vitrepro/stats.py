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
    added so that 100% is not certain either.
    """
    k = len(accuracies)
    if k >= 3:
        return max(float(np.std(accuracies, ddof=1)), 50 / n), f"sd of {k} seeds"
    p = (float(np.mean(accuracies)) / 100 * n + 1) / (n + 2)
    return 100 * math.sqrt(p * (1 - p) / n), "binomial bound"


def equivalence_interval(
    accuracies: Sequence[float], n: int, reported: float, reported_sd: float | None, reported_runs: int | None
) -> Interval:
    """90% interval of ours minus the reported number; inside (-margin, margin) it is equivalence at 5% (TOST).

    Args:
        accuracies: one per seed, percent.
        n: test images behind each.
        reported_sd, reported_runs: the printed spread and its runs; without them ours is assumed, for one run.
    """
    from scipy.stats import norm, t

    k = len(accuracies)
    sd, source = seed_sd(accuracies, n)
    other = sd if reported_sd is None else reported_sd
    se = math.sqrt(sd**2 / k + other**2 / (reported_runs or 1))
    quantile = float(t.ppf(0.95, k - 1)) if k >= 3 else float(norm.ppf(0.95))
    difference = float(np.mean(accuracies)) - reported
    return Interval(difference - quantile * se, difference + quantile * se, 0.90, source)


def expected_half_width(
    seeds: int, n: int, reported: float, reported_sd: float | None, reported_runs: int | None
) -> float:
    """Half the width that `equivalence_interval` should have, before anything is measured."""
    from scipy.stats import norm, t

    p = min(max(reported / 100, 1 / n), 1 - 1 / n)
    sd = reported_sd if reported_sd is not None else 0.8 * 100 * math.sqrt(p * (1 - p) / n)
    se = sd * math.sqrt(1 / seeds + 1 / (reported_runs or 1))
    return se * float(t.ppf(0.95, seeds - 1) if seeds >= 3 else norm.ppf(0.95))


def mcnemar(a: Bools, b: Bools) -> float:
    """Two-sided exact p-value that two trained models are equally often right on the same images.

    Args:
        a, b: correctness per image, (n,).
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def above_chance(correct: int, n: int, num_classes: int) -> float:
    """One-sided p-value that an accuracy is better than guessing one of equally frequent classes."""
    from scipy.stats import binomtest

    return float(binomtest(correct, n, 1 / num_classes, alternative="greater").pvalue)


def contrast(arms: Sequence[Bools], weights: Sequence[float], level: float = 0.95) -> tuple[float, Interval]:
    """A weighted sum of arms' accuracies on the same test images, with its interval.

    Two sources of chance are held apart and the wider bound is taken on each side: a bootstrap that draws
    images (the same for all arms) and seeds (within each arm), and, where every arm has two seeds or more,
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
    if all(len(a) >= 2 for a in arms):
        interval = interval.hull(_welch(arms, weights, level))
    return estimate, interval


def _bootstrap(arms: Sequence[Bools], weights: Sequence[float], level: float) -> Interval:
    """Percentile interval over images and seeds.

    Drawing n images with replacement is a multinomial over the distinct columns of correctness, of which
    there are few: the same distribution as drawing indices, without the indices.
    """
    rows = np.concatenate(arms)  # (R, n) over all runs
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
    """Welch's t interval of a contrast of seed means, with Satterthwaite's degrees of freedom."""
    from scipy.stats import t

    accuracies = [a.mean(1) * 100 for a in arms]
    parts = [w**2 * float(np.var(a, ddof=1)) / len(a) for w, a in zip(weights, accuracies, strict=True)]
    variance = sum(parts)
    estimate = float(sum(w * a.mean() for w, a in zip(weights, accuracies, strict=True)))
    if variance == 0:
        return Interval(estimate, estimate, level, "Welch's t")
    freedom = variance**2 / sum(p**2 / (len(a) - 1) for p, a in zip(parts, accuracies, strict=True))
    half = float(t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return Interval(estimate - half, estimate + half, level, "Welch's t")
