from __future__ import annotations

from typing import Any, get_args

import pytest
import torch

from vitrepro.errors import RunError, UsageError
from vitrepro.measure import analytic
from vitrepro.measure.analytic import QUANTITIES, permute_patches, quantities
from vitrepro.recipe import HybridStem, LibraryModelSpec, ModelSpec, PosEmbed, ResNetSpec, ViTSpec
from vitrepro.spec import Quantity

SHAPE: dict[str, int] = {"image_size": 224, "channels": 3, "num_classes": 1000}
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
    names = [name for name in QUANTITIES if name != "permutation_effect"]
    found = quantities(spec, names, **SHAPE, images=1e6)
    assert list(found) == names
    assert found == pytest.approx(
        {
            "depth": 12,
            "embed_dim": 768,
            "mlp_dim": 3072,
            "num_heads": 12,
            "parameters_m": 86.567656,
            "tokens": 197,
            "forward_gmacs": 17.563828224,
            "training_exaflops": 0.105382969,
        }
    )


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
