from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
import yaml
from pydantic import ValidationError

from vitrepro import runner
from vitrepro.errors import RunError, UsageError
from vitrepro.flops import forward_macs
from vitrepro.measure import analytic, equations, fewshot
from vitrepro.measure.analytic import QUANTITIES, permute_patches, quantities
from vitrepro.recipe import HybridStem, LibraryModelSpec, ModelSpec, PosEmbed, ResNetSpec, ViTSpec
from vitrepro.spec import AnalyticArm, Quantity

SHAPE: dict[str, int] = {"image_size": 224, "channels": 3, "num_classes": 1000}
CLAIMS = Path(__file__).parents[2] / "claims" / "experiments"
REAL_PATCHES = equations.patches
SMALL: dict[str, Any] = {"patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3}


def effect(image_size: int = 16, **fields: Any) -> float:
    spec = ViTSpec(**{**SMALL, **fields})
    found = quantities(spec, ["permutation_effect"], image_size=image_size, channels=3, num_classes=10)
    return found["permutation_effect"]


def test_every_quantity_of_the_schema_can_be_measured() -> None:
    assert set(QUANTITIES) == set(get_args(Quantity))


@pytest.mark.parametrize(
    "spec",
    [ViTSpec(variant="B/16"), LibraryModelSpec(family="timm", name="vit_base_patch16_224.orig_in21k")],
    ids=["ours", "timm"],
)
def test_b16_measures_alike_in_our_code_and_in_timms(spec: ModelSpec) -> None:
    expected: dict[Quantity, float] = {
        "depth": 12,
        "embed_dim": 768,
        "mlp_dim": 3072,
        "num_heads": 12,
        "parameters": 86_567_656,
        "parameters_m": 86.567656,
        "tokens": 197,
        "patches": 196,
        "forward_gmacs": 17.563828224,
        "training_exaflops": 0.105382969,
    }
    found = quantities(spec, expected, **SHAPE, images=1e6)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected)


def test_sizes_are_read_off_the_model_and_not_off_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    other = ViTSpec(patch_size=8, embed_dim=64, depth=3, num_heads=4, mlp_dim=96)
    build = analytic.build
    monkeypatch.setattr(analytic, "build", lambda _, **shape: build(other, **shape))
    found = quantities(
        ViTSpec(**SMALL), ["depth", "embed_dim", "mlp_dim", "num_heads", "tokens"],
        image_size=16, channels=3, num_classes=10,
    )  # fmt: skip
    assert found == {"depth": 3, "embed_dim": 64, "mlp_dim": 96, "num_heads": 4, "tokens": 5}


def test_a_formula_that_disagrees_with_the_model_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analytic, "forward_macs", lambda *_, **__: 1)
    with pytest.raises(RunError, match="gives 1 multiply-accumulates, the built model"):
        quantities(ViTSpec(**SMALL), ["forward_gmacs"], image_size=16, channels=3, num_classes=10)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_macs_of_attention_across_the_batch_are_those_of_an_image_in_its_batch(batch_size: int) -> None:
    spec = ViTSpec(**SMALL, attention="batch", pool="gap")
    sizes = {"image_size": 32, "channels": 3, "num_classes": 10, "batch_size": batch_size}
    assert quantities(spec, ["forward_gmacs", "tokens"], **sizes) == {
        "forward_gmacs": forward_macs(spec, **sizes) / 1e9,  # type: ignore[operator]
        "tokens": 64,
    }


def test_h14_is_measured_without_its_weights() -> None:
    found = quantities(ViTSpec(variant="H/14"), ["parameters_m", "tokens"], **SHAPE)
    assert found == {"parameters_m": pytest.approx(632.0458), "tokens": 257}


@pytest.mark.parametrize(
    ("spec", "tokens"),
    [
        (ViTSpec(**SMALL, pool="gap"), 64),
        (ViTSpec(**SMALL), 65),
        (ViTSpec(**{**SMALL, "patch_size": 1}, hybrid=HybridStem(layers=(1, 1), width=32)), 17),
    ],
    ids=["gap", "cls", "hybrid"],
)
def test_tokens_are_those_that_reach_the_encoder(spec: ViTSpec, tokens: int) -> None:
    assert quantities(spec, ["tokens"], image_size=32, channels=3, num_classes=10) == {"tokens": tokens}


@pytest.mark.parametrize(
    ("spec", "image_size", "patches"),
    [
        (ViTSpec(variant="B/16"), 224, 14 * 14),
        (ViTSpec(variant="L/32"), 384, 12 * 12),
        (ViTSpec(variant="B/16", pool="gap", attention="axial"), 224, 14 * 14),
        (ViTSpec(variant="B/32", patch_size=1, hybrid=HybridStem(layers=(3, 4, 6, 3))), 224, 7 * 7),
        (ViTSpec(variant="B/16", patch_size=1, hybrid=HybridStem(layers=(3, 4, 9))), 224, 14 * 14),
        (LibraryModelSpec(family="timm", name="vit_base_patch32_384"), 384, 12 * 12),
        (LibraryModelSpec(family="timm", name="vit_base_r50_s16_224"), 224, 14 * 14),
        (LibraryModelSpec(family="timm", name="vit_medium_patch16_reg4_gap_256"), 256, 16 * 16),
    ],
)
def test_patches_are_counted_without_tokens_that_hold_none(spec: ModelSpec, image_size: int, patches: int) -> None:
    shape = {**SHAPE, "image_size": image_size}
    assert quantities(spec, ["patches"], **shape) == {"patches": patches}


def test_both_halves_of_an_axial_layer_are_read() -> None:
    spec = ViTSpec(**SMALL, mlp_dim=80, pool="gap", attention="axial")
    found = quantities(spec, ["depth", "embed_dim", "mlp_dim", "num_heads"], image_size=16, channels=3, num_classes=10)
    assert found == {"depth": 2, "embed_dim": 48, "mlp_dim": 80, "num_heads": 3}


def test_other_models_are_counted_too() -> None:
    resnet = quantities(ResNetSpec(variant="R50"), ["parameters_m", "forward_gmacs"], **SHAPE)
    torchvision = LibraryModelSpec(family="torchvision", name="resnet50")
    assert resnet == quantities(torchvision, ["parameters_m", "forward_gmacs"], **SHAPE)
    assert resnet["parameters_m"] == pytest.approx(25.557032)


@pytest.mark.parametrize(
    "spec",
    [
        ResNetSpec(variant="R18"),
        LibraryModelSpec(family="timm", name="resnet18"),
        LibraryModelSpec(family="torchvision", name="resnet18"),
    ],
    ids=lambda spec: spec.family,
)
def test_networks_without_an_encoder_have_no_depth(spec: ModelSpec) -> None:
    with pytest.raises(UsageError, match="no encoder layers"):
        quantities(spec, ["depth"], **SHAPE)


def test_exaflops_need_the_number_of_images() -> None:
    with pytest.raises(UsageError, match="needs images"):
        quantities(ViTSpec(**SMALL), ["training_exaflops"], image_size=16, channels=3, num_classes=10)


def test_the_least_time_is_all_operations_at_the_peak() -> None:
    spec = ViTSpec(variant="B/16")
    given = {**SHAPE, "images": 1000, "peak_tflops": 16.3}
    trained = quantities(spec, ["least_seconds", "training_exaflops"], **given)
    assert trained["least_seconds"] == pytest.approx(trained["training_exaflops"] * 1e18 / 16.3e12)
    both = quantities(spec, ["least_seconds"], **given, evaluated_images=3000)
    assert both["least_seconds"] == pytest.approx(2 * trained["least_seconds"])  # a third of a training image's work
    with pytest.raises(UsageError, match="peak_tflops"):
        quantities(spec, ["least_seconds"], **SHAPE, images=1000)
    for arm in ({"images": 1000}, {"evaluated_images": 1000}, {"peak_tflops": 16.3}):
        with pytest.raises(ValidationError, match="least_seconds needs peak_tflops of the device, and images or"):
            AnalyticArm.model_validate({"model": spec, "quantities": ["least_seconds"]} | arm)


# --- in comparison


def test_halving_the_patches_quadruples_them_and_costs_about_as_much_more() -> None:
    spec, baseline = ViTSpec(variant="L/16"), ViTSpec(variant="L/32")
    found = quantities(spec, ["patches_ratio", "macs_ratio"], **SHAPE, baseline=baseline)
    macs = [forward_macs(s, **SHAPE) for s in (spec, baseline)]
    assert macs[0] is not None
    assert macs[1] is not None
    assert found == {"patches_ratio": 4, "macs_ratio": macs[0] / macs[1]}


@pytest.mark.parametrize(("size", "other"), [(224, 384), (384, 224), (64, 512)])
def test_the_exponent_is_the_slope_of_the_formula(size: int, other: int) -> None:
    D, depth, patch_size = 768, 12, 16

    def macs(side: int) -> int:
        N = (side // patch_size) ** 2
        return N * 3 * patch_size**2 * D + depth * ((N + 1) * 12 * D**2 + 2 * (N + 1) ** 2 * D) + 1000 * D

    shape = {**SHAPE, "image_size": size}
    found = quantities(ViTSpec(variant="B/16"), ["side_exponent"], **shape, compare_size=other)
    assert found["side_exponent"] == pytest.approx(math.log(macs(other) / macs(size)) / math.log(other / size))


def test_the_exponent_lies_between_2_for_convolutions_and_4_for_attention() -> None:
    """A token of 8 numbers costs next to nothing beside its pairs with 4,096 others."""
    small: dict[str, Any] = {"image_size": 64, "compare_size": 128, "channels": 3, "num_classes": 10}
    attention = ViTSpec(patch_size=1, embed_dim=8, depth=1, num_heads=2, mlp_dim=8, pool="gap")
    assert 3.9 < quantities(attention, ["side_exponent"], **small)["side_exponent"] < 4
    convolutions = ResNetSpec(variant="R50", style="bit")
    assert 1.99 < quantities(convolutions, ["side_exponent"], **small)["side_exponent"] < 2


@pytest.mark.parametrize("name", ["patches_ratio", "macs_ratio", "side_exponent"])
def test_a_comparison_needs_something_to_compare_with(name: Quantity) -> None:
    needed = "compare_size" if name == "side_exponent" else "baseline"
    with pytest.raises(UsageError, match=f"{name} needs {needed}"):
        quantities(ViTSpec(**SMALL), [name], image_size=16, channels=3, num_classes=10)
    arm = {"model": {"family": "vit", "variant": "B/16"}, "quantities": [name]}
    with pytest.raises(ValueError, match=f"{name} needs {needed}"):
        AnalyticArm.model_validate(arm)


def test_an_arm_hands_all_it_says_to_its_quantities(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def record(spec: ModelSpec, names: Any, **rest: Any) -> dict[str, float]:
        given.update(rest, model=spec, quantities=names)
        return {}

    monkeypatch.setattr(analytic, "quantities", record)
    vit = {"family": "vit", "variant": "B/16"}
    sizes = {"image_size": 32, "channels": 1, "num_classes": 5, "images": 6, "batch_size": 7, "compare_size": 64}
    arm = AnalyticArm.model_validate({"model": vit, **sizes, "baseline": vit, "quantities": ["depth"]})
    runner._count(arm)
    assert given == dict(arm)


# --- summaries by forward hooks


def test_the_printed_summary_of_an_attempt_is_found_again() -> None:
    registry = yaml.safe_load((CLAIMS / "imagenette-attempt-model.yaml").read_text())
    arm = AnalyticArm.model_validate(registry["arms"]["attempt"])
    found = runner._count(arm).quantities
    assert found["hooked_parameters"] == 85_606_666
    assert found["parameters"] == 85_806_346 - 12 * 3 * 768 - 2 * 768  # of a B/16, without those biases and that norm
    printed = {"input_mb": "18.38", "activation_mb": "11336.94", "parameter_mb": "326.56", "total_mb": "11681.88"}
    assert {name: f"{found[name]:.2f}" for name in printed} == printed


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_summaries_of_library_models_grow_with_the_batch_alone(name: str) -> None:
    spec = LibraryModelSpec(family="torchvision", name=name)
    names: list[Quantity] = ["hooked_parameters", "parameters", "input_mb", "activation_mb", "parameter_mb", "total_mb"]
    one, ten = (quantities(spec, names, **SHAPE, batch_size=b) for b in (1, 10))
    assert one["hooked_parameters"] == one["parameters"]
    assert one["parameter_mb"] == ten["parameter_mb"] == one["parameters"] * 4 / 2**20
    assert ten["activation_mb"] == pytest.approx(10 * one["activation_mb"])
    assert ten["input_mb"] == 10 * 3 * 224 * 224 * 4 / 2**20
    assert ten["total_mb"] == ten["input_mb"] + ten["activation_mb"] + ten["parameter_mb"]


# --- equations


TINY_TIMM = LibraryModelSpec(family="timm", name="vit_tiny_patch16_224")


def difference(spec: ModelSpec, image_size: int = 16) -> float:
    found = quantities(spec, ["encoder_difference"], image_size=image_size, channels=3, num_classes=10)
    return found["encoder_difference"]


@pytest.mark.parametrize(("spec", "image_size"), [(ViTSpec(**SMALL), 16), (TINY_TIMM, 224)], ids=["ours", "timm"])
def test_the_models_are_what_the_equations_say(spec: ModelSpec, image_size: int) -> None:
    assert 0 < difference(spec, image_size) < 1e-13


def test_a_model_without_a_norm_before_attention_is_not() -> None:
    assert difference(ViTSpec(**SMALL, attention_norm="unused")) > 0.01


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("softmax", lambda logits: logits.softmax(0)),
        ("layer_norm", lambda z, weight, bias: F.layer_norm(z, z.shape[-1:], weight, bias, 1e-5)),
        ("mlp", lambda _, z: z),
        ("patches", lambda image, size: REAL_PATCHES(image.flip(0), size)),
    ],
)
def test_every_step_of_the_equations_counts(part: str, other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equations, part, other)
    assert difference(ViTSpec(**SMALL)) > 1e-7


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"qkv_bias": False}, "blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias"),
        ({"pool": "gap"}, "cls_token"),
        ({"pos_embed": "learned_2d"}, "pos_embed, pos_embed.x, pos_embed.y"),
        ({"final_norm": False}, "norm.bias, norm.weight"),
        ({"pool": "gap", "attention": "axial"}, "blocks.0.attn.proj.bias, .* and others"),
    ],
)
def test_other_parameters_than_those_of_the_equations_are_refused(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(UsageError, match=f"equations 1 to 4; they differ in {names}"):
        difference(ViTSpec(**SMALL, **fields))


# --- few shots


def fewshot_effect(spec: ModelSpec) -> float:
    found = quantities(spec, ["fewshot_difference"], image_size=16, channels=3, num_classes=6)
    return found["fewshot_difference"]


@pytest.mark.parametrize("embed_dim", [12, 48], ids=["more images", "more features"])
def test_the_closed_form_is_where_descent_ends(embed_dim: int) -> None:
    assert fewshot_effect(ViTSpec(**{**SMALL, "embed_dim": embed_dim})) < 1e-9


@pytest.mark.parametrize("embed_dim", [12, 48], ids=["more images", "more features"])
def test_a_closed_form_with_another_penalty_is_noticed(embed_dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fewshot.fit
    monkeypatch.setattr(fewshot, "fit", lambda X, labels, K: fit(X, labels, K, 1.01 * fewshot.L2))
    assert fewshot_effect(ViTSpec(**{**SMALL, "embed_dim": embed_dim})) > 1e-4


def test_features_are_asked_of_our_models_only() -> None:
    with pytest.raises(UsageError, match="family vit, not of a resnet"):
        fewshot_effect(ResNetSpec(layers=(1,), block="basic", stem="small", width=8))


# --- the shipped files


@pytest.mark.slow
def test_every_quantity_of_the_shipped_experiments_can_be_measured() -> None:
    for path in sorted(CLAIMS.glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        for name, arm in content["arms"].items() if content["type"] == "analytic" else ():
            found = runner._count(AnalyticArm.model_validate(arm)).quantities
            assert found.keys() == set(arm["quantities"]), f"{path.stem}: {name}"
            assert all(math.isfinite(value) for value in found.values()), f"{path.stem}: {name}"


# --- permutation


@pytest.mark.parametrize("pool", ["cls", "gap"])
@pytest.mark.parametrize("pos_embed", get_args(PosEmbed))
def test_the_order_of_patches_matters_only_with_position_embeddings(pos_embed: str, pool: str) -> None:
    found = effect(pos_embed=pos_embed, pool=pool)
    assert found < 1e-13 if pos_embed == "none" else found > 1e-3


def test_the_permutation_effect_is_the_same_each_time_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = effect()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    assert effect() == first


@pytest.mark.parametrize(
    ("fields", "image_size", "message"),
    [
        ({}, 4, "a single patch"),
        ({"patch_size": 1, "hybrid": HybridStem(layers=(1,), width=32)}, 16, "cuts the image itself"),
        ({"embed_dim": 1280, "depth": 32, "num_heads": 16}, 16, "Use a smaller variant"),
    ],
)
def test_permutation_is_refused_where_it_means_nothing_or_costs_too_much(
    fields: dict[str, Any], image_size: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        effect(image_size, **fields)


def test_permuted_patches_are_whole_patches() -> None:
    image = torch.arange(4.0).reshape(1, 1, 2, 2).repeat_interleave(3, 2).repeat_interleave(3, 3)
    moved = permute_patches(image, torch.tensor([3, 0, 1, 2]), grid=2)
    assert moved[0, 0, ::3, ::3].tolist() == [[3, 0], [1, 2]]
    assert torch.equal(moved[:, :, :3, :3], torch.full((1, 1, 3, 3), 3.0))


def test_the_parameters_of_pre_training_have_its_hidden_layer_and_no_classifier() -> None:
    """Of B/16 with the authors' pre-logits layer in timm's older form: 85.8 of the encoder and 0.59 of the layer."""
    import timm

    spec = LibraryModelSpec(family="timm", name="vit_base_patch16_224")
    found = quantities(spec, ["pretrained_parameters_m"], **SHAPE)
    model = timm.create_model("vit_base_patch16_224", num_classes=0)
    hidden = torch.nn.Linear(768, 768)
    whole = sum(p.numel() for part in (model, hidden) for p in part.parameters())
    assert found == {"pretrained_parameters_m": whole / 1e6}
