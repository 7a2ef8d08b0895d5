"""Worlds in which runs of one recipe vary: how far each seed lies from the mean of its arm, and how runs agree.

A forecast and the calibration study draw accuracies here and judge them by the rules themselves, thousands at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vitrepro.arrays import Floats
from vitrepro.judge import stats

Shape = Literal["normal", "skew", "one in ten", "clusters", "diverged", "correlated"]
WITHIN = 0.36  # correlation over images of two runs of an arm, where seeds vary by more than each image's chance
SHARED = 0.6  # of that between runs of two arms


@dataclass(frozen=True)
class World:
    """How seeds vary; all in bounds, the binomial standard error of one accuracy.

    Attributes:
        spread: standard deviation over seeds, of `one in ten` and the like that of the others.
        shape: normal; exponential tail down; one in ten 8 lower; two clusters 80 to 20, 8 apart; one in ten diverged,
            60 lower; seeds of which any two share a third of their deviation.
    """

    name: str
    spread: float
    shape: Shape = "normal"

    @property
    def agreement(self) -> float:
        """Correlation over images of two runs of an arm, if seeds have no other chance than each image's."""
        return 1 - self.spread**2 if self.spread < 1 else WITHIN

    def deviations(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """(..., K) deviations with mean zero over all seeds, in bounds."""
        if self.shape == "skew":
            return self.spread * (1 - rng.standard_exponential(shape))
        z = self.spread * rng.standard_normal(shape)
        if self.shape == "correlated":
            common = self.spread * rng.standard_normal((*shape[:-1], 1))
            return np.asarray(math.sqrt(2 / 3) * z + math.sqrt(1 / 3) * common)
        far = {"one in ten": (0.1, 8.0), "clusters": (0.2, 8.0), "diverged": (0.1, 60.0)}.get(self.shape)
        return z if far is None else z - far[1] * ((rng.random(shape) < far[0]) - far[0])

    def accuracies(self, rng: np.random.Generator, trials: int, seeds: int, mean: float, n: int) -> Floats:
        """(trials, K) accuracies in percent of an arm with this mean, on a test set of n images."""
        bound = float(stats.binomial_sd(mean, n))
        return np.clip(mean + bound * self.deviations(rng, (trials, seeds)), 0.0, 100.0)


def together(arms: Sequence[Floats], n: int, within: Sequence[float], shared: float = SHARED) -> Any:
    """Images on which every two runs are both right, as correlations over images leave it to expect.

    Args:
        arms: accuracies in percent, (..., K_a).
        within: correlation of two runs of an arm.
        shared: share of it between runs of two arms.

    Returns:
        (..., R, R), as `stats.right_together` counts it.
    """
    p = np.concatenate(arms, -1) / 100
    arm = np.repeat(np.arange(len(arms)), [a.shape[-1] for a in arms])
    r = np.asarray(within, float)[arm]
    same = arm[:, None] == arm
    correlation = np.sqrt(r[:, None] * r) * np.where(same, 1.0, shared)
    np.fill_diagonal(correlation, 1.0)
    sd = np.sqrt(p * (1 - p))
    return n * (p[..., :, None] * p[..., None, :] + correlation * sd[..., :, None] * sd[..., None, :])
