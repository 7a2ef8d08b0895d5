"""Which images make up the batch of a step, as a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vitrepro.data.shuffle import permutation
from vitrepro.randomness import derive


def batches(n: int, batch_size: int, steps: int, seed: int, start_step: int = 0) -> Iterator[NDArray[np.int64]]:
    """The batches of steps start_step .. steps-1, the same ones wherever a run is resumed."""
    for step in range(start_step, steps):
        yield batch_indices(n, batch_size, seed, step)


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Positions, in 0 .. n-1, of the images of one step; (batch_size,).

    The shuffled epochs stand one behind the other and each step takes the next batch_size positions: every
    image comes once per epoch, a batch may span two epochs or more, none is ever smaller.
    """
    if n < 1 or batch_size < 1 or step < 0:
        raise ValueError(f"no batch of {batch_size} out of {n} images at step {step}")
    position, end = step * batch_size, (step + 1) * batch_size
    parts = []
    while position < end:
        epoch, start = divmod(position, n)
        part = _epoch_order(n, seed, epoch)[start : start + end - position]
        parts.append(part)
        position += len(part)
    return np.concatenate(parts)


@lru_cache(maxsize=4)  # the next step almost always reads the same epoch
def _epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order = permutation(n, derive(seed, "order", epoch))
    order.flags.writeable = False
    return order
