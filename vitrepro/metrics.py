"""What a claim may compare of training runs, by name: accuracy, measures of the model, of its training, of one epoch.

What an epoch came to stands in every record of a recipe whose length is in epochs; other measures are taken where the
recipe lists them.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import AfterValidator, WithJsonSchema

from vitrepro.errors import did_you_mean
from vitrepro.recipe import MeasureName, Recipe, TrainingMeasure

TOP1 = "top1"
TRAIN_TOP1 = "train_top1"
SELECTION_GAIN = "selection_gain"
FAILED_RUNS = "failed_runs"  # share of an arm's runs, percent; no run has it alone
OF_AN_EPOCH = ("train_loss", "train_loss_sum", "dev_top1", "test_top1")  # followed by _epoch_K

TAKEN: tuple[str, ...] = (*get_args(MeasureName), *get_args(TrainingMeasure))
_EPOCH = rf"({'|'.join(OF_AN_EPOCH)})_epoch_([1-9][0-9]{{0,4}})"


def of_epoch(name: str) -> tuple[str, int] | None:
    """What a measure is of which epoch: (dev_top1, 3) for dev_top1_epoch_3; None for a measure of no epoch."""
    found = re.fullmatch(_EPOCH, name, re.ASCII)
    return (found[1], int(found[2])) if found else None


METRICS: tuple[str, ...] = (TOP1, *TAKEN, SELECTION_GAIN, FAILED_RUNS)


def _checked(name: str, known: tuple[str, ...]) -> str:
    if name in known or of_epoch(name):
        return name
    words = (*known, *(f"{what}_epoch_1" for what in OF_AN_EPOCH))
    shown = ", ".join(map(repr, words))
    raise ValueError(f"{name!r} is not one of {shown}, or of a later epoch{did_you_mean(name, words)}")


def _schema(known: tuple[str, ...]) -> dict[str, Any]:
    return {"anyOf": [{"enum": list(known)}, {"type": "string", "pattern": f"^{_EPOCH}$"}]}


Metric: TypeAlias = Annotated[
    str, AfterValidator(lambda name: _checked(name, METRICS)), WithJsonSchema(_schema(METRICS))
]
Measure: TypeAlias = Annotated[
    str, AfterValidator(lambda name: _checked(name, METRICS[1:])), WithJsonSchema(_schema(METRICS[1:]))
]


def is_accuracy(metric: str) -> bool:
    """Whether more of it is better, in percent of images that no step saw.

    `train_top1`, of images that steps saw, is a measure without counts: only its seeds tell how much it varies.
    """
    kind, _ = of_epoch(metric) or (metric, 0)
    return kind in (TOP1, "dev_top1", "test_top1")


def counted_on(metric: str) -> Literal["dev", "test"] | None:
    """The split on whose images it is counted, if it is an accuracy or the difference of two; else None."""
    kind, _ = of_epoch(metric) or (metric, 0)
    if kind == "dev_top1":
        return "dev"
    return "test" if is_accuracy(metric) or kind == SELECTION_GAIN else None


def limits(metric: str) -> tuple[float, float]:
    """Between which numbers it lies whatever the model; infinite where there is no such number."""
    kind, _ = of_epoch(metric) or (metric, 0)
    if is_accuracy(metric) or kind in ("confidence", "clipped_share", TRAIN_TOP1, SELECTION_GAIN, FAILED_RUNS):
        return 0.0, 100.0
    if kind == "overconfidence":
        return -100.0, 100.0
    if kind in ("train_loss", "train_loss_sum", "gradient_norm_spread"):
        return 0.0, math.inf
    return -math.inf, math.inf


def of_ignorance(metric: str, recipe: Recipe) -> float | None:
    """What a model that finds all classes equally likely has; None where nothing tells."""
    if is_accuracy(metric) or metric == TRAIN_TOP1:
        return 100 / recipe.data.num_classes
    kind, epoch = of_epoch(metric) or (metric, 0)
    if kind not in ("train_loss", "train_loss_sum") or epoch > len(recipe.epoch_ends):
        return None
    begun, over = (0, *recipe.epoch_ends)[epoch - 1 : epoch + 1]
    return math.log(recipe.data.num_classes) * (over - begun if kind == "train_loss_sum" else 1)


def unavailable(metric: str, recipe: Recipe) -> str | None:
    """Why runs of a recipe do not tell a metric, or None."""
    train, named = recipe.train, of_epoch(metric)
    if metric in (TOP1, FAILED_RUNS) or metric in recipe.measures:
        return None
    if metric != SELECTION_GAIN and named is None:
        return f"its recipe's measures are: {', '.join(recipe.measures) or 'none'}"
    if not recipe.epoch_ends:
        return "its recipe's length is not in epochs (train.epochs) of a step or more"
    what, epoch = named or (SELECTION_GAIN, 1)
    if epoch > len(recipe.epoch_ends):
        return f"its recipe has {len(recipe.epoch_ends)} epochs"
    if train.patience is not None and epoch > 1 + train.patience:
        return f"its runs may end after epoch {1 + train.patience} (train.patience)"
    splits = {"dev_top1": ("dev",), "test_top1": ("test",), SELECTION_GAIN: ("dev", "test")}.get(what, ())
    lacking = [split for split in splits if split not in train.evaluate_epochs]
    return f"train.evaluate_epochs does not have {' and '.join(lacking)}" if lacking else None
