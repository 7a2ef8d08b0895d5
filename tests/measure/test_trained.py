from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from vitrepro.errors import RunError, UsageError
from vitrepro.measure import trained
from vitrepro.measure.attention import (
    among_patches,
    attention_distance,
    attention_entropy,
    attention_log_weights,
    of_class_token,
    uniform_distance,
)
from vitrepro.measure.trained import MEASURES, MeasureName, measure
from vitrepro.models.resnet import resnet
from vitrepro.models.vit import ViT
from vitrepro.recipe import ResNetSpec, ViTSpec

NAMES: tuple[MeasureName, ...] = get_args(MeasureName)
ATTENTION = tuple(name for name in NAMES if name.startswith("attention"))
POSITIONS = tuple(name for name in NAMES if name.startswith("position"))
SIZE: dict[str, int] = {"patch_size": 4, "grid": 5}


def randomised(model: nn.Module, by: float = 0.3) -> nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return model


def ours(**fields: Any) -> nn.Module:
    torch.manual_seed(0)
    spec = ViTSpec(**{"patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 3, **fields})
    return randomised(ViT(spec, image_size=20, channels=3, num_classes=10))


def timms(**options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    size = {"img_size": 20, "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 3, "num_classes": 10}
    return randomised(VisionTransformer(**{**size, **options}))


def images(number: int = 11) -> Tensor:
    return torch.randn(number, 3, 20, 20, generator=torch.Generator().manual_seed(2))


def test_every_measure_of_the_schema_is_in_the_table() -> None:
    assert set(MEASURES) == set(NAMES)
    assert len(NAMES) == len(ATTENTION) + len(POSITIONS)


@pytest.mark.parametrize("make", [ours, timms])
def test_every_measure_is_a_number_in_the_order_asked_for(make: Any) -> None:
    found = measure(make(), images(), reversed(NAMES), **SIZE)
    assert list(found) == list(reversed(NAMES))
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert 0 <= found["attention_low_min"] < found["attention_low_max"] < math.sqrt(2) * 4 * 4 / uniform_distance(5, 4)
    assert 0 < found["attention_entropy_share"] < 1


def test_the_same_weights_measure_alike_in_our_model_and_in_timms() -> None:
    theirs, mine = timms(), ours()
    mine.load_state_dict({{"pos_embed": "pos_embed.table"}.get(k, k): v for k, v in theirs.state_dict().items()})
    found, expected = (measure(model, images(), NAMES, **SIZE) for model in (mine, theirs))
    assert found == pytest.approx(expected, abs=1e-5)


def test_measures_of_attention_are_those_of_all_images_at_once() -> None:
    model = ours()
    found = measure(model, images(), ATTENTION, **SIZE)
    weights = list(attention_log_weights(model, images()))
    distance = torch.stack([attention_distance(among_patches(w, 1), 5, 4).mean(0) for w in weights])
    distance = distance / uniform_distance(5, 4)
    entropy = attention_entropy(of_class_token(weights[-1], 1)).mean()
    assert found["attention_low_max"] == pytest.approx(distance[0].max().item(), abs=1e-5)
    assert found["attention_low_min"] == pytest.approx(distance[0].min().item(), abs=1e-5)
    sd = distance.std(1)
    assert found["attention_low_spread_excess"] == pytest.approx((sd[:2].mean() - sd[2:].mean()).item(), abs=1e-5)
    assert found["attention_wide_share_second_half"] == (distance[2:] > 0.7).float().mean().item()
    assert found["attention_entropy_share"] == pytest.approx(entropy.item() / math.log(25), abs=1e-5)


def test_a_measure_does_not_depend_on_the_size_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = measure(ours(), images(), NAMES, **SIZE)
    monkeypatch.setattr(trained, "BATCH_SIZE", 3)
    assert measure(ours(), images(), NAMES, **SIZE) == pytest.approx(expected, abs=1e-5)


def test_images_are_shown_once_and_in_small_batches() -> None:
    model = ours()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    measure(model, images(19), ATTENTION, **SIZE)
    assert seen == [8, 8, 3]
    measure(model, images(), POSITIONS, **SIZE)
    assert len(seen) == 3


def test_measuring_twice_gives_the_same_bits_in_evaluation_mode_and_in_float32() -> None:
    model = ours(dropout=0.5).train()
    found = measure(model, images(), NAMES, **SIZE)
    assert not model.training
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(model, images(), NAMES, **SIZE) == found


def test_a_model_that_attends_to_all_alike_measures_one() -> None:
    model = ours(pos_embed="none")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
    names: list[MeasureName] = ["attention_low_max", "attention_low_min", "attention_entropy_share"]
    assert measure(model, images(), names, **SIZE) == pytest.approx(dict.fromkeys(names, 1.0))


def test_a_new_model_knows_no_positions() -> None:
    torch.manual_seed(0)
    model = ViT(ViTSpec(variant="Ti/16"), image_size=224, channels=3, num_classes=10)
    found = measure(model, torch.zeros(1, 3, 224, 224), POSITIONS, patch_size=16, grid=14)
    assert abs(found["position_distance_correlation"]) < 0.03
    assert abs(found["position_row_column_excess"]) < 0.01
    assert found["position_sinusoid_peak"] == pytest.approx(2 / 13, rel=0.1)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("pos_embed", ["none", "relative"])
def test_positions_that_are_not_learned_per_patch_are_refused(name: MeasureName, pos_embed: str) -> None:
    with pytest.raises(UsageError, match="adds no position embedding"):
        measure(ours(pos_embed=pos_embed), images(), [name], **SIZE)


@pytest.mark.parametrize("name", NAMES)
def test_a_resnet_is_refused(name: MeasureName) -> None:
    model = resnet(ResNetSpec(layers=(1,), block="basic", width=8), channels=3, num_classes=10)
    with pytest.raises(UsageError, match="Vision Transformer of family vit"):
        measure(model, images(), [name], **SIZE)


def test_entropy_needs_a_class_token_and_distance_does_not() -> None:
    model = ours(pool="gap")
    assert measure(model, images(), ["attention_low_max"], **SIZE)["attention_low_max"] > 0
    with pytest.raises(UsageError, match="use a model with pool cls"):
        measure(model, images(), ["attention_entropy_share"], **SIZE)


def test_a_single_patch_is_refused() -> None:
    model = ours(patch_size=20)
    for name in ATTENTION:
        with pytest.raises(UsageError, match="several patches"):
            measure(model, images(), [name], patch_size=20, grid=1)


def test_what_comes_out_as_no_number_is_an_error() -> None:
    model = ours()
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.fill_(math.nan)
    with pytest.raises(RunError, match="attention_low_max came out as nan"):
        measure(model, images(), ["attention_low_max"], **SIZE)


def test_images_that_the_patches_do_not_cover_are_refused() -> None:
    with pytest.raises(ValueError, match="4x4 patches of 4 pixels do not cover images of 20x20"):
        measure(ours(), images(), NAMES, patch_size=4, grid=4)
    with pytest.raises(ValueError, match="no images"):
        measure(ours(), images(0), NAMES, **SIZE)
