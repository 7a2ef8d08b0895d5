"""What a model says of every image of a split, each id once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vitrepro.arrays import Ints
from vitrepro.data.augment import normalize
from vitrepro.distributed import Arithmetic, autocast, gather_by_position, rank_and_world
from vitrepro.recipe import EVALUATION_BATCH, AugmentSpec


@torch.inference_mode()
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
    """The most likely class of every image, (N,); an evaluation counts these, and never averages batches.

    Several processes (torch.distributed) each take every world-size-th image and all receive the whole. Neither
    their number nor the batch size changes a prediction, but where attention goes across the batch: there an
    image's class depends on those around it in `images`, and a run evaluates it in one process, in batches as
    large as those of its training (`Recipe.eval_batch`).

    Args:
        images: uint8, (N, C, H, W), on any device; taken batch by batch in their order.

    Raises:
        ValueError: the processes' shares do not cover each image exactly once.
    """
    model.eval()
    rank, world = rank_and_world()
    n = len(images)
    mine = torch.arange(rank, n, world)
    predicted = torch.empty(len(mine), dtype=torch.int64, device=device)
    for start in range(0, len(mine), batch_size):
        batch = images[mine[start : start + batch_size].to(images.device)].to(device)
        with autocast(device, precision):
            logits = model(normalize(batch, augment, image_size))
        predicted[start : start + batch_size] = logits.float().argmax(1)
    return gather_by_position(mine.numpy(), predicted.cpu().numpy().astype(np.int64), n)
