"""Which data sets exist: classes, split sizes, image shape, and where they come from.

Facts only, without torch, so that claim files can be validated and experiments costed before
anything is loaded. `vitrepro.data` reads the images and checks them against these facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

DatasetName = Literal["digits", "cifar10", "cifar100", "imagenette", "pets", "flowers"]


@dataclass(frozen=True)
class Dataset:
    """A labelled image data set with a fixed train and test split.

    Attributes:
        title: how people call it.
        num_classes: labels are 0 .. num_classes - 1.
        train, test: images in each split, checked after loading.
        image_size: pixels per side after decoding; images of another size are resized to it (bicubic), which
            the record names.
        channels: 1 or 3.
        fit: how an image becomes square: `crop`, by its shorter side and then its centre; or `squash`, whole.
        label: column of the labels in parquet files, where it is not called `label`.
        hub: repository of the Hugging Face hub, or None when the data ships with a dependency.
        hub_files: where the repository keeps the parquet files of a split.
        hub_revision: branch that holds them, or None for the main one.
        test_split: name of the test split in files and on the hub.
    """

    title: str
    num_classes: int
    train: int
    test: int
    image_size: int
    channels: int
    fit: Literal["crop", "squash"] = "crop"
    label: str = "label"
    hub: str | None = None
    hub_files: str = "data/{split}-*.parquet"
    hub_revision: str | None = None
    test_split: str = "test"


DATASETS: dict[DatasetName, Dataset] = {
    # scikit-learn ships 1,797 digits without a split: ours is stratified, drawn once with a fixed seed.
    "digits": Dataset("scikit-learn digits", 10, 1_000, 797, 8, 1),
    "cifar10": Dataset(
        "CIFAR-10",
        10,
        50_000,
        10_000,
        32,
        3,
        hub="uoft-cs/cifar10",
        hub_files="plain_text/{split}-*.parquet",
    ),
    "cifar100": Dataset(
        "CIFAR-100",
        100,
        50_000,
        10_000,
        32,
        3,
        label="fine_label",
        hub="uoft-cs/cifar100",
        hub_files="cifar100/{split}-*.parquet",
    ),
    # The main branch holds a loading script, which `datasets` no longer runs; the hub converts it to parquet.
    "imagenette": Dataset(
        "Imagenette",
        10,
        9_469,
        3_925,
        160,
        3,
        hub="frgfm/imagenette",
        hub_files="160px/{split}/*.parquet",
        hub_revision="refs/convert/parquet",
        test_split="validation",
    ),
    # Photographs of many sizes, kept at the size that fine-tuning sees them in; squashed, as the authors' code does
    # for evaluation. 0.4 MB each.
    "pets": Dataset(
        "Oxford-IIIT Pets",
        37,
        3_680,
        3_669,
        384,
        3,
        fit="squash",
        hub="timm/oxford-iiit-pet",
    ),
    # The validation split of 1,020 images stays unused, as in the authors' code.
    "flowers": Dataset(
        "Oxford Flowers-102",
        102,
        1_020,
        6_149,
        384,
        3,
        fit="squash",
        hub="dpdl-benchmark/oxford_flowers102",
    ),
}
assert set(DATASETS) == set(get_args(DatasetName))
