"""What a model says of every image of a split, each id once, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vitrepro.arrays import Floats, Ints
from vitrepro.data.augment import normalize
from vitrepro.distributed import Arithmetic, autocast, gather_by_position, rank_and_world, to_device
from vitrepro.recipe import EVALUATION_BATCH, AugmentSpec


@dataclass(frozen=True, eq=False)
class Answers:
    """The most likely class of every image, (N,), and its probability."""

    predicted: Ints
    confidence: Floats


def predict(
    model: nn.Module,
    images: Tensor,
    augment: AugmentSpec,
    *,
    image_size: int,
    device: str,
    precision: Arithmetic,
    batch_size: int = EVALUATION_BATCH,
) -> Ints:
    """The most likely class of every image, (N,); see `answers`."""
    return answers(
        model, images, augment, image_size=image_size, device=device, precision=precision, batch_size=batch_size
    ).predicted


@torch.inference_mode()
def answers(
    model: nn.Module,
    images: Tensor,
    augment: AugmentSpec,
    *,
    image_size: int,
    device: str,
    precision: Arithmetic,
    batch_size: int = 256,
) -> Answers:
    """What the model says of every image; an evaluation counts this, and never averages batches.

    Several processes (torch.distributed) each take every world-size-th image and all receive the whole. Neither
    their number nor the batch size changes a prediction, but where attention goes across the batch: there an
    image's class depends on those around it in `images`, and a run evaluates it in one process, in batches as
    large as those of its training (`Recipe.eval_batch`). Dropout that stays on in evaluation draws from the device's
    generator, so that both do change what it drops.

    Args:
        images: uint8, (N, C, H, W), on any device; taken batch by batch in their order.

    Raises:
        ValueError: the processes' shares do not cover each image exactly once.
    """
    model.eval()
    rank, world = rank_and_world()
    n = len(images)
    mine = torch.arange(rank, n, world, device=images.device)
    predicted = torch.empty(len(mine), dtype=torch.int64, device=device)
    confidence = torch.empty(len(mine), dtype=torch.float32, device=device)
    for start in range(0, len(mine), batch_size):
        batch = to_device(images[mine[start : start + batch_size]], device)
        with autocast(device, precision):
            logits = model(normalize(batch, augment, image_size)).float()
        predicted[start : start + batch_size] = logits.argmax(1)
        confidence[start : start + batch_size] = logits.softmax(1).amax(1)
    positions = np.arange(rank, n, world)
    return Answers(
        gather_by_position(positions, predicted.cpu().numpy().astype(np.int64), n),
        gather_by_position(positions, confidence.cpu().numpy().astype(np.float64), n),
    )
