"""Measures of a trained Vision Transformer: one number each, of what it learned rather than how well it does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from vitrepro.distributed import autocast
from vitrepro.errors import RunError, UsageError
from vitrepro.measure import attention, positions
from vitrepro.measure.attention import among_patches, attention_log_weights, of_class_token
from vitrepro.recipe import MeasureName

BATCH_SIZE = 8  # queries and keys of all layers are held at once: about half a gigabyte for L/16 at 224 pixels


@dataclass(frozen=True, eq=False)
class Attended:
    """What a model attends to, averaged over images.

    Attributes:
        distance: of each head, (L, H), lowest layer first, as a share of uniform attention's.
        class_entropy: of the class token's attention over patches in the last layer, in nats, averaged over
            heads too; None without a class token.
    """

    distance: Tensor
    class_entropy: float | None


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model and the images it is shown; what it attends to is computed once, when first asked for.

    Attributes:
        model: in evaluation mode, in float32.
        images: as the model sees them, normalised, (B, C, S, S), on any device.
        patch_size: pixels of the image per side that a token stands for, also in a hybrid.
        grid: patches per side; S = grid * patch_size.
    """

    model: nn.Module
    images: Tensor
    patch_size: int
    grid: int

    @cached_property
    def position_table(self) -> Tensor:
        return positions.position_table(self.model)

    @cached_property
    def attended(self) -> Attended:
        """What the model attends to in these images.

        Raises:
            UsageError: its attention cannot be read, or there is a single patch to attend to.
        """
        encoder = attention.encoder(self.model)
        uniform = attention.uniform_distance(self.grid, self.patch_size)
        if uniform == 0:
            raise UsageError("measures of attention need several patches; the image is a single one to this model")
        device = next(self.model.parameters()).device
        distances, entropies = [], []
        for batch in self.images.split(BATCH_SIZE):
            layers = []
            for log_weights in attention_log_weights(self.model, batch.to(device)):
                among = among_patches(log_weights, encoder.prefix)
                layers.append(attention.attention_distance(among, self.grid, self.patch_size))  # (B, H)
            distances.append(torch.stack(layers, dim=1).cpu())  # (B, L, H)
            if encoder.class_token:  # log_weights are the last layer's here
                of_class = of_class_token(log_weights, encoder.prefix)
                entropies.append(attention.attention_entropy(of_class).cpu())  # (B, H)
        distance = torch.cat(distances).double().mean(0) / uniform
        return Attended(distance, torch.cat(entropies).double().mean().item() if entropies else None)


def measure(
    model: nn.Module, images: Tensor, names: Iterable[MeasureName], *, patch_size: int, grid: int
) -> dict[str, float]:
    """The named measures of a trained model, computed in float32 on its device; the model is left in eval mode.

    Args:
        images: as the model sees them, normalised, (B, C, S, S), on any device.
        patch_size: pixels of the image per side that a token stands for, also in a hybrid.
        grid: patches per side.

    Raises:
        UsageError: the measure does not exist for this model.
        RunError: it came out as no finite number.
        ValueError: no images, or the patches do not cover them.
    """
    if len(images) == 0:
        raise ValueError("no images to show the model")
    if images.shape[-2:] != (grid * patch_size, grid * patch_size):
        height, width = images.shape[-2:]
        raise ValueError(f"{grid}x{grid} patches of {patch_size} pixels do not cover images of {height}x{width}")
    subject = Subject(model.eval(), images, patch_size, grid)
    device = next(model.parameters()).device
    measured: dict[str, float] = {}
    # what the caller trains in says nothing about the precision of a measurement
    with (
        torch.no_grad(),
        autocast(str(device), "fp32"),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
    ):
        for name in names:
            value = float(MEASURES[name](subject))
            if not math.isfinite(value):
                raise RunError(
                    f"{name} came out as {value}: the model's weights are not finite, or what it correlates is "
                    "the same everywhere. Look at the loss of its training"
                )
            measured[name] = value
    return measured


def entropy_share(subject: Subject) -> float:
    """Entropy of the class token's attention in the last layer, as a share of that of attending to all alike.

    Raises:
        UsageError: there is no class token.
    """
    entropy = subject.attended.class_entropy
    if entropy is None:
        raise UsageError(
            "attention_entropy_share is of the class token's attention, and this model has no class token: "
            "use a model with pool cls"
        )
    return entropy / math.log(subject.grid**2)


MEASURES: dict[MeasureName, Callable[[Subject], float]] = {
    "position_distance_correlation": lambda s: positions.distance_correlation(s.position_table, s.grid),
    "position_row_column_excess": lambda s: positions.row_column_excess(s.position_table, s.grid),
    "position_sinusoid_peak": lambda s: positions.sinusoid_peak(s.position_table, s.grid),
    "attention_low_max": lambda s: attention.low_max(s.attended.distance),
    "attention_low_min": lambda s: attention.low_min(s.attended.distance),
    "attention_depth_correlation": lambda s: attention.depth_correlation(s.attended.distance),
    "attention_low_spread_excess": lambda s: attention.low_spread_excess(s.attended.distance),
    "attention_wide_share_second_half": lambda s: attention.wide_share_second_half(s.attended.distance),
    "attention_entropy_share": entropy_share,
}
