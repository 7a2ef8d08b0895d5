"""The same model elsewhere: timm's or torchvision's for a recipe of ours, or why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vitrepro.errors import UsageError
from vitrepro.recipe import RESNETS, LibraryModelSpec, Recipe, ResNetSpec, ViTSpec

if TYPE_CHECKING:
    from torch import nn

OPPONENTS = {
    "timm": "timm's model, loader and parts of its training script",
    "plain": "torchvision's model and transforms in a loop as tutorials write it",
}


def refusal(recipe: Recipe, opponent: str) -> str | None:
    """What of the recipe `timm` or `plain` has no counterpart of, or None."""
    model, library = recipe.model, {"timm": "timm", "plain": "torchvision"}[opponent]
    if recipe.augment.mixup:
        return "mixup"
    if recipe.train.polyak is not None:
        return "averaged weights (polyak)"
    if isinstance(model, LibraryModelSpec):
        return None if model.family == library else f"a model of {model.family}"
    if isinstance(model, ResNetSpec):
        if model.style != "bn" or model.width != 64:
            return f"a ResNet of style {model.style} and width {model.width}"
        known = [layers for layers, block in RESNETS.values() if block == model.block]
        return None if model.layers in known else f"a {model.block} ResNet of {model.layers} blocks"
    if model.attention == "batch" or model.pool == "first" or model.departures:
        changed = [*model.departures, *(k for k in ("attention", "pool") if getattr(model, k) in ("batch", "first"))]
        return f"a ViT of another {', '.join(changed)}"
    if model.hybrid or model.attention != "global" or model.attention_norm != "pre":
        return "a ViT with a hybrid stem, axial attention or an unused norm"
    if model.pos_embed not in (("none", "learned_1d") if library == "timm" else ("learned_1d",)):
        return f"position embeddings {model.pos_embed}"
    if library == "torchvision" and (model.pool != "cls" or not model.qkv_bias or not model.final_norm):
        return "a ViT without class token, biases of queries, or final norm"
    return None


def build(recipe: Recipe, opponent: str) -> nn.Module:
    """The opponent's model, on the current default device.

    Raises:
        UsageError: there is none; `refusal` says so beforehand.
    """
    if reason := refusal(recipe, opponent):
        raise UsageError(f"--against {opponent}: no counterpart of {reason}")
    model = recipe.model
    if isinstance(model, LibraryModelSpec):
        from vitrepro.models.build import build as of_library

        return of_library(
            model, image_size=recipe.image_size, channels=recipe.channels, num_classes=recipe.data.num_classes
        )
    if opponent == "timm":
        return _timm_vit(model, recipe) if isinstance(model, ViTSpec) else _timm_resnet(model, recipe)
    return _torchvision_vit(model, recipe) if isinstance(model, ViTSpec) else _torchvision_resnet(model, recipe)


def _timm_vit(spec: ViTSpec, recipe: Recipe) -> nn.Module:
    import timm

    patch_size, embed_dim, depth, num_heads, mlp_dim = spec.sizes
    pooled: dict[str, Any] = {}
    if spec.pool == "gap":
        pooled = {"global_pool": "avg", "class_token": False, "fc_norm": False}
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=recipe.image_size,
        patch_size=patch_size,
        in_chans=recipe.channels,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_dim / embed_dim,
        num_classes=recipe.data.num_classes,
        qkv_bias=spec.qkv_bias,
        pos_embed="learn" if spec.pos_embed == "learned_1d" else "none",
        final_norm=spec.final_norm,
        pos_drop_rate=spec.dropout,
        proj_drop_rate=spec.dropout,
        **pooled,
    )


def _timm_resnet(spec: ResNetSpec, recipe: Recipe) -> nn.Module:
    import timm
    from torch import nn

    (variant,) = (v for v, sizes in RESNETS.items() if sizes == (spec.layers, spec.block))
    model = timm.create_model(f"resnet{variant[1:]}", num_classes=recipe.data.num_classes, in_chans=recipe.channels)
    return _small_stem(model, recipe.channels, nn) if spec.stem == "small" else model


def _torchvision_vit(spec: ViTSpec, recipe: Recipe) -> nn.Module:
    from torch import nn
    from torchvision.models import VisionTransformer

    patch_size, embed_dim, depth, num_heads, mlp_dim = spec.sizes
    model = VisionTransformer(
        image_size=recipe.image_size,
        patch_size=patch_size,
        num_layers=depth,
        num_heads=num_heads,
        hidden_dim=embed_dim,
        mlp_dim=mlp_dim,
        dropout=spec.dropout,
        num_classes=recipe.data.num_classes,
    )
    if recipe.channels != 3:
        model.conv_proj = nn.Conv2d(recipe.channels, embed_dim, patch_size, patch_size)
    return model


def _torchvision_resnet(spec: ResNetSpec, recipe: Recipe) -> nn.Module:
    from torch import nn
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

    assert spec.layers is not None
    block = BasicBlock if spec.block == "basic" else Bottleneck
    model = ResNet(block, list(spec.layers), num_classes=recipe.data.num_classes)
    if spec.stem == "small":
        return _small_stem(model, recipe.channels, nn)
    if recipe.channels != 3:
        model.conv1 = nn.Conv2d(recipe.channels, 64, 7, 2, 3, bias=False)
    return model


def _small_stem(model: Any, channels: int, nn: Any) -> nn.Module:
    """3x3 kernels with stride 1 and no pool, as everybody changes a ResNet for small images."""
    model.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    return model
