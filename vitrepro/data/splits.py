"""The images of one run: which rows of a prepared data set are for training, for choosing, for the test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitrepro.data.prepare import Prepared
from vitrepro.data.shuffle import balanced_order, proportional_order
from vitrepro.errors import UsageError
from vitrepro.randomness import derive
from vitrepro.recipe import DataSpec, dev_size


@dataclass(frozen=True)
class Split:
    """Images with their labels and where they stand in the data set.

    Attributes:
        images: uint8, (N, H, W, C); memory-mapped, and read-only, when the whole file is meant.
        labels: int64, (N,); position in `DataSpec.classes` where classes were chosen.
        ids: int64, (N,), ascending; row in the data set's train (also for dev) or test split.
        sha256: of which images these are, in content and order.
        complete_size: images before `DataSpec.test_images` cut the test split short; N otherwise.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    sha256: str
    complete_size: int


def load_split(prepared: Prepared, spec: DataSpec, split: Literal["train", "dev", "test"], seed: int) -> Split:
    """The split that a run with this seed sees.

    Train and dev share `spec.train_images` of the training images, drawn from the seed: equally many of
    each class as far as that divides, and for one seed a smaller subset lies within every larger one. Dev
    is `spec.dev_fraction` of them, with the classes in the same shares. The test split is the same for
    every seed, and reading the others never opens it.

    Raises:
        UsageError: the kept classes have fewer images than train_images asks for.
        ValueError: dev is asked for and dev_fraction leaves it empty.
    """
    stored = "test" if split == "test" else "train"
    all_labels: NDArray[np.int64] = np.load(prepared.directory / f"{stored}-labels.npy")
    ids = _rows_of_classes(all_labels, spec.classes)
    complete_size = len(ids)
    if split == "test":
        ids = ids[: spec.test_images]
    else:
        ids = _train_or_dev(ids, all_labels, spec, split, seed)
        complete_size = len(ids)

    images = np.load(prepared.directory / f"{stored}-images.npy", mmap_mode="r")
    content = prepared.test.sha256 if split == "test" else prepared.train.sha256
    return Split(
        images=images if len(ids) == len(images) else images[ids],
        labels=_renumbered(all_labels[ids], spec.classes),
        ids=ids,
        sha256=hashlib.sha256(content.encode() + ids.astype("<i8").tobytes()).hexdigest(),
        complete_size=complete_size,
    )


def _rows_of_classes(labels: NDArray[np.int64], classes: tuple[int, ...] | None) -> NDArray[np.int64]:
    if classes is None:
        return np.arange(len(labels))
    return np.flatnonzero(np.isin(labels, classes))


def _renumbered(labels: NDArray[np.int64], classes: tuple[int, ...] | None) -> NDArray[np.int64]:
    if classes is None:
        return labels
    new = np.empty(max(classes) + 1, np.int64)
    new[list(classes)] = np.arange(len(classes))
    return new[labels]


def _train_or_dev(
    ids: NDArray[np.int64],
    labels: NDArray[np.int64],
    spec: DataSpec,
    split: Literal["train", "dev"],
    seed: int,
) -> NDArray[np.int64]:
    if spec.train_images is not None:
        if spec.train_images > len(ids):
            raise UsageError(f"data.train_images is {spec.train_images}, the kept classes have {len(ids)}")
        order = balanced_order(labels[ids], derive(seed, "train subset"))
        ids = np.sort(ids[order[: spec.train_images]])
    dev = dev_size(len(ids), spec.dev_fraction)
    if split == "dev" and not dev:
        raise ValueError(f"no dev split: dev_fraction {spec.dev_fraction} of {len(ids)} images is none")
    order = proportional_order(labels[ids], derive(seed, "dev"))
    return np.sort(ids[order[:dev] if split == "dev" else order[dev:]])
