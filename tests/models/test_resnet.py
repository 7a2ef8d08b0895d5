from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vitrepro.models.resnet import StdConv2d, hybrid_stem, pad_same, resnet
from vitrepro.recipe import ResNetSpec


@torch.no_grad()
def assert_same_logits(ours: nn.Module, theirs: nn.Module, image_size: int = 96) -> None:
    images = torch.randn(2, 3, image_size, image_size)
    expected = theirs.eval()(images)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(ours.eval()(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("variant", "name"), [("R18", "resnet18"), ("R50", "resnet50")])
def test_torchvision_weights_give_torchvision_logits(variant: str, name: str) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    theirs = get_model(name, weights=None, num_classes=10)
    theirs.train()(torch.randn(8, 3, 64, 64))  # running statistics that matter
    ours = resnet(ResNetSpec(variant=variant), channels=3, num_classes=10)
    ours.load_state_dict(theirs.state_dict())
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize("image_size", [96, 75])
def test_timm_weights_give_timm_logits_in_bit_style(image_size: int) -> None:
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("resnetv2_50x1_bit", pretrained=False, num_classes=10)
    nn.init.normal_(theirs.head.fc.weight, std=0.02)
    weights = theirs.state_dict()
    weights["head.weight"] = weights.pop("head.fc.weight").flatten(1)
    weights["head.bias"] = weights.pop("head.fc.bias")
    ours = resnet(ResNetSpec(variant="R50", style="bit"), channels=3, num_classes=10)
    ours.load_state_dict(weights)
    assert_same_logits(ours, theirs, image_size)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"variant": "R101"}, "resnet101"),
        ({"variant": "R152"}, "resnet152"),
        ({"layers": (3, 4, 6, 3), "block": "basic"}, "resnet34"),
    ],
)
def test_named_networks_have_torchvisions_parameters(fields: dict[str, Any], name: str) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        ours = resnet(ResNetSpec(**fields), channels=3, num_classes=1000)
        theirs = get_model(name, weights=None)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@pytest.mark.parametrize(
    ("variant", "width", "name"), [("R50", 192, "resnetv2_50x3_bit"), ("R152", 128, "resnetv2_152x2_bit")]
)
def test_wide_bit_networks_have_timms_parameters(variant: str, width: int, name: str) -> None:
    import timm

    with torch.device("meta"):
        ours = resnet(ResNetSpec(variant=variant, style="bit", width=width), channels=3, num_classes=1000)
        theirs = timm.create_model(name, pretrained=False, num_classes=1000)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


SMALL: list[dict[str, Any]] = [
    {"layers": (1, 1, 1), "block": "basic", "width": 16, "stem": "small"},
    {"layers": (2, 1), "block": "bottleneck", "width": 8, "stem": "small"},
    {"layers": (1,), "block": "basic", "width": 4, "stem": "imagenet"},
    {"layers": (1, 1), "block": "bottleneck", "width": 32, "stem": "small", "style": "bit"},
    {"layers": (1, 2), "block": "bottleneck", "width": 32, "stem": "imagenet", "style": "bit"},
]


@pytest.mark.parametrize("fields", SMALL)
def test_small_networks_take_small_grey_images_and_train_throughout(fields: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = resnet(ResNetSpec(**fields), channels=1, num_classes=10)
    with torch.no_grad():
        model[-1].weight.normal_()
    logits = model(torch.randn(4, 1, 8, 8))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_stage_i_has_width_times_two_to_the_i_channels() -> None:
    model = resnet(ResNetSpec(layers=(1, 1, 1), block="basic", width=16), channels=3, num_classes=10)
    assert [model.get_submodule(f"layer{i}.0.conv2").out_channels for i in (1, 2, 3)] == [16, 32, 64]


def test_the_small_stem_keeps_the_resolution() -> None:
    model = resnet(ResNetSpec(layers=(1,), block="basic", width=8, stem="small"), channels=3, num_classes=10)
    assert model[:4](torch.randn(1, 3, 32, 32)).shape == (1, 8, 32, 32)


def test_standardised_filters_have_mean_0_and_variance_1() -> None:
    conv = StdConv2d(8, 4, 3)
    with torch.no_grad():
        conv.weight.mul_(7).add_(3)
    filters = conv.standardised().flatten(1)
    torch.testing.assert_close(filters.mean(1), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(filters.var(1, correction=0), torch.ones(4))


def test_a_hybrids_stem_reduces_the_image_16_times() -> None:
    stem, features = hybrid_stem((3, 4, 9), 64, channels=3)
    assert sum(name.endswith("conv3") for name, _ in stem.named_modules()) == 16
    assert features == 1024
    assert stem.to("meta")(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1024, 14, 14)


def test_same_padding_puts_the_odd_row_at_the_end() -> None:
    padded = pad_same(torch.ones(1, 1, 4, 4), kernel=3, stride=2)
    assert padded.shape == (1, 1, 5, 5)
    assert padded[0, 0, :4, :4].all()
    assert not padded[0, 0, 4].any()
