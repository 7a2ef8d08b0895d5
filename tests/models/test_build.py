from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from vitrepro.errors import UsageError
from vitrepro.models.build import build
from vitrepro.recipe import LibraryModelSpec, ModelSpec, ResNetSpec, ViTSpec

VIT = ViTSpec(patch_size=4, embed_dim=32, depth=1, num_heads=2)
RESNET = ResNetSpec(layers=(1, 1), block="basic", width=8, stem="small")


def library(family: Any, name: str) -> LibraryModelSpec:
    return LibraryModelSpec(family=family, name=name)


@pytest.mark.parametrize(
    ("spec", "image_size", "channels"),
    [
        (VIT, 16, 1),
        (RESNET, 16, 1),
        (library("timm", "resnet18"), 32, 1),
        (library("timm", "vit_tiny_patch16_224"), 64, 3),
        (library("timm", "vit_base_patch16_224.orig_in21k"), 224, 3),
        (library("torchvision", "resnet18"), 32, 3),
        (library("torchvision", "vit_b_32"), 64, 3),
        (library("torchvision", "maxvit_t"), 224, 3),
        (library("torchvision", "googlenet"), 64, 3),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "family", None)),
)
def test_every_family_gives_logits_and_none_needs_memory_on_the_meta_device(
    spec: ModelSpec, image_size: int, channels: int
) -> None:
    with torch.device("meta"):
        model = build(spec, image_size=image_size, channels=channels, num_classes=7)
    assert all(p.is_meta for p in model.parameters())
    logits = model(torch.empty(2, channels, image_size, image_size, device="meta"))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("spec", [VIT, RESNET, library("timm", "test_resnet")])
def test_the_global_generator_alone_decides_the_initial_weights(spec: ModelSpec) -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        model = build(spec, image_size=32, channels=3, num_classes=7)
        made.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("timm", "vit_tiny_patch16_242", "did you mean 'vit_tiny_patch16_224'"),
        ("timm", "vit_base_patch16_224.orig_in21", "vit_base_patch16_224.orig_in21k"),
        ("timm", "hf-hub:someone/model", "timm has no model"),
        ("torchvision", "resnet51", "did you mean 'resnet50'"),
        ("torchvision", "fasterrcnn_resnet50_fpn", "torchvision has no classifier"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(family: str, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(library(family, name), image_size=224, channels=3, num_classes=7)
    assert message in str(caught.value)


def test_torchvision_models_refuse_grey_images() -> None:
    with pytest.raises(UsageError, match="takes colour images, these have 1 channel"):
        build(library("torchvision", "resnet18"), image_size=32, channels=1, num_classes=7)


def test_what_a_library_cannot_build_is_the_users_error() -> None:
    with torch.device("meta"), pytest.raises(UsageError, match="cannot build 'maxvit_t' for images of 40 x 40"):
        build(library("torchvision", "maxvit_t"), image_size=40, channels=3, num_classes=7)


def test_building_our_own_models_imports_neither_timm_nor_torchvision() -> None:
    code = (
        "import sys; from vitrepro.models.build import build; from vitrepro.recipe import ViTSpec; "
        "build(ViTSpec(patch_size=4, embed_dim=8, depth=1, num_heads=1), image_size=8, channels=1, num_classes=2); "
        "print([m for m in ('timm', 'torchvision') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dropout_of_a_timm_model_stands_where_ours_does() -> None:
    from torch import nn

    theirs = build(
        LibraryModelSpec(family="timm", name="test_vit", dropout=0.1), image_size=32, channels=3, num_classes=7
    )
    ours = build(VIT.model_copy(update={"dropout": 0.1}), image_size=16, channels=3, num_classes=7)
    seen: dict[str, list[int]] = {"theirs": [], "ours": []}
    for name, model, width in (("theirs", theirs, 64), ("ours", ours, 32)):
        for module in model.modules():
            if isinstance(module, nn.Dropout) and module.p:
                module.register_forward_pre_hook(lambda _, x, at=seen[name], w=width: at.append(x[0].shape[-1] // w))
        model(torch.zeros(1, 3, 32 if name == "theirs" else 16, 32 if name == "theirs" else 16))
    assert seen["ours"] == [1, 1, 4, 1]  # positions, projection, hidden layer, output
    assert seen["theirs"] == [1] + 6 * [1, 3, 1]


def test_dropout_that_a_timm_model_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot build 'resnet18'"):
        build(LibraryModelSpec(family="timm", name="resnet18", dropout=0.1), image_size=32, channels=3, num_classes=7)
