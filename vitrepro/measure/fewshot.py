"""Few-shot classification: a linear map from frozen features to targets of -1 and 1, by regularised least squares.

n: images, D: width of a feature, K: classes. The bias is the weight of one more, constant feature, so that
a large constant leaves it almost unregularised.

Source: Section 4.1; the constants, and that features are standardised by the mean and deviation of those it is
fitted on, are of the authors' evaluator (big_vision, evaluators/fewshot_lsr.py and configs/common_fewshot.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitrepro.errors import RunError

L2 = 2.0**10
BIAS_FEATURE = 100.0
MIN_STD = 1e-5  # added to a feature's deviation, which may be zero


@dataclass(frozen=True)
class Standardise:
    """Features to mean 0 and deviation 1 of those it was made from, with the constant behind them."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Standardise:
        return cls(features.mean(0), features.std(0, correction=0) + MIN_STD)

    def __call__(self, features: Tensor) -> Tensor:
        """(n, D) to (n, D + 1)."""
        return with_bias((features - self.mean) / self.std)


def with_bias(features: Tensor) -> Tensor:
    return torch.nn.functional.pad(features, (0, 1), value=BIAS_FEATURE)


def targets(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """1 for an image's class, -1 for all others, (n, K)."""
    return 2 * torch.nn.functional.one_hot(labels, num_classes).to(dtype) - 1


def fit(features: Tensor, labels: Tensor, num_classes: int, l2: float = L2) -> Tensor:
    """The weights (D, K) that minimise |features @ weights - targets|^2 + l2 |weights|^2, in closed form.

    Args:
        features: (n, D), the constant one among them; in float64 unless some error is welcome.
        labels: (n,), 0 to K - 1.
        l2: above zero.
    """
    X, Y = features, targets(labels, num_classes, features.dtype)
    n, D = X.shape
    if n >= D:
        return torch.linalg.solve(X.t() @ X + l2 * torch.eye(D, dtype=X.dtype), X.t() @ Y)
    return X.t() @ torch.linalg.solve(X @ X.t() + l2 * torch.eye(n, dtype=X.dtype), Y)  # the same, (n, n)


def fit_iteratively(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    l2: float = L2,
    *,
    tolerance: float = 1e-12,
    steps: int = 10_000,
) -> Tensor:
    """The same weights by conjugate gradients from zero, one class at a time: to check `fit`.

    Only products of the features with vectors are formed, nothing is inverted.

    Raises:
        RunError: a gradient has not shrunk to `tolerance` times its first length.
    """
    X, Y = features, targets(labels, num_classes, features.dtype)
    weights = torch.zeros(X.shape[1], num_classes, dtype=X.dtype)
    for k in range(num_classes):
        w, downhill = weights[:, k], X.t() @ Y[:, k]  # minus half of the gradient
        direction, first = downhill.clone(), downhill.norm()
        for _ in range(steps):
            if downhill.norm() <= tolerance * first:
                break
            curved = X.t() @ (X @ direction) + l2 * direction
            before = downhill.square().sum()
            step = before / (direction @ curved)
            w += step * direction
            downhill = downhill - step * curved
            direction = downhill + downhill.square().sum() / before * direction
        left = (X.t() @ (Y[:, k] - X @ w) - l2 * w).norm() / first  # without the recursion's rounding
        if left > 10 * tolerance:
            raise RunError(
                f"the fit of class {k} has not converged: after {steps} steps its gradient is {left:.1e} of the first "
                f"one, more than {10 * tolerance:.0e}"
            )
    return weights
