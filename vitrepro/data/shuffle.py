"""Random orders that never change: of all items, and of the items class by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitrepro.randomness import derive


def permutation(n: int, seed: int) -> NDArray[np.int64]:
    """A random order of 0 .. n-1.

    By sorting raw random bits, whose stream numpy keeps the same in all versions, unlike its `permutation`.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


def balanced_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Positions in a random order that takes one item of each class in turn.

    Every beginning of the order is balanced: class counts differ by one at most, until a class is used up.
    """
    rank, _, turn = _within_classes(labels, seed)
    return np.lexsort((turn, rank))


def proportional_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Positions in a random order of which every beginning holds the classes in the shares of the whole."""
    rank, size, turn = _within_classes(labels, seed)
    return np.lexsort((turn, (rank + 0.5) / size))


def _within_classes(
    labels: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each item: its random rank within its class, the size of the class, the turn of the class."""
    n = len(labels)
    shuffled = permutation(n, derive(seed, "items"))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    first = np.cumsum(sizes) - sizes
    rank = np.empty(n, np.int64)
    rank[by_class] = np.arange(n) - first[labels[by_class]]
    turn = permutation(len(sizes), derive(seed, "turns"))
    return rank, sizes[labels], turn[labels]
