"""Measures of how sure a model is and of how its training began."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vitrepro.data.augment import normalize
from vitrepro.errors import RunError
from vitrepro.measure import training
from vitrepro.measure.accuracy import answers
from vitrepro.models.build import build
from vitrepro.recipe import AugmentSpec, ViTSpec

NONE = np.zeros(0)


def test_confidence_is_the_largest_softmax_probability_by_numpy() -> None:
    torch.manual_seed(0)
    model = build(ViTSpec(patch_size=4, embed_dim=32, depth=1, num_heads=2), image_size=16, channels=3, num_classes=10)
    nn.init.normal_(model.get_parameter("head.weight"))
    images = torch.randint(0, 256, (97, 3, 16, 16), dtype=torch.uint8)
    found = answers(model, images, AugmentSpec(), image_size=16, device="cpu", precision="fp32", batch_size=20)
    with torch.no_grad():
        logits = model.eval()(normalize(images, AugmentSpec(), 16)).double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found.confidence, p.max(1), rtol=1e-5)
    assert found.confidence.max() - found.confidence.min() > 0.3
    labels = np.arange(97) % 10
    went = training.Subject((), found.confidence, found.predicted == labels)
    measured = training.measure(went, ["overconfidence", "confidence", "attention_low_max"])
    assert measured == {
        "confidence": pytest.approx(100 * p.max(1).mean(), rel=1e-5),
        "overconfidence": pytest.approx(100 * p.max(1).mean() - 100 * (logits.argmax(1) == labels).mean(), abs=1e-3),
    }


def test_overconfidence_is_positive_where_a_model_is_surer_than_it_is_right() -> None:
    sure, unsure = np.full(10, 0.9), np.full(10, 0.6)
    right = np.arange(10) < 8
    for confidence, expected in ((sure, 10.0), (unsure, -20.0)):
        found = training.measure(training.Subject((), confidence, right), ["overconfidence"])
        assert found["overconfidence"] == pytest.approx(expected)


def test_the_spread_of_gradient_norms_leaves_out_those_that_overflowed() -> None:
    went = training.Subject((1.0, float("inf"), 3.0, 5.0), NONE, NONE.astype(bool))
    found = training.measure(went, ["gradient_norm_spread"])["gradient_norm_spread"]
    assert found == pytest.approx(np.std([1, 3, 5], ddof=1) / 3)


def test_a_spread_of_a_single_finite_norm_is_no_number() -> None:
    went = training.Subject((1.0, float("nan")), NONE, NONE.astype(bool))
    with pytest.raises(RunError, match="gradient_norm_spread came out as nan"):
        training.measure(went, ["gradient_norm_spread"])


def test_measures_of_steps_and_training_images_are_in_percent() -> None:
    went = training.Subject((), NONE, NONE.astype(bool), clipped=0.25, train_correct=np.arange(8) < 6)
    assert training.measure(went, ["clipped_share", "train_top1"]) == {"clipped_share": 25.0, "train_top1": 75.0}
