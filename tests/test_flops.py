from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any, get_args

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitrepro import claims
from vitrepro.flops import executed_macs, forward_macs, training_flops
from vitrepro.models.build import build
from vitrepro.models.vit import ViT
from vitrepro.recipe import (
    HybridStem,
    LibraryModelSpec,
    ModelSpec,
    Pool,
    PosEmbed,
    Recipe,
    ResNetSpec,
    ResNetVariant,
    ViTSpec,
    VitVariant,
)
from vitrepro.spec import AnalyticExperiment


def counted(spec: ModelSpec, image_size: int, channels: int, num_classes: int, batch_size: int = 1) -> int:
    with torch.device("meta"):
        model = build(spec, image_size=image_size, channels=channels, num_classes=num_classes).eval()
        images = torch.empty(batch_size, channels, image_size, image_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    assert counter.get_total_flops() % (2 * batch_size) == 0
    return counter.get_total_flops() // (2 * batch_size)


def assert_formula_is_count(spec: ModelSpec, image_size: int, channels: int = 3, num_classes: int = 1000) -> None:
    formula = forward_macs(spec, image_size=image_size, channels=channels, num_classes=num_classes)
    assert formula == counted(spec, image_size, channels, num_classes)


@pytest.mark.parametrize("variant", get_args(VitVariant))
def test_the_formula_is_the_count_for_every_vit_variant(variant: VitVariant) -> None:
    assert_formula_is_count(ViTSpec(variant=variant), 224)


@pytest.mark.parametrize(
    ("pos_embed", "pool", "hybrid"),
    list(itertools.product(get_args(PosEmbed), get_args(Pool), (None, HybridStem(layers=(1, 2), width=32)))),
)
def test_the_formula_is_the_count_for_every_kind_of_vit(pos_embed: Any, pool: Any, hybrid: Any) -> None:
    spec = ViTSpec(
        patch_size=2, embed_dim=24, depth=3, num_heads=3, mlp_dim=40, pos_embed=pos_embed, pool=pool, hybrid=hybrid
    )
    assert_formula_is_count(spec, 32, channels=1, num_classes=7)


@pytest.mark.parametrize(
    ("pos_embed", "pool"),
    [("learned_1d", "cls"), ("learned_1d", "first"), ("relative", "cls"), ("relative", "first"), ("none", "gap")],
)
def test_what_is_skipped_is_what_the_counter_misses(pos_embed: Any, pool: Any) -> None:
    spec = ViTSpec(patch_size=2, embed_dim=24, depth=3, num_heads=3, mlp_dim=40, pos_embed=pos_embed, pool=pool)
    with torch.device("meta"):
        model = build(spec, image_size=8, channels=1, num_classes=7).eval()
        images = torch.empty(1, 1, 8, 8)
    assert isinstance(model, ViT)
    model.skip_unread = True
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    executed = executed_macs(spec, image_size=8, channels=1, num_classes=7)
    assert executed == counter.get_total_flops() // 2
    assert (executed == forward_macs(spec, image_size=8, channels=1, num_classes=7)) is (
        pool == "gap" or pos_embed == "relative"
    )


@pytest.mark.parametrize("image_size", [224, 384])
@pytest.mark.parametrize("layers", [(3, 4, 9), (3, 4, 6, 3)])
def test_the_formula_is_the_count_for_the_papers_hybrids(layers: tuple[int, ...], image_size: int) -> None:
    assert_formula_is_count(ViTSpec(variant="B/16", patch_size=1, hybrid=HybridStem(layers=layers)), image_size)


@pytest.mark.parametrize("pos_embed", ["none", "learned_1d", "learned_2d"])
@pytest.mark.parametrize("hybrid", [None, HybridStem(layers=(1, 2), width=32)])
def test_the_formula_is_the_count_for_axial_attention(pos_embed: Any, hybrid: Any) -> None:
    sizes: dict[str, Any] = {"patch_size": 2, "embed_dim": 24, "depth": 3, "num_heads": 3, "mlp_dim": 40}
    spec = ViTSpec(**sizes, pos_embed=pos_embed, pool="gap", hybrid=hybrid, attention="axial")
    assert_formula_is_count(spec, 32, channels=1, num_classes=7)


def test_an_axial_layer_costs_two_dense_parts_and_attention_along_every_row_and_column() -> None:
    G, D, mlp_dim, classes = 6, 8, 24, 5  # patches per side, of one pixel
    spec = ViTSpec(
        patch_size=1,
        embed_dim=D,
        depth=1,
        num_heads=2,
        mlp_dim=mlp_dim,
        pool="gap",
        pos_embed="none",
        attention="axial",
    )
    rows = G * (G * (3 * D * D + D * D + 2 * D * mlp_dim) + 2 * G * G * D)  # G sequences of G tokens
    macs = forward_macs(spec, image_size=G, channels=3, num_classes=classes)
    assert macs == G**2 * 3 * D + 2 * rows + D * classes


SIZES: dict[str, Any] = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}


@pytest.mark.parametrize("batch_size", [1, 5, 64])
@pytest.mark.parametrize("pool", get_args(Pool))
def test_attention_across_the_batch_costs_an_image_the_more_the_larger_the_batch(pool: Any, batch_size: int) -> None:
    spec = ViTSpec(**SIZES, pool=pool, attention="batch")
    sizes = {"image_size": 16, "channels": 3, "num_classes": 7, "batch_size": batch_size}
    macs = forward_macs(spec, **sizes)
    assert macs == counted(spec, **sizes)
    executed = executed_macs(spec, **sizes)
    if pool == "gap":
        assert executed == macs
    else:  # depth layers of a single token; the class token is made of no patch, but all patches are made beside it
        layer = 4 * 24**2 + 2 * 24 * 96 + 2 * batch_size * 24
        assert executed == 2 * layer + (16 if pool == "cls" else 1) * 4 * 4 * 3 * 24 + 24 * 7
    alone = forward_macs(spec, **{**sizes, "batch_size": 1})
    assert alone is not None
    assert macs == alone + 2 * 2 * (16 + (pool == "cls")) * (batch_size - 1) * 24  # depth x (qk and wv), of every token


@pytest.mark.parametrize("batch_size", [1, 5])
def test_elsewhere_an_image_costs_the_same_in_every_batch(batch_size: int) -> None:
    for attention in ("global", "axial"):
        spec = ViTSpec(**SIZES, pool="gap", attention=attention)  # type: ignore[arg-type]
        sizes = {"image_size": 16, "channels": 3, "num_classes": 7, "batch_size": batch_size}
        assert forward_macs(spec, **sizes) == counted(spec, **sizes) == forward_macs(spec, **{**sizes, "batch_size": 1})


@pytest.mark.parametrize(
    "fields", [{"norm": "post"}, {"activation": "relu"}, {"attention_scale": "inverted"}, {"init": "torch"}]
)
def test_departures_without_other_products_change_no_count(fields: dict[str, Any]) -> None:
    assert_formula_is_count(ViTSpec(**SIZES, **fields), 16)
    plain, other = (
        forward_macs(ViTSpec(**SIZES, **more), image_size=16, channels=3, num_classes=7) for more in ({}, fields)
    )
    assert plain == other


def test_norms_that_are_left_out_change_no_count() -> None:
    spec = ViTSpec(patch_size=4, embed_dim=24, depth=2, num_heads=3, attention_norm="unused", final_norm=False)
    assert_formula_is_count(spec, 16)


@pytest.mark.parametrize(
    ("variant", "style"),
    [pair for pair in itertools.product(get_args(ResNetVariant), ("bn", "bit")) if pair != ("R18", "bit")],
)
def test_the_formula_is_the_count_for_every_resnet_variant(variant: ResNetVariant, style: Any) -> None:
    assert_formula_is_count(ResNetSpec(variant=variant, style=style), 224)


@pytest.mark.parametrize("image_size", [8, 33, 160])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize(
    "fields",
    [
        {"layers": (1, 1, 1), "block": "basic", "width": 16},
        {"layers": (2, 1), "block": "bottleneck", "width": 32},
        {"layers": (1, 2, 1), "block": "bottleneck", "width": 96, "style": "bit"},
    ],
)
def test_the_formula_is_the_count_for_small_resnets_and_odd_sizes(
    fields: dict[str, Any], stem: Any, image_size: int
) -> None:
    assert_formula_is_count(ResNetSpec(**fields, stem=stem), image_size, channels=1, num_classes=7)


def models_of_the_claims() -> list[tuple[ModelSpec, int, int, int]]:
    """Every model of ours in the experiments that ship, with image size, channels and classes."""
    registry = claims.load()
    models: dict[str, tuple[ModelSpec, int, int, int]] = {}
    for experiment in registry.experiments.values():
        arms = experiment.arms if isinstance(experiment, AnalyticExperiment) else claims.recipes(experiment)
        for arm in arms.values():
            classes = arm.data.num_classes if isinstance(arm, Recipe) else arm.num_classes
            spec = arm.model.model_copy(update={"dropout": 0.0}) if isinstance(arm.model, ViTSpec) else arm.model
            if not isinstance(spec, LibraryModelSpec):
                shape = (arm.image_size, arm.channels, classes)
                models.setdefault(f"{spec} {shape}", (spec, *shape))
    return list(models.values())


def is_large(model: tuple[ModelSpec, int, int, int]) -> bool:
    spec, image_size, channels, num_classes = model
    macs = forward_macs(spec, image_size=image_size, channels=channels, num_classes=num_classes)
    return macs is not None and macs > 1e9


@pytest.mark.parametrize(
    "large", [pytest.param(False, id="small"), pytest.param(True, id="large", marks=pytest.mark.slow)]
)
def test_the_formula_is_the_count_for_every_model_of_ours_in_the_claims(large: bool) -> None:
    chosen = [model for model in models_of_the_claims() if is_large(model) is large]
    assert len(chosen) > 20
    for model in chosen:
        assert_formula_is_count(*model)


def test_library_models_have_no_formula() -> None:
    spec = LibraryModelSpec(family="timm", name="resnet18")
    assert forward_macs(spec, image_size=224, channels=3, num_classes=10) is None


@pytest.mark.parametrize(
    ("variant", "epochs", "exaflops"),
    [("B/32", 7, 55), ("B/16", 7, 224), ("L/32", 7, 196), ("L/16", 7, 783), ("L/16", 14, 1567), ("H/14", 14, 4262)],
)
def test_the_exaflops_of_table_6_follow_from_the_sizes(variant: VitVariant, epochs: int, exaflops: float) -> None:
    macs = forward_macs(ViTSpec(variant=variant), image_size=224, channels=3, num_classes=1000)
    assert macs is not None
    assert training_flops(macs, 303e6 * epochs) / 1e18 == pytest.approx(exaflops, rel=0.03)


@pytest.mark.parametrize(
    ("variant", "times", "epochs", "exaflops"),
    [("R50", 1, 7, 50), ("R50", 2, 7, 199), ("R101", 1, 7, 96), ("R152", 2, 14, 1126), ("R200", 3, 14, 3306)],
)
def test_the_exaflops_of_its_resnets_are_of_products_with_real_pixels_alone(
    variant: ResNetVariant, times: int, epochs: int, exaflops: float
) -> None:
    spec = ResNetSpec(variant=variant, style="bit", width=64 * times)
    whole, real = (
        forward_macs(spec, image_size=224, channels=3, num_classes=1000, padding=padding) for padding in (True, False)
    )
    assert whole is not None
    assert real is not None
    assert training_flops(real, 303e6 * epochs) / 1e18 == pytest.approx(exaflops, rel=0.009)
    assert 1.02 < training_flops(whole, 303e6 * epochs) / 1e18 / exaflops < 1.05


@pytest.mark.parametrize("image_size", [32, 33, 57])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("stem", ["small", "imagenet"])
def test_products_with_real_pixels_are_those_a_convolution_of_ones_adds_up(
    stem: Any, block: Any, image_size: int
) -> None:
    spec = ResNetSpec(layers=(1, 2), block=block, width=8, stem=stem)
    model = build(spec, image_size=image_size, channels=3, num_classes=5).eval()
    found = [8 * (2 if block == "basic" else 8) * 5]  # the head

    def add(layer: Any, given: Any, _: Any) -> None:
        ones = torch.ones(1, 1, *given[0].shape[-2:], dtype=torch.float64)
        kernel = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)
        taps = torch.nn.functional.conv2d(ones, kernel, stride=layer.stride, padding=layer.padding).sum()
        found.append(int(taps) * layer.in_channels * layer.out_channels)

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(add)
    with torch.no_grad():
        model(torch.zeros(1, 3, image_size, image_size))
    assert forward_macs(spec, image_size=image_size, channels=3, num_classes=5, padding=False) == sum(found)


def test_the_formula_needs_no_torch() -> None:
    code = "import sys, vitrepro.flops; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
