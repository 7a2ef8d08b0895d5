from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vitrepro.catalog import DATASETS, DatasetName
from vitrepro.recipe import (
    RESNETS,
    VIT_DEPARTURES,
    VIT_SIZES,
    AugmentSpec,
    DataSpec,
    HybridStem,
    PosEmbed,
    RandomResizedCrop,
    Recipe,
    ResNetSpec,
    ResNetVariant,
    TrainSpec,
    ViTSpec,
    VitVariant,
    check_grid,
)

VIT = {"family": "vit", "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
RESNET = {"family": "resnet", "layers": [1, 1], "block": "basic", "width": 8}


def recipe(
    data: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    augment: dict[str, Any] | None = None,
) -> Recipe:
    """A small sound recipe with some values replaced; None takes a value away."""
    length = {"steps": 10, "batch_size": 8, "lr": 1e-3} | (train or {})
    return Recipe.model_validate(
        {
            "data": {"name": "digits"} | (data or {}),
            "model": model or VIT,
            "train": {k: v for k, v in length.items() if v is not None},
            "augment": augment or {},
        }
    )


def refused(words: str) -> Any:
    return pytest.raises(ValidationError, match=words)


# --- tables ---------------------------------------------------------------------------------------


def test_the_names_of_the_schema_agree_with_their_tables() -> None:
    assert set(get_args(DatasetName)) == set(DATASETS)
    assert set(get_args(ResNetVariant)) == set(RESNETS)
    assert {v.split("/")[0] for v in get_args(VitVariant)} == set(VIT_SIZES)


def test_every_position_embedding_of_the_schema_can_be_built() -> None:
    from vitrepro.models.posemb import POS_EMBED

    assert set(POS_EMBED) == set(get_args(PosEmbed))


def test_every_precision_but_auto_has_a_number_type() -> None:
    from vitrepro.distributed import DTYPES
    from vitrepro.recipe import Precision

    assert set(DTYPES) == set(get_args(Precision)) - {"auto"}


@pytest.mark.parametrize("name", get_args(TrainSpec.model_fields["optimizer"].annotation))
def test_every_optimizer_of_the_schema_is_built_by_its_name(name: str) -> None:
    from torch import nn

    from vitrepro.optim import build

    built = build(nn.Linear(2, 2), TrainSpec(steps=1, batch_size=1, lr=0.1, optimizer=name))  # type: ignore[arg-type]
    assert type(built).__name__.lower() == name


@pytest.mark.parametrize("name", get_args(TrainSpec.model_fields["schedule"].annotation))
def test_every_schedule_of_the_schema_gives_a_rate(name: str) -> None:
    from vitrepro.optim import learning_rate

    spec = TrainSpec(steps=10, batch_size=1, lr=0.1, schedule=name)  # type: ignore[arg-type]
    assert all(0 < learning_rate(s, 10, spec) <= 0.1 for s in range(10))


# --- data -----------------------------------------------------------------------------------------


def test_classes_are_the_whole_data_set_or_a_subset_of_it() -> None:
    assert DataSpec(name="cifar10").num_classes == 10
    assert DataSpec(name="cifar10", classes=(3, 5)).num_classes == 2
    subset = recipe(data={"name": "cifar10", "classes": [0, 9, 3]})
    assert (subset.train_size, subset.test_size) == (15_000, 3_000)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"classes": [1, 1]}, "holds a label twice"),
        ({"classes": [4]}, "at least two labels"),
        ({"classes": []}, "at least two labels"),
        ({"classes": [0, 10]}, r"holds \[10\], digits has labels 0 to 9"),
        ({"classes": [-1, 0]}, "greater than or equal to 0"),
        ({"train_images": 1001}, "train_images is 1001, digits has 1000"),
        ({"test_images": 798}, "test_images is 798, digits has 797"),
        ({"train_images": 0}, "greater than 0"),
        ({"train_images": True}, "true and false are no numbers"),
        ({"dev_fraction": 1.0}, "less than 1"),
        ({"train_images": 9}, "9 training images for 10 classes"),
        ({"train_images": 10, "dev_fraction": 0.2}, "8 training images for 10 classes"),
        ({"name": "mnist"}, "'digits', 'cifar10', 'cifar100', 'imagenette', 'pets' or 'flowers'"),
    ],
)
def test_data_that_is_not_there_is_refused(data: dict[str, Any], words: str) -> None:
    with refused(words):
        recipe(data=data)


def test_images_held_out_are_no_training_images() -> None:
    assert recipe(data={"dev_fraction": 0.1}).train_size == 900
    assert recipe(data={"train_images": 200, "dev_fraction": 0.25}).train_size == 150


def test_a_partial_test_set_does_not_change_what_a_complete_one_is() -> None:
    assert recipe(data={"test_images": 10}).test_size == 797


# --- length -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train_images", "epochs", "batch_size", "steps"),
    [(1000, 1, 100, 10), (1000, 3, 64, 47), (1000, 0.5, 100, 5), (100, 100, 64, 156), (10, 0.01, 64, 1)],
)
def test_epochs_are_rounded_to_steps_and_never_to_none(
    train_images: int, epochs: float, batch_size: int, steps: int
) -> None:
    made = recipe(
        data={"train_images": train_images}, train={"steps": None, "epochs": epochs, "batch_size": batch_size}
    )
    assert made.steps == steps


@given(st.integers(10, 1000), st.floats(0.01, 50), st.integers(1, 500))
def test_steps_differ_from_the_epochs_by_less_than_a_batch(images: int, epochs: float, batch_size: int) -> None:
    made = recipe(data={"train_images": images}, train={"steps": None, "epochs": epochs, "batch_size": batch_size})
    assert abs(made.steps * batch_size - epochs * images) <= batch_size


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"epochs": 1}, "give either steps or epochs"),
        ({"steps": None}, "give either steps or epochs"),
        ({"steps": -1}, "greater than 0"),
        ({"steps": True}, "true and false are no numbers"),
        ({"warmup_steps": 10}, "warmup_steps 10 leaves nothing of 10 steps"),
        ({"steps": None, "epochs": 0.1, "warmup_steps": 12}, "warmup_steps 12 leaves nothing of 12 steps"),
        ({"batch_size": 10, "micro_batch": 4}, "batch_size 10 is not a multiple of micro_batch 4"),
        ({"batch_size": 4, "micro_batch": 8}, "not a multiple"),
        ({"lr": 0}, "greater than 0"),
        ({"lr": float("nan")}, "finite number"),
        ({"lr": float("inf")}, "finite number"),
        ({"betas": [0.9, 1.0]}, "less than 1"),
        ({"precision": "fp8"}, "'auto', 'fp32', 'tf32', 'bf16' or 'fp16'"),
        ({"learning_rate": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_an_optimisation_that_cannot_be_done_is_refused(train: dict[str, Any], words: str) -> None:
    with refused(words):
        recipe(train=train)


def test_numbers_may_be_written_as_text() -> None:
    assert recipe(train={"lr": "1e-3", "steps": "10"}) == recipe()


def test_a_micro_batch_divides_the_batch() -> None:
    assert recipe(train={"batch_size": 12, "micro_batch": 4}).train.micro_batch == 4


# --- augmentation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ({"crop_padding": 1, "random_resized_crop": {}}, "two croppings"),
        ({"color_jitter": {"hue": 0.1}}, "needs colour images, digits has 1 channel"),
        ({"flip": 3}, "valid boolean"),
        ({"mixup": -0.1}, "greater than or equal to 0"),
    ],
)
def test_augmentation_that_cannot_be_done_is_refused(augment: dict[str, Any], words: str) -> None:
    with refused(words):
        recipe(augment=augment)


@pytest.mark.parametrize("crop", [{"scale": (0.5, 1.5)}, {"scale": (1.0, 0.5)}, {"ratio": (2.0, 1.0)}])
def test_a_crop_is_smallest_first_and_no_larger_than_the_image(crop: dict[str, Any]) -> None:
    with refused("smallest, largest"):
        RandomResizedCrop(**crop)


def test_yes_and_no_are_read_where_a_setting_is_on_or_off() -> None:
    assert AugmentSpec.model_validate({"flip": "yes"}).flip
    assert not AugmentSpec.model_validate({"flip": "no"}).flip


# --- models -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [  # patch_size, embed_dim, depth, num_heads, mlp_dim; Table 1 of the paper
        ("B/16", (16, 768, 12, 12, 3072)),
        ("L/32", (32, 1024, 24, 16, 4096)),
        ("H/14", (14, 1280, 32, 16, 5120)),
    ],
)
def test_a_variant_has_the_sizes_of_the_paper(variant: Any, sizes: tuple[int, ...]) -> None:
    assert ViTSpec(variant=variant).sizes == sizes


@pytest.mark.parametrize("variant", get_args(VitVariant))
def test_the_heads_of_every_variant_divide_its_width(variant: Any) -> None:
    _, embed_dim, _, num_heads, _ = ViTSpec(variant=variant).sizes
    assert embed_dim % num_heads == 0


def test_the_mlp_is_four_times_as_wide_unless_given() -> None:
    assert ViTSpec.model_validate(VIT).sizes[-1] == 64
    assert ViTSpec.model_validate({**VIT, "mlp_dim": 40}).sizes[-1] == 40


def test_a_variant_and_equal_sizes_are_no_clash() -> None:
    once = ViTSpec(variant="B/16")
    assert ViTSpec.model_validate(once.model_dump()) == once
    resnet = ResNetSpec(variant="R50")
    assert ResNetSpec.model_validate(resnet.model_dump()) == resnet


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"family": "vit", "variant": "B/16", "patch_size": 8}, "variant B/16 already fixes patch_size"),
        ({"family": "vit", "variant": "B/16", "depth": 6, "num_heads": 6}, "already fixes depth, num_heads"),
        ({"family": "vit", "variant": "B/17"}, "'B/16'"),
        ({"family": "vit"}, "missing: patch_size, embed_dim, depth, num_heads"),
        ({**VIT, "num_heads": 3}, "embed_dim 16 is not a multiple of num_heads 3"),
        ({**VIT, "embed_dim": 15, "num_heads": 3, "pos_embed": "learned_2d"}, "half of embed_dim, which is odd: 15"),
        ({**VIT, "embed_dim": 6, "num_heads": 3, "pos_embed": "sinusoid_2d"}, "a quarter of embed_dim 6 each"),
        ({**VIT, "pos_embed": "relative", "depth": 1}, "relative with pool cls and depth 1 is blind to position"),
        ({**VIT, "patch_size": 3}, "an image of 8 pixels is not covered by patches of 3"),
        ({**VIT, "patch_size": 16}, "an image of 8 pixels is not covered by patches of 16"),
        ({**VIT, "image_size": 10}, "an image of 10 pixels is not covered by patches of 4"),
        ({**VIT, "depth": 0}, "greater than 0"),
        ({**VIT, "depth": True}, "true and false are no numbers"),
        ({**VIT, "hybrid": {"width": 48}}, "32 groups, width 48 is not a multiple of 32"),
        ({**VIT, "hybrid": {"layers": []}}, "at least 1 item"),
        ({"family": "resnet", "variant": "R18", "layers": [1, 1]}, "variant R18 already fixes layers"),
        ({"family": "resnet", "variant": "R18", "block": "bottleneck"}, "variant R18 already fixes block"),
        ({"family": "resnet", "variant": "R18", "layers": 2}, "variant R18 already fixes layers"),
        ({"family": "resnet", "variant": ["R18"]}, "'R18'"),
        ({"family": "resnet", "variant": "R19"}, "'R18'"),
        ({"family": "resnet", "layers": [1, 1]}, "give a variant, or both layers and block"),
        ({**RESNET, "layers": []}, "at least 1 item"),
        ({**RESNET, "style": "bit"}, "defined for bottleneck blocks"),
        ({**RESNET, "style": "bit", "block": "bottleneck"}, "32 groups, width 8 is not a multiple of 32"),
        ({"family": "timm", "name": "resnet18", "variant": "R18"}, "Extra inputs"),
        ({"family": "vitt"}, "does not match any of the expected tags"),
        ({**VIT, "weights": "vit_base_patch16_224"}, "no timm name with its tag"),
        ({"family": "timm", "name": "resnet18", "weights": "../x.y"}, "no timm name with its tag"),
        ({"family": "timm", "name": "resnet18", "weights": "a.b/c"}, "no timm name with its tag"),
        ({**VIT, "weights": "a.b", "pos_embed": "none"}, "pos_embed learned_1d, pool cls and no hybrid"),
        ({**VIT, "weights": "a.b", "pool": "gap"}, "pos_embed learned_1d, pool cls and no hybrid"),
        ({**VIT, "weights": "a.b", "hybrid": {}}, "pos_embed learned_1d, pool cls and no hybrid"),
        ({**VIT, "weights": "a.b", "pool": "first"}, "pos_embed learned_1d, pool cls and no hybrid"),
        ({**VIT, "weights": "a.b", "attention": "batch"}, "fit the paper's ViT; this one has another attention"),
        ({**VIT, "weights": "a.b", "norm": "post"}, "this one has another norm"),
        ({**VIT, "weights": "a.b", "attention_scale": "inverted"}, "this one has another attention_scale"),
        ({**VIT, "weights": "a.b", "activation": "relu"}, "this one has another activation"),
        ({**VIT, "weights": "a.b", "layer_norm_eps": 1e-5}, "this one has another layer_norm_eps"),
        ({**VIT, "weights": "a.b", "init": "torch", "embed_init": "unit"}, "this one has another init, embed_init"),
        ({**VIT, "layer_init": "copied", "depth": 1}, "has no other to be a copy of"),
        ({**VIT, "layer_init": "copied", "depth": 2, "weights": "a.b"}, "this one has another layer_init"),
        ({**VIT, "attention_dropout_in_evaluation": True}, "needs an attention_dropout above 0"),
        ({**VIT, "attention_dropout": 1.0}, "less than 1"),
        ({**VIT, "norm": "post", "attention_norm": "unused"}, "with norm post there is none"),
        ({**VIT, "norm": "middle"}, "'pre' or 'post'"),
        ({**VIT, "attention": "batch", "pos_embed": "relative"}, "attention batch has none"),
        ({**VIT, "attention": "axial"}, "needs pool gap or first"),
        (
            {**VIT, "pool": "gap", "pos_embed": "none", "embed_init": "unit"},
            "neither class token nor learned positions",
        ),
        ({**VIT, "pool": "first", "pos_embed": "sinusoid_2d", "embed_init": "unit"}, "nor learned positions"),
        ({**VIT, "hybrid": {}, "init": "torch"}, "init torch is of plain layers"),
        ({**VIT, "layer_norm_eps": 0}, "greater than 0"),
        ({**RESNET, "weights": "a.b"}, "Extra inputs"),
        ({"family": "torchvision", "name": "resnet18", "weights": "a.b"}, "are for family timm"),
        ({"family": "torchvision", "name": "resnet18", "dropout": 0.1}, "are for family timm"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(model: dict[str, Any], words: str) -> None:
    with refused(words):
        recipe(model=model)


ACROSS = {**VIT, "attention": "batch", "pool": "first"}


def test_a_batch_across_which_attention_goes_is_not_cut() -> None:
    with refused(r"micro_batch 4 cuts the batch of 8 .* choose a smaller train\.batch_size"):
        recipe(model=ACROSS, train={"micro_batch": 4})
    recipe(model=ACROSS, train={"micro_batch": 8})
    recipe(train={"micro_batch": 4})


def test_images_are_evaluated_together_as_they_were_trained_only_where_attention_is_across_them() -> None:
    assert [recipe(model=ACROSS, train={"batch_size": n}).eval_batch for n in (8, 300)] == [8, 300]
    assert [recipe(train={"batch_size": n}).eval_batch for n in (8, 300)] == [256, 256]


@pytest.mark.parametrize("attention", ["batch", "axial"])
def test_measures_of_attention_need_an_image_whose_tokens_all_attend_to_each_other(attention: str) -> None:
    model = {**VIT, "attention": attention, "pool": "gap"}
    with refused(f"attention_low_max is of attention among all tokens of an image; attention {attention} is not"):
        Recipe.model_validate({**recipe(model=model).model_dump(), "measures": ["attention_low_max"]})
    Recipe.model_validate({**recipe(model=model).model_dump(), "measures": ["position_distance_correlation"]})


def test_released_weights_may_be_trained_with_attention_dropout() -> None:
    recipe(model={**VIT, "weights": "a.b", "attention_dropout": 0.1, "attention_dropout_in_evaluation": True})


def test_as_json_a_model_tells_the_departures_that_it_makes_and_as_values_all() -> None:
    made = ViTSpec.model_validate({**VIT, "norm": "post", "layer_norm_eps": 1e-5, "activation": "gelu"})
    assert made.departures == ("norm", "layer_norm_eps")
    assert {k: v for k, v in made.model_dump(mode="json").items() if k in VIT_DEPARTURES} == {
        "norm": "post",
        "layer_norm_eps": 1e-5,
    }
    assert set(VIT_DEPARTURES) < set(made.model_dump())
    assert ViTSpec.model_validate(made.model_dump(mode="json")) == made
    assert ViTSpec.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("change", [{"pool": "gap"}, {"depth": 2}, {"pos_embed": "learned_1d"}])
def test_a_relative_embedding_is_allowed_where_it_can_act(change: dict[str, Any]) -> None:
    ViTSpec.model_validate({**VIT, "pos_embed": "relative", "pool": "cls", "depth": 1} | change)


def test_a_relative_embedding_with_a_class_token_and_one_block_is_blind_to_position() -> None:
    import torch

    from vitrepro.models.vit import ViT

    blind = ViTSpec.model_validate({**VIT, "pos_embed": "relative", "pool": "gap", "depth": 1})
    blind = blind.model_copy(update={"pool": "cls"})  # past the check
    model = ViT(blind, image_size=8, channels=1, num_classes=10).double().eval()
    torch.nn.init.normal_(model.blocks[0].attn.pos_embed.table)  # type: ignore[union-attr, arg-type]
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    top, bottom = images.split(4, dim=2)
    with torch.no_grad():
        torch.testing.assert_close(model(images), model(torch.cat([bottom, top], dim=2)))


@pytest.mark.parametrize(
    ("model", "image_size", "cells"),
    [
        (ViTSpec(variant="B/16"), 224, 14),
        (ViTSpec(variant="H/14"), 224, 16),
        (ViTSpec(variant="B/16", patch_size=1, hybrid=HybridStem()), 224, 14),
        (ViTSpec(variant="B/16", patch_size=2, hybrid=HybridStem(layers=(1, 1), width=32)), 64, 4),
    ],
)
def test_a_grid_counts_patches_of_the_image_or_of_the_stems_feature_map(
    model: ViTSpec, image_size: int, cells: int
) -> None:
    assert check_grid(model, image_size) == cells


@given(st.integers(1, 64), st.integers(1, 256))
def test_a_grid_covers_the_image_or_is_refused(patch_size: int, image_size: int) -> None:
    model = ViTSpec.model_validate({**VIT, "patch_size": patch_size})
    if image_size % patch_size:
        with pytest.raises(ValueError, match="not covered"):
            check_grid(model, image_size)
    else:
        assert check_grid(model, image_size) * patch_size == image_size


def test_a_model_sees_the_images_of_the_data_set_unless_it_says_another_size() -> None:
    assert recipe().image_size == 8
    assert recipe(model={**VIT, "image_size": 16}).image_size == 16
    assert recipe(data={"name": "imagenette"}, model={**VIT, "patch_size": 16}).channels == 3


def test_a_recipe_is_what_its_dump_says() -> None:
    made = recipe(model={"family": "vit", "variant": "S/16", "image_size": 32}, augment={"random_resized_crop": {}})
    assert Recipe.model_validate(made.model_dump(mode="json")) == made
    assert Recipe.model_validate_json(made.model_dump_json()) == made


def test_a_recipe_never_changes() -> None:
    with refused("frozen"):
        recipe().train.lr = 1.0


# --- released weights and the grid of learning rates ----------------------------------------------

GRID = {"lr": None, "lr_grid": [1e-3, 1e-2, 1e-1]}
DEV = {"train_images": 200, "dev_fraction": 0.1}


@pytest.mark.parametrize(
    "model", [VIT, {"family": "timm", "name": "vit_base_patch16_384"}], ids=lambda model: model["family"]
)
def test_a_recipe_names_the_weights_that_it_starts_from(model: dict[str, Any]) -> None:
    name = "vit_base_patch16_224.orig_in21k"
    assert recipe(model=model).weights is None
    assert recipe(model={**model, "weights": name}).weights == name
    assert recipe(model=RESNET).weights is None


def test_a_grid_takes_the_place_of_the_learning_rate() -> None:
    assert recipe(DEV, train=GRID).train.lr is None
    for train, words in (
        ({**GRID, "lr": 1e-3}, "give either lr or lr_grid"),
        ({"lr": None}, "give either lr or lr_grid"),
        ({**GRID, "lr_grid": [1e-3]}, "at least 2"),
        ({**GRID, "lr_grid": [1e-3, 1e-2, 1e-3]}, "a rate twice"),
        ({**GRID, "lr_grid": [1e-3, 0.0]}, "greater than 0"),
    ):
        with refused(words):
            recipe(DEV, train=train)


@pytest.mark.parametrize("data", [{}, {"train_images": 200, "dev_fraction": 0.001}])
def test_a_grid_needs_images_to_judge_on(data: dict[str, Any]) -> None:
    with refused("judged on the dev split"):
        recipe(data, train=GRID)
    recipe(data)


def test_every_rate_is_tried_without_the_dev_split_and_the_best_trained_with_it() -> None:
    whole = recipe(DEV, train={**GRID, "steps": None, "epochs": 2.0})
    trial, final = whole.at_rate(1e-2), whole.refit(1e-2)
    assert (trial.train.lr, trial.train.lr_grid, final.train.lr, final.train.lr_grid) == (1e-2, None, 1e-2, None)
    assert (trial.train_size, trial.dev_images, trial.steps) == (180, 20, 45)
    assert (final.train_size, final.dev_images, final.steps) == (200, 0, 50)
    assert (whole.train_size, whole.dev_images, whole.steps) == (200, 20, 50)
    assert whole.total_steps == 3 * 45 + 50
    assert recipe().total_steps == recipe().steps == 10


def test_a_class_for_each_training_image_must_be_left_beside_the_dev_split() -> None:
    with refused("9 training images for 10 classes"):
        recipe({"train_images": 12, "dev_fraction": 0.25}, train=GRID)


@pytest.mark.parametrize("polyak", [0.0, 1.0, -0.5, True])
def test_an_average_keeps_a_share_of_itself_and_takes_one(polyak: Any) -> None:
    with refused("polyak"):
        recipe(train={"polyak": polyak})
    assert recipe(train={"polyak": 0.9999}).train.polyak == 0.9999


def test_the_data_sets_of_the_papers_transfers_have_their_published_sizes() -> None:
    sizes = {name: (i.train, i.test, i.num_classes) for name, i in DATASETS.items()}
    assert sizes["cifar100"] == (50_000, 10_000, 100)
    assert sizes["pets"] == (3_680, 3_669, 37)
    assert sizes["flowers"] == (1_020, 6_149, 102)


# --- epochs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "epochs", "ends"),
    [
        (100, 3, (12, 25, 38)),
        (96, 2, (12, 24)),
        (100, 2.5, (12, 25, 31)),
        (100, 0.5, (6,)),
        (100, 2.001, (12, 25)),
        (8, 3, (1, 2, 3)),
        (5, 3, ()),  # less than a step
        (100, 1e9, ()),
    ],
)
def test_epochs_end_at_the_step_that_is_nearest(images: int, epochs: float, ends: tuple[int, ...]) -> None:
    of = recipe(data={"train_images": images, "classes": [0, 1]}, train={"steps": None, "epochs": epochs})
    assert of.epoch_ends == ends
    assert not ends or ends[-1] == of.steps


def test_a_length_in_steps_has_no_epochs() -> None:
    assert recipe().epoch_ends == ()


@pytest.mark.parametrize(
    ("train", "data", "words"),
    [
        ({"evaluate_epochs": ["test"]}, {}, "evaluate_epochs needs a length in epochs, not in steps"),
        ({"steps": None, "epochs": 1, "evaluate_epochs": ["dev"]}, {}, "data.dev_fraction leaves that empty"),
        ({"steps": None, "epochs": 1, "keep": "best-on-dev"}, {"dev_fraction": 0.1}, "needs dev among evaluate_epochs"),
        ({"steps": None, "epochs": 1, "keep": "best-on-test", "evaluate_epochs": ["dev"]}, {}, "needs test among"),
        ({"steps": None, "epochs": 1, "evaluate_epochs": ["test", "test"]}, {}, "a split stands twice"),
        ({"steps": None, "epochs": 1, "evaluate_epochs": ["train"]}, {}, "'dev' or 'test'"),
        ({"steps": None, "epochs": 1, "evaluate_epochs": ["test"]}, {"train_images": 10, "classes": [0, 1]}, None),
        ({"steps": None, "epochs": 1, "patience": 2, "evaluate_epochs": ["test"]}, {}, "patience waits for a new best"),
        ({"steps": None, "epochs": 1, "patience": 0}, {}, "greater than 0"),
        ({"trainable": "head"}, {}, "trainable head needs model.weights"),
        (
            {"steps": None, "epochs": 3, "batch_size": 64, "evaluate_epochs": ["test"]},
            {"train_images": 10, "classes": [0, 1]},
            "epochs of a step or more",
        ),
        (
            {"steps": None, "epochs": 1, "lr": None, "lr_grid": [0.1, 0.2], "evaluate_epochs": ["dev"]},
            {"dev_fraction": 0.1},
            "goes with lr, not with lr_grid",
        ),
    ],
)
def test_evaluating_epochs_is_refused_where_it_cannot_be_honoured(
    train: dict[str, Any], data: dict[str, Any], words: str | None
) -> None:
    if words is None:
        recipe(data=data, train=train)
        return
    with refused(words):
        recipe(data=data, train=train)


def test_the_order_of_evaluated_splits_does_not_matter() -> None:
    made = [
        recipe(data={"dev_fraction": 0.1}, train={"steps": None, "epochs": 1, "evaluate_epochs": splits})
        for splits in (["dev", "test"], ["test", "dev"])
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("name", ["train_loss_epoch_1", "selection_gain"])
def test_a_measure_that_follows_from_the_epochs_is_not_listed(name: str) -> None:
    with refused(f"{name} follows from the epochs of every run and is not listed"):
        Recipe.model_validate({**recipe().model_dump(), "measures": [name]})


def test_the_share_of_clipped_steps_needs_a_norm_at_which_they_are() -> None:
    with refused("clipped_share .* needs train.clip_norm"):
        Recipe.model_validate({**recipe().model_dump(), "measures": ["clipped_share"]})
    Recipe.model_validate({**recipe(train={"clip_norm": 1.0}).model_dump(), "measures": ["clipped_share"]})


def test_measures_of_training_are_for_models_of_any_family() -> None:
    values = recipe(model=RESNET).model_dump()
    Recipe.model_validate({**values, "measures": ["confidence", "overconfidence", "gradient_norm_spread"]})
    with refused("attention_low_max is taken of models of family vit, not of family resnet"):
        Recipe.model_validate({**values, "measures": ["confidence", "attention_low_max"]})
    values["train"]["steps"] = 1
    with refused("gradient_norm_spread needs two steps or more"):
        Recipe.model_validate({**values, "measures": ["gradient_norm_spread"]})
