from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from vitrepro import metrics
from vitrepro.measure import trained, training
from vitrepro.metrics import OF_AN_EPOCH, Measure, Metric, limits, of_epoch, of_ignorance, unavailable
from vitrepro.recipe import MeasureName, Recipe, TrainingMeasure
from vitrepro.record import EpochPoint

VIT = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}


def recipe(measures: Any = (), dev_fraction: float = 0.1, **train: Any) -> Recipe:
    length = {"epochs": 3, "batch_size": 30, "lr": 1e-3, **train}
    data = {"name": "digits", "train_images": 1000, "dev_fraction": dev_fraction}
    return Recipe.model_validate({"data": data, "model": VIT, "train": length, "measures": measures})


def test_every_measure_of_the_schema_is_taken_by_one_table() -> None:
    assert set(training.MEASURES) == set(get_args(TrainingMeasure))
    assert set(trained.MEASURES) == set(get_args(MeasureName))
    assert set(metrics.TAKEN) == set(training.MEASURES) | set(trained.MEASURES)
    counts = {"dev_correct": 1, "dev_n": 2, "test_correct": 1, "test_n": 2}
    assert set(EpochPoint(epoch=1, steps=1, train_loss=1, train_loss_sum=1, **counts).measures) == set(OF_AN_EPOCH)


@pytest.mark.parametrize("name", ["dev_top1_epoch_0", "dev_top1_epoch_01", "train_loss_epoch", "top1_epoch_1", "top5"])
def test_a_name_that_is_no_metric_is_told_what_there_is(name: str) -> None:
    assert of_epoch(name) is None
    with pytest.raises(ValidationError, match=rf"'{name}' is not one of 'top1', .*'train_loss_epoch_1'.*later epoch"):
        TypeAdapter(Metric).validate_python(name)


def test_top1_is_a_metric_and_no_measure() -> None:
    assert TypeAdapter(Metric).validate_python("top1") == "top1"
    with pytest.raises(ValidationError):
        TypeAdapter(Measure).validate_python("top1")
    for name in (*metrics.METRICS[1:], "train_loss_sum_epoch_12"):
        assert TypeAdapter(Measure).validate_python(name) == name


@pytest.mark.parametrize(
    ("metric", "of", "why"),
    [
        ("top1", recipe(), None),
        ("train_loss_epoch_3", recipe(), None),
        ("train_loss_epoch_4", recipe(), "its recipe has 3 epochs"),
        ("train_loss_epoch_1", recipe(epochs=None, steps=9), "length is not in epochs"),
        ("dev_top1_epoch_1", recipe(), "train.evaluate_epochs does not have dev"),
        ("dev_top1_epoch_1", recipe(evaluate_epochs=["dev"]), None),
        ("selection_gain", recipe(evaluate_epochs=["dev"]), "train.evaluate_epochs does not have test"),
        ("selection_gain", recipe(evaluate_epochs=["dev", "test"]), None),
        ("test_top1_epoch_2", recipe(evaluate_epochs=["test"], keep="best-on-test", patience=1), None),
        (
            "test_top1_epoch_3",
            recipe(evaluate_epochs=["test"], keep="best-on-test", patience=1),
            "may end after epoch 2",
        ),
        ("confidence", recipe(), "its recipe's measures are: none"),
        ("confidence", recipe(["confidence"]), None),
    ],
)
def test_a_metric_that_runs_do_not_tell_says_why(metric: str, of: Recipe, why: str | None) -> None:
    found = unavailable(metric, of)
    assert found is None if why is None else why in (found or "")


def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_classes_at_every_step() -> None:
    assert of_ignorance("train_loss_epoch_2", recipe()) == math.log(10)
    assert of_ignorance("train_loss_sum_epoch_2", recipe()) == 30 * math.log(10)  # 900 images, 30 a batch
    assert of_ignorance("dev_top1_epoch_2", recipe()) == of_ignorance("top1", recipe()) == 10
    assert of_ignorance("overconfidence", recipe()) is None
    assert of_ignorance("train_top1", recipe()) == 10
    assert not metrics.is_accuracy("train_top1")


def test_limits_hold_whatever_the_model() -> None:
    assert limits("test_top1_epoch_3") == limits("confidence") == limits("selection_gain") == (0, 100)
    assert limits("train_top1") == limits("clipped_share") == (0, 100)
    assert limits("train_loss_epoch_1") == (0, math.inf)
    assert limits("overconfidence") == (-100, 100)
    assert limits("position_distance_correlation") == (-math.inf, math.inf)
