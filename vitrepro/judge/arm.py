"""The runs of one arm, as judging takes them: accuracies, what was right on which image, measures, failed runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vitrepro.arrays import Bools
from vitrepro.judge import stats
from vitrepro.judge.finding import ALPHA
from vitrepro.judge.spread import Regime, failed
from vitrepro.metrics import TOP1, counted_on, is_accuracy


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
        regime: whether training started from scratch or from released weights.
        seeds_of: the number of each seed, where it is known.
        times: how many seeds each accuracy stands for; one unless given.
        declared: places of the accuracies whose run failed by what the experiment declares (`failed_if`).
    """

    accuracies: tuple[float, ...] = ()
    n: int = 0
    runs: int = 1
    correct: Bools | None = None
    num_classes: int = 2
    commonest: int = 0
    quantities: Mapping[str, float] = field(default_factory=dict)
    measures: Mapping[str, Sequence[float]] = field(default_factory=dict)
    dev_n: int = 0
    regime: Regime = "scratch"
    seeds_of: tuple[int, ...] = ()
    times: tuple[int, ...] = ()
    declared: tuple[int, ...] = ()

    @staticmethod
    def of(
        correct: Bools,
        runs: int | None = None,
        *,
        num_classes: int = 2,
        commonest: int = 0,
        regime: Regime = "scratch",
    ) -> Arm:
        """From correctness, (K, n)."""
        return Arm(
            tuple((100 * correct.mean(1)).tolist()),
            correct.shape[1],
            runs if runs is not None else len(correct),
            correct,
            num_classes,
            commonest,
            regime=regime,
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
    def _p_above_chance(self) -> tuple[float, ...]:
        counts = np.round(np.asarray(self.accuracies) * self.n / 100)
        return tuple(np.atleast_1d(stats.above_chance(counts, self.n, self.chance / 100)).tolist())

    @property
    def learned(self) -> bool:
        """Every seed is better than guessing."""
        return all(p < ALPHA for p in self._p_above_chance)

    @cached_property
    def failed(self) -> tuple[int, ...]:
        """Places of the failed runs: at chance, far below the arm, or as the experiment declares it."""
        found = failed(self.accuracies, self.n, self._p_above_chance, ALPHA) if self.accuracies else ()
        return tuple(sorted({*found, *self.declared}))

    @property
    def failed_runs(self) -> int:
        """How many of `runs` failed."""
        return sum(self.times[i] if self.times else 1 for i in self.failed)

    def values(self, metric: str) -> Sequence[float]:
        """One per seed."""
        return self.accuracies if metric == TOP1 else self.measures.get(metric, ())

    def counted(self, metric: str) -> int:
        """Images that an accuracy, or a difference of two, is counted on; 0 where nothing is counted."""
        return {"test": self.n, "dev": self.dev_n, None: 0}[counted_on(metric)]

    def floor(self, metric: str) -> float:
        """Least deviation of a measure that is a difference of two accuracies: half of what coin tosses give."""
        n = self.counted(metric)
        return max(float(stats.binomial_sd(self.mean, n)) / 2, 50 / n) if n and not is_accuracy(metric) else 0.0
