"""What every side of a benchmark is given, and how it measures memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vitrepro import memory
from vitrepro.arrays import Ints
from vitrepro.catalog import DATASETS
from vitrepro.recipe import EVALUATION_BATCH, Arithmetic, Recipe

SEED = 0
IMAGES_BYTES = 400_000_000  # of all images of a benchmark at most, or one batch if that is more


@dataclass(frozen=True)
class Setup:
    """What a side times, and on what.

    Attributes:
        precision: what the recipe's own stands for here.
        workers: processes of other people's data loaders.
    """

    recipe: Recipe
    device: str
    precision: Arithmetic
    threads: int
    workers: int


def random_images(recipe: Recipe) -> tuple[NDArray[np.uint8], Ints]:
    """Images of random pixels, uint8, (N, H, W, C), and random labels: the same for every side.

    As many as a test split of the data set, in whole batches: evaluating them is what a run does.
    """
    info = DATASETS[recipe.data.name]
    batch_bytes = EVALUATION_BATCH * info.image_size**2 * info.channels
    n = EVALUATION_BATCH * max(1, min(math.ceil(info.test / EVALUATION_BATCH), IMAGES_BYTES // batch_bytes))
    random = np.random.default_rng(SEED)
    images = random.integers(0, 256, (n, info.image_size, info.image_size, info.channels), np.uint8)
    return images, random.integers(0, recipe.data.num_classes, n)


def settle(setup: Setup) -> None:
    """Threads and arithmetic of this process."""
    torch.set_num_threads(setup.threads)
    torch.backends.cuda.matmul.allow_tf32 = setup.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = setup.precision == "tf32"


def wait_for(device: str) -> None:
    """Return when the device has done all that it was told to."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


class Memory:
    """The most memory in use since the last `restart`, beyond what the process had when this was made."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device.startswith("cuda"):
            torch.zeros(1, device=device)  # there are no statistics before the first tensor
        memory.give_back()  # what was freed and is still held would be counted as there before
        self.restart()
        self.before = 0 if device.startswith("cuda") else memory.peak_bytes(device)

    def restart(self) -> None:
        memory.restart_peak(self.device)

    def bytes(self) -> int:
        return max(0, memory.peak_bytes(self.device) - self.before)
