"""Quantities of a model that need no training: read off its layers, or counted while it runs.

Models are built on the meta device, where H/14 costs no memory; only `permutation_effect` computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitrepro.errors import RunError, UsageError
from vitrepro.flops import FLOPS_PER_MAC, forward_macs, training_flops
from vitrepro.models.build import build
from vitrepro.models.vit import ViT
from vitrepro.recipe import LibraryModelSpec, ModelSpec, ViTSpec, check_grid
from vitrepro.spec import Quantity

COMPUTED_PARAMETERS_M = 100  # of the largest model that is run in float64; B/16 has 87 million


@dataclass(frozen=True)
class Subject:
    """A model and the images it is meant for.

    Attributes:
        model: built on the meta device, in evaluation mode.
        images: seen in training, repetitions counted.
    """

    spec: ModelSpec
    model: nn.Module
    image_size: int
    channels: int
    num_classes: int
    images: float | None


def quantities(
    spec: ModelSpec,
    names: Iterable[Quantity],
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    images: float | None = None,
) -> dict[str, float]:
    """The named quantities of the model that this spec builds.

    Args:
        images: seen in training, repetitions counted; for `training_exaflops`.

    Raises:
        UsageError: the quantity does not exist for this model, or needs `images`.
        RunError: a count by formula and one on the built model differ.
    """
    shape = {"image_size": image_size, "channels": channels, "num_classes": num_classes}
    with torch.device("meta"):
        model = build(spec, **shape).eval()
    subject = Subject(spec, model, **shape, images=images)
    return {name: float(QUANTITIES[name](subject)) for name in names}


# --- read off the layers


def encoder(subject: Subject) -> list[nn.Module]:
    """The encoder layers of our ViT or timm's, which name their parts alike."""
    kinds: tuple[type[nn.Module], ...] = (ViT,)
    if subject.spec.family == "timm":
        from timm.models.vision_transformer import VisionTransformer

        kinds = (ViT, VisionTransformer)
    if not isinstance(subject.model, kinds):
        raise UsageError(
            f"{_name(subject)} has no encoder layers to read: depth, embed_dim, mlp_dim, num_heads and "
            "tokens are those of a Vision Transformer of family vit or timm"
        )
    return list(subject.model.get_submodule("blocks").children())


def depth(subject: Subject) -> float:
    return len(encoder(subject))


def embed_dim(subject: Subject) -> float:
    return _same_in_all(subject, "attn.qkv", "in_features")


def mlp_dim(subject: Subject) -> float:
    return _same_in_all(subject, "mlp.fc1", "out_features")


def num_heads(subject: Subject) -> float:
    return _same_in_all(subject, "attn", "num_heads")


def parameters_m(subject: Subject) -> float:
    """Trainable parameters in millions, the classifier's included."""
    return sum(p.numel() for p in subject.model.parameters()) / 1e6


def _same_in_all(subject: Subject, part: str, attribute: str) -> int:
    found = {getattr(block.get_submodule(part), attribute) for block in encoder(subject)}
    if len(found) != 1:
        raise UsageError(f"{_name(subject)} has layers with different {part}.{attribute}: {sorted(found)}")
    return found.pop()


def _name(subject: Subject) -> str:
    spec = subject.spec
    return f"{spec.family} {spec.name!r}" if isinstance(spec, LibraryModelSpec) else f"a {spec.family}"


# --- counted in one forward pass on the meta device


def tokens(subject: Subject) -> float:
    """Length of the sequence that reaches the first encoder layer."""
    lengths: list[int] = []
    first = encoder(subject)[0]
    hook = first.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    with hook, torch.no_grad():
        subject.model(_image(subject))
    return lengths[0]


def forward_gmacs(subject: Subject) -> float:
    return _macs(subject) / 1e9


def training_exaflops(subject: Subject) -> float:
    """1e18 floating point operations for all images; see `flops.training_flops`."""
    if subject.images is None:
        raise UsageError("training_exaflops needs images, the number seen in pre-training")
    return training_flops(_macs(subject), subject.images) / 1e18


def _image(subject: Subject) -> Tensor:
    return torch.empty(1, subject.channels, subject.image_size, subject.image_size, device="meta")


def _macs(subject: Subject) -> int:
    """Multiply-accumulates counted while one image passes, checked against the formula where there is one."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        subject.model(_image(subject))
    counted = counter.get_total_flops() // FLOPS_PER_MAC
    formula = forward_macs(
        subject.spec,
        image_size=subject.image_size,
        channels=subject.channels,
        num_classes=subject.num_classes,
    )
    if formula is not None and formula != counted:
        raise RunError(
            f"{_name(subject)}: the formula in vitrepro.flops gives {formula:,} multiply-accumulates, "
            f"the built model {counted:,}. One of the two is wrong"
        )
    return counted


# --- computed


def permutation_effect(subject: Subject) -> float:
    """How far the logits move when an image's patches change places, relative to the largest logit.

    Without position embeddings the patches are a set and only rounding remains, about 1e-15 in float64.
    Weights, position embeddings, head and image are random, from seed 0; every patch moves.

    Raises:
        UsageError: not a ViT of ours on plain patches, a single patch, or too large to run in float64.
    """
    spec = subject.spec
    if not isinstance(spec, ViTSpec) or spec.hybrid is not None:
        raise UsageError("permutation_effect needs a model of family vit that cuts the image itself into patches")
    grid = check_grid(spec, subject.image_size)
    if grid == 1:
        raise UsageError(f"permutation_effect: an image of {subject.image_size} pixels is a single patch here")
    if parameters_m(subject) > COMPUTED_PARAMETERS_M:
        raise UsageError(
            f"permutation_effect runs the model in float64 and takes up to {COMPUTED_PARAMETERS_M} million "
            f"parameters; this one has {parameters_m(subject):.0f} million. Use a smaller variant"
        )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        model = build(
            spec,
            image_size=subject.image_size,
            channels=subject.channels,
            num_classes=subject.num_classes,
        )
        model = model.double().eval()
        for name, parameter in model.named_parameters():
            if "pos_embed" in name or name == "cls_token":
                parameter.normal_()  # as large as a token
            elif name == "head.weight":
                parameter.normal_(std=parameter.shape[1] ** -0.5)
        image = torch.randn(1, subject.channels, subject.image_size, subject.image_size).double()
        cycle = torch.randperm(grid**2)
        order = torch.empty_like(cycle)
        order[cycle] = cycle.roll(1)  # one cycle through all patches: none keeps its place
        logits = model(image)
        moved = model(permute_patches(image, order, grid))
    return float((moved - logits).abs().max() / logits.abs().max())


def permute_patches(images: Tensor, order: Tensor, grid: int) -> Tensor:
    """Images (B, C, S, S) whose patch i, in raster order, is patch order[i] of the given ones."""
    B, C, S, _ = images.shape
    p = S // grid
    patches = images.reshape(B, C, grid, p, grid, p).transpose(3, 4).reshape(B, C, grid**2, p, p)
    return patches[:, :, order].reshape(B, C, grid, grid, p, p).transpose(3, 4).reshape(B, C, S, S)


QUANTITIES: dict[Quantity, Callable[[Subject], float]] = {
    "depth": depth,
    "embed_dim": embed_dim,
    "mlp_dim": mlp_dim,
    "num_heads": num_heads,
    "parameters_m": parameters_m,
    "tokens": tokens,
    "forward_gmacs": forward_gmacs,
    "training_exaflops": training_exaflops,
    "permutation_effect": permutation_effect,
}
