"""Measures of a training's gradients and of what its model says: one number each, for models of any family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from vitrepro.arrays import Bools, Floats
from vitrepro.errors import RunError
from vitrepro.recipe import TrainingMeasure


@dataclass(frozen=True, eq=False)
class Subject:
    """A training and its model's answers to all test images.

    Attributes:
        gradient_norms: of the first steps, before clipping.
        confidence: probability of the most likely class, (N,).
        correct: whether that class is the right one, (N,).
        clipped: of the steps whose gradient was finite, the share in which it was longer than `clip_norm`.
        train_correct: as `correct`, of all training images, without augmentation; empty where that is not asked for.
    """

    gradient_norms: Sequence[float]
    confidence: Floats
    correct: Bools
    clipped: float = math.nan
    train_correct: Bools = field(default_factory=lambda: np.zeros(0, bool))


def measure(subject: Subject, names: Iterable[str]) -> dict[str, float]:
    """Those of the names that are measures of a training; the others are of the model.

    Raises:
        RunError: it came out as no finite number.
    """
    measured: dict[str, float] = {}
    for name, taken in MEASURES.items():
        if name in names:
            measured[name] = taken(subject)
            if not math.isfinite(measured[name]):
                raise RunError(f"{name} came out as {measured[name]}: too few steps had a finite gradient")
    return measured


def gradient_norm_spread(subject: Subject) -> float:
    """Standard deviation of the first gradient norms as a share of their mean; of finite ones, which updates used."""
    norms = [norm for norm in subject.gradient_norms if math.isfinite(norm)]
    return float(np.std(norms, ddof=1) / np.mean(norms)) if len(norms) >= 2 else math.nan


MEASURES: dict[TrainingMeasure, Callable[[Subject], float]] = {
    "confidence": lambda s: 100 * float(s.confidence.mean()),
    "overconfidence": lambda s: 100 * (float(s.confidence.mean()) - float(s.correct.mean())),
    "gradient_norm_spread": gradient_norm_spread,
    "clipped_share": lambda s: 100 * s.clipped,
    "train_top1": lambda s: 100 * float(s.train_correct.mean()),
}
