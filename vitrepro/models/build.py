"""Any model of a spec: float images (B, C, H, W) in, logits (B, num_classes) out.

Its weights are new; `vitrepro.weights.load` then puts released ones in their place.

timm and torchvision take seconds to import and are imported by those who use them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from vitrepro.errors import UsageError, did_you_mean
from vitrepro.models.resnet import resnet
from vitrepro.models.vit import ViT
from vitrepro.recipe import LibraryModelSpec, ModelSpec, ResNetSpec, ViTSpec


def build(spec: ModelSpec, *, image_size: int, channels: int, num_classes: int) -> nn.Module:
    """The model, initialised from torch's global generator, on the current default device (`meta` too).

    Args:
        image_size: pixels per side of the images it will see.

    Raises:
        UsageError: timm or torchvision has no such model, or not for such images.
        ValueError: the patches of a ViT do not cover the image.
    """
    if isinstance(spec, ViTSpec):
        return ViT(spec, image_size=image_size, channels=channels, num_classes=num_classes)
    if isinstance(spec, ResNetSpec):
        return resnet(spec, channels=channels, num_classes=num_classes)
    make = {"timm": _timm, "torchvision": _torchvision}[spec.family]
    try:
        return make(spec, image_size, channels, num_classes)
    except (AssertionError, TypeError, ValueError) as error:  # how these libraries refuse an argument
        images = f"{image_size} x {image_size} pixels and {channels} channels"
        raise UsageError(f"{spec.family} cannot build {spec.name!r} for images of {images}: {error}") from error


def _timm(spec: LibraryModelSpec, image_size: int, channels: int, num_classes: int) -> nn.Module:
    import timm
    from timm.models import get_pretrained_cfg, split_model_name_tag

    architecture, tag = split_model_name_tag(spec.name)
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise UsageError(f"timm has no model {architecture!r}{near}")
    if tag and spec.name not in (tagged := timm.list_models(f"{architecture}.*", pretrained=True)):
        raise UsageError(f"timm has no weights {spec.name!r}; it has {', '.join(tagged) or 'none'}")
    config = get_pretrained_cfg(spec.name)
    options: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    if spec.dropout:
        options |= {"pos_drop_rate": spec.dropout, "proj_drop_rate": spec.dropout}
    return timm.create_model(spec.name, pretrained=False, num_classes=num_classes, in_chans=channels, **options)


def _torchvision(spec: LibraryModelSpec, image_size: int, channels: int, num_classes: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)  # classifiers, without those for detection, video and segmentation
    if spec.name not in known:
        raise UsageError(f"torchvision has no classifier {spec.name!r}{did_you_mean(spec.name, known)}")
    if channels != 3:
        raise UsageError(
            f"torchvision's {spec.name!r} takes colour images, these have {channels} channel(s): use a model "
            "of family vit, resnet or timm"
        )
    options: dict[str, Any] = {}
    if spec.name.startswith("vit_"):
        options = {"image_size": image_size}
    elif spec.name.startswith("maxvit_"):
        options = {"input_size": (image_size, image_size)}
    elif spec.name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}  # or training would return more than logits
    return models.get_model(spec.name, weights=None, num_classes=num_classes, **options)
