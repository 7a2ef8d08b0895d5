"""Quantities of a model that need no training: read off its layers, counted while it runs, or computed.

Models are built on the meta device, where H/14 costs no memory; those of the last section run, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vitrepro.errors import RunError, UsageError
from vitrepro.flops import FLOPS_PER_MAC, forward_macs, training_flops
from vitrepro.measure import equations, fewshot, hooked
from vitrepro.models.build import build
from vitrepro.models.vit import AxialBlock, ViT
from vitrepro.recipe import LibraryModelSpec, ModelSpec, ViTSpec, check_grid
from vitrepro.spec import Quantity

COMPUTED_PARAMETERS_M = 100  # of the largest model that is run in float64; B/16 has 87 million
SHOTS = 5  # images of a class that a few-shot fit sees


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and the images it is meant for.

    Attributes:
        model: built on the meta device, in evaluation mode.
        images: seen in training, repetitions counted.
        evaluated_images: of forward passes alone.
        peak_tflops: 1e12 operations per second that the device does at most.
        batch_size: images at once, for estimates of memory, and counts where attention goes across them.
        compare_size: pixels per side of other images.
        baseline: another model, for the same images.
    """

    spec: ModelSpec
    model: nn.Module
    image_size: int
    channels: int
    num_classes: int
    images: float | None = None
    evaluated_images: float = 0.0
    peak_tflops: float | None = None
    batch_size: int = 1
    compare_size: int | None = None
    baseline: ModelSpec | None = None

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one image, counted, and checked against the formula where there is one."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.model(_images(self, self.batch_size))
        counted = counter.get_total_flops() // (FLOPS_PER_MAC * self.batch_size)
        formula = forward_macs(
            self.spec,
            image_size=self.image_size,
            channels=self.channels,
            num_classes=self.num_classes,
            batch_size=self.batch_size,
        )
        if formula is not None and formula != counted:
            raise RunError(
                f"{_name(self)}: the formula in vitrepro.flops gives {formula:,} multiply-accumulates, "
                f"the built model {counted:,}. One of the two is wrong"
            )
        return counted


def quantities(
    spec: ModelSpec,
    names: Iterable[Quantity],
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    images: float | None = None,
    evaluated_images: float = 0.0,
    peak_tflops: float | None = None,
    batch_size: int = 1,
    compare_size: int | None = None,
    baseline: ModelSpec | None = None,
) -> dict[str, float]:
    """The named quantities of the model that this spec builds.

    Args:
        images: seen in training, repetitions counted; for `training_exaflops` and `least_seconds`.
        evaluated_images: of forward passes alone; for `least_seconds`.
        peak_tflops: 1e12 operations per second that the device does at most; for `least_seconds`.
        batch_size: for `input_mb`, `activation_mb` and `total_mb`, and for counts where attention goes across it.
        compare_size: pixels per side of other images; for `side_exponent`.
        baseline: another model; for `patches_ratio` and `macs_ratio`.

    Raises:
        UsageError: the quantity does not exist for this model, or needs an argument that is not given.
        RunError: a count by formula and one on the built model differ, or an iterative fit does not converge.
    """
    model = _on_meta(spec, image_size, channels, num_classes)
    subject = Subject(
        spec,
        model,
        image_size,
        channels,
        num_classes,
        images,
        evaluated_images,
        peak_tflops,
        batch_size,
        compare_size,
        baseline,
    )
    return {name: float(QUANTITIES[name](subject)) for name in names}


def _on_meta(spec: ModelSpec, image_size: int, channels: int, num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return build(spec, image_size=image_size, channels=channels, num_classes=num_classes).eval()


# --- read off the layers


def encoder(subject: Subject) -> list[nn.Module]:
    """The encoder layers of our ViT or timm's, which name their parts alike."""
    kinds: tuple[type[nn.Module], ...] = (ViT,)
    if subject.spec.family == "timm":
        from timm.models.vision_transformer import VisionTransformer

        kinds = (ViT, VisionTransformer)
    if not isinstance(subject.model, kinds):
        raise UsageError(
            f"{_name(subject)} has no encoder layers to read: depth, embed_dim, mlp_dim, num_heads, tokens and "
            "patches are those of a Vision Transformer of family vit or timm"
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


def parameters(subject: Subject) -> float:
    """Trainable parameters, the classifier's included."""
    return sum(p.numel() for p in subject.model.parameters())


def parameters_m(subject: Subject) -> float:
    return parameters(subject) / 1e6


def pretrained_parameters_m(subject: Subject) -> float:
    """Million parameters with the hidden layer that pre-training has under its classifier, and without the classifier.

    Source: Section 3.1, whose head of pre-training has one hidden layer, as wide as the encoder (Table 1 counts so).
    """
    D = embed_dim(subject)
    classifier = (D + 1) * subject.num_classes
    return (parameters(subject) - classifier + D * D + D) / 1e6


def _same_in_all(subject: Subject, part: str, attribute: str) -> int:
    blocks = [b for layer in encoder(subject) for b in (layer.children() if isinstance(layer, AxialBlock) else [layer])]
    found = {getattr(block.get_submodule(part), attribute) for block in blocks}
    if len(found) != 1:
        raise UsageError(f"{_name(subject)} has layers with different {part}.{attribute}: {sorted(found)}")
    return found.pop()


def _name(subject: Subject) -> str:
    spec = subject.spec
    return f"{spec.family} {spec.name!r}" if isinstance(spec, LibraryModelSpec) else f"a {spec.family}"


# --- counted in one forward pass on the meta device


def tokens(subject: Subject) -> float:
    """Length of the sequence that reaches the first encoder layer."""
    first = encoder(subject)[0]
    lengths: list[int] = []
    with first.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1])), torch.no_grad():
        subject.model(_image(subject))
    return lengths[0]


def patches(subject: Subject) -> float:
    """Tokens made from the image: those of the sequence without the class token."""
    encoder(subject)  # refuses models whose patches are not counted here
    embed = subject.model.get_submodule("patch_embed")
    lengths: list[int] = []
    with embed.register_forward_hook(lambda _, __, output: lengths.append(output.shape[1])), torch.no_grad():
        subject.model(_image(subject))
    return lengths[0]


def forward_gmacs(subject: Subject) -> float:
    return subject.macs / 1e9


def training_exaflops(subject: Subject) -> float:
    """1e18 floating point operations for all images, products with the zeros around a map left out.

    Source: Table 6, whose ResNets have 3% to 4% more with those products; see `flops.training_flops`.
    """
    if subject.images is None:
        raise UsageError("training_exaflops needs images, the number seen in pre-training")
    size, channels, classes = subject.image_size, subject.channels, subject.num_classes
    needed = forward_macs(
        subject.spec,
        image_size=size,
        channels=channels,
        num_classes=classes,
        batch_size=subject.batch_size,
        padding=False,
    )
    return training_flops(subject.macs if needed is None else needed, subject.images) / 1e18


def least_seconds(subject: Subject) -> float:
    """Seconds that training on the images, and the forward passes beside it, take at the device's peak.

    A bound and no estimate: what runs reach is less than the peak, and operations other than products are left out.
    """
    if subject.peak_tflops is None:
        raise UsageError("least_seconds needs peak_tflops of the device")
    training = training_flops(subject.macs, subject.images or 0)
    operations = training + FLOPS_PER_MAC * subject.macs * subject.evaluated_images
    return operations / (subject.peak_tflops * 1e12)


def _image(subject: Subject) -> Tensor:
    return _images(subject, 1)


def _images(subject: Subject, number: int) -> Tensor:
    return torch.empty(number, subject.channels, subject.image_size, subject.image_size, device="meta")


# --- compared with another model, or other images


def patches_ratio(subject: Subject) -> float:
    return patches(subject) / patches(_baseline(subject, "patches_ratio"))


def macs_ratio(subject: Subject) -> float:
    return subject.macs / _baseline(subject, "macs_ratio").macs


def side_exponent(subject: Subject) -> float:
    """The power of the image side with which multiply-accumulates grow between two sizes.

    2 if the work is proportional to the number of pixels, 4 where attention is all of it.
    """
    size, other = subject.image_size, subject.compare_size
    if other is None or other == size:
        raise UsageError("side_exponent needs compare_size, a second image size")
    return math.log(_rebuilt(subject, subject.spec, other).macs / subject.macs) / math.log(other / size)


def _baseline(subject: Subject, quantity: Quantity) -> Subject:
    if subject.baseline is None:
        raise UsageError(f"{quantity} needs baseline, the model to compare with")
    return _rebuilt(subject, subject.baseline, subject.image_size)


def _rebuilt(subject: Subject, spec: ModelSpec, image_size: int) -> Subject:
    """The same task with another model or other images."""
    model = _on_meta(spec, image_size, subject.channels, subject.num_classes)
    return replace(subject, spec=spec, model=model, image_size=image_size)


# --- as a summary by forward hooks has it, in MB of 2**20 bytes; see `vitrepro.measure.hooked`


def hooked_parameters(subject: Subject) -> float:
    """Parameters of the modules that are called, without those that are no module's `weight` or `bias`."""
    return _summary(subject).parameters


def input_mb(subject: Subject) -> float:
    return _summary(subject).input_mb(subject.batch_size)


def parameter_mb(subject: Subject) -> float:
    return _summary(subject).parameter_mb


def activation_mb(subject: Subject) -> float:
    """What all modules return and its gradients; a ViT of ours is counted with one module for each step."""
    return _summary(subject).activation_mb(subject.batch_size)


def total_mb(subject: Subject) -> float:
    return _summary(subject).total_mb(subject.batch_size)


def _summary(subject: Subject) -> hooked.Summary:
    model = subject.model
    if isinstance(subject.spec, ViTSpec):
        shape = {"image_size": subject.image_size, "channels": subject.channels, "num_classes": subject.num_classes}
        with torch.device("meta"):
            model = hooked.StepwiseViT(subject.spec, **shape).eval()
    return hooked.summarise(model, _image(subject))


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
    with _computing(subject, "permutation_effect") as model:
        for name, parameter in model.named_parameters():
            if "pos_embed" in name or name == "cls_token":
                parameter.normal_()  # as large as a token
            elif name == "head.weight":
                parameter.normal_(std=parameter.shape[1] ** -0.5)
        image = _noise(subject, 1)
        cycle = torch.randperm(grid**2)
        order = torch.empty_like(cycle)
        order[cycle] = cycle.roll(1)  # one cycle through all patches: none keeps its place
        logits = model(image)
        moved = model(permute_patches(image, order, grid))
    return _relative(moved - logits, logits)


def permute_patches(images: Tensor, order: Tensor, grid: int) -> Tensor:
    """Images (B, C, S, S) whose patch i, in raster order, is patch order[i] of the given ones."""
    B, C, S, _ = images.shape
    p = S // grid
    patches = images.reshape(B, C, grid, p, grid, p).transpose(3, 4).reshape(B, C, grid**2, p, p)
    return patches[:, :, order].reshape(B, C, grid, grid, p, p).transpose(3, 4).reshape(B, C, S, S)


def encoder_difference(subject: Subject) -> float:
    """How far the model's logits are from those of the paper's equations, relative to the largest logit.

    Weights and image are random, from seed 0; no weight is left at zero or one. Only rounding remains if the
    model is what the equations say, about 1e-15 in float64.

    Raises:
        UsageError: other parameters than those of the equations, no Vision Transformer, or too large to run.
    """
    depth, heads = len(encoder(subject)), int(num_heads(subject))
    with _computing(subject, "encoder_difference") as model:
        weights = {{"pos_embed.table": "pos_embed"}.get(name, name): p for name, p in model.named_parameters()}
        if strange := sorted(weights.keys() ^ equations.names(depth)):
            raise UsageError(
                f"{_name(subject)} is not made of the parameters in equations 1 to 4; they differ in "
                f"{', '.join(strange[:3])}{' and others' if len(strange) > 3 else ''}"
            )
        for parameter in weights.values():
            if parameter.ndim == 1:  # of norms, and biases
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
        image = _noise(subject, 1)
        found = model(image)[0]
        expected = equations.logits(weights, image[0], depth=depth, num_heads=heads)
    return _relative(found - expected, expected)


def fewshot_difference(subject: Subject) -> float:
    """How far the scores of the few-shot fit in closed form are from those of an iterative one.

    On features that the model, with random weights, has of random images: 5 of each class to fit, and as many
    to score. Relative to the largest score; see `vitrepro.measure.fewshot`.

    Raises:
        UsageError: not a ViT of ours, or too large to run in float64.
        RunError: the iterative fit does not converge.
    """
    K = subject.num_classes
    with _computing(subject, "fewshot_difference") as model:
        if not isinstance(model, ViT):
            raise UsageError(f"fewshot_difference needs features of a model of family vit, not of {_name(subject)}")
        known, new = (model.features(_noise(subject, SHOTS * K)) for _ in range(2))
        standardise = fewshot.Standardise.of(known)
        known, new = standardise(known), standardise(new)
        labels = torch.arange(SHOTS * K) % K
        scores = new @ fewshot.fit(known, labels, K)
        iterated = new @ fewshot.fit_iteratively(known, labels, K)
    return _relative(iterated - scores, scores)


@contextmanager
def _computing(subject: Subject, quantity: Quantity) -> Iterator[nn.Module]:
    """The model on the CPU in float64, with its weights and all that is drawn meanwhile from seed 0."""
    if parameters_m(subject) > COMPUTED_PARAMETERS_M:
        raise UsageError(
            f"{quantity} runs the model in float64 and takes up to {COMPUTED_PARAMETERS_M} million "
            f"parameters; this one has {parameters_m(subject):.0f} million. Use a smaller variant"
        )
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        model = build(
            subject.spec,
            image_size=subject.image_size,
            channels=subject.channels,
            num_classes=subject.num_classes,
        )
        yield model.double().eval()


def _noise(subject: Subject, number: int) -> Tensor:
    return torch.randn(number, subject.channels, subject.image_size, subject.image_size).double()


def _relative(difference: Tensor, to: Tensor) -> float:
    return float(difference.abs().max() / to.abs().max())


QUANTITIES: dict[Quantity, Callable[[Subject], float]] = {
    "depth": depth,
    "embed_dim": embed_dim,
    "mlp_dim": mlp_dim,
    "num_heads": num_heads,
    "parameters": parameters,
    "parameters_m": parameters_m,
    "pretrained_parameters_m": pretrained_parameters_m,
    "tokens": tokens,
    "patches": patches,
    "patches_ratio": patches_ratio,
    "forward_gmacs": forward_gmacs,
    "macs_ratio": macs_ratio,
    "side_exponent": side_exponent,
    "training_exaflops": training_exaflops,
    "least_seconds": least_seconds,
    "hooked_parameters": hooked_parameters,
    "input_mb": input_mb,
    "parameter_mb": parameter_mb,
    "activation_mb": activation_mb,
    "total_mb": total_mb,
    "permutation_effect": permutation_effect,
    "encoder_difference": encoder_difference,
    "fewshot_difference": fewshot_difference,
}
