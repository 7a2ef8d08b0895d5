from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vitrepro.errors import RunError
from vitrepro.measure.fewshot import BIAS_FEATURE, Standardise, fit, fit_iteratively, targets, with_bias


def problem(n: int, D: int, K: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(D, D, generator=generator, dtype=torch.float64)
    return torch.randn(n, D, generator=generator, dtype=torch.float64) @ mix, torch.arange(n) % K


def sklearn_weights(X: Tensor, labels: Tensor, K: int, l2: float) -> Tensor:
    model = Ridge(alpha=l2, fit_intercept=False, solver="svd").fit(X.numpy(), targets(labels, K, X.dtype).numpy())
    return torch.from_numpy(model.coef_).t()


@pytest.mark.parametrize("l2", [0.1, 1024.0])
@pytest.mark.parametrize(("n", "D"), [(40, 9), (9, 40), (10, 10)], ids=["more images", "more features", "as many"])
def test_the_closed_form_is_sklearns_ridge(n: int, D: int, l2: float) -> None:
    X, labels = problem(n, D)
    torch.testing.assert_close(fit(X, labels, 4, l2), sklearn_weights(X, labels, 4, l2), atol=1e-9, rtol=1e-9)


@given(n=st.integers(1, 12), D=st.integers(1, 12), seed=st.integers(0, 99), l2=st.floats(0.01, 100))
def test_no_weights_near_the_closed_form_are_better(n: int, D: int, seed: int, l2: float) -> None:
    X, labels = problem(n, D, 3, seed)
    weights = fit(X, labels, 3, l2)

    def objective(w: Tensor) -> Tensor:
        return (X @ w - targets(labels, 3, X.dtype)).square().sum() + l2 * w.square().sum()

    for sign in (-1, 1):
        assert objective(weights + sign * 1e-3) > objective(weights)
    free = weights.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(free), free)
    (first,) = torch.autograd.grad(objective(zero := torch.zeros_like(weights, requires_grad=True)), zero)
    assert gradient.abs().max() <= 1e-8 * (1 + first.abs().max())


@pytest.mark.parametrize(("n", "D"), [(40, 9), (9, 40)])
def test_descent_arrives_at_the_closed_form(n: int, D: int) -> None:
    X, labels = problem(n, D)
    expected = fit(X, labels, 4, 1.0)
    torch.testing.assert_close(fit_iteratively(X, labels, 4, 1.0), expected, atol=1e-9, rtol=1e-9)


def test_descent_that_has_not_arrived_is_an_error() -> None:
    X, labels = problem(40, 9)
    with pytest.raises(RunError, match="class 0 has not converged: after 2 steps"):
        fit_iteratively(X, labels, 4, 1.0, steps=2)


def test_targets_are_one_for_the_class_and_minus_one_elsewhere() -> None:
    assert targets(torch.tensor([1, 0]), 3, torch.float64).tolist() == [[-1, 1, -1], [1, -1, -1]]


def test_features_are_standardised_by_those_of_the_fit_as_sklearn_does() -> None:
    known, new = problem(30, 5)[0] + 3, problem(20, 5, seed=1)[0]
    theirs = StandardScaler().fit(known.numpy())
    ours = Standardise.of(known)
    for features in (known, new):
        expected = with_bias(torch.from_numpy(theirs.transform(features.numpy())))
        torch.testing.assert_close(ours(features), expected, atol=1e-3, rtol=1e-4)  # the deviation has 1e-5 more
    assert torch.equal(ours(new)[:, -1], torch.full((20,), BIAS_FEATURE, dtype=torch.float64))


def test_a_feature_that_never_changes_stays_finite() -> None:
    assert torch.isfinite(Standardise.of(torch.ones(4, 2))(torch.ones(4, 2))).all()


def test_five_shots_of_digits_are_worth_more_than_chance() -> None:
    digits = load_digits()
    features, labels = torch.from_numpy(digits.data), torch.from_numpy(digits.target).long()
    known = torch.cat([(labels == c).nonzero().flatten()[:5] for c in range(10)])
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[known] = False
    standardise = Standardise.of(features[known])
    scores = standardise(features[rest]) @ fit(standardise(features[known]), labels[known], 10)
    assert (scores.argmax(1) == labels[rest]).double().mean() > 0.7
