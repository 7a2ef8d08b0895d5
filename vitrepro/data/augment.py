"""From stored pixels to what the model sees: whole batches at once, on the device they are on.

B images, C channels, H x W stored pixels, S pixels per side of the model's input. All random numbers are
drawn on the CPU, from the seed and the step, so that they are the same on every device and after a resume.
Each kind of change has its own columns of the table of random numbers: switching one off moves no other.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vitrepro.distributed import to_device
from vitrepro.randomness import derive
from vitrepro.recipe import AugmentSpec, ColorJitter, RandomResizedCrop

CROP_TRIES = 10  # as torchvision's RandomResizedCrop
GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma, as torchvision


def normalize(images: Tensor, spec: AugmentSpec, image_size: int) -> Tensor:
    """Images as evaluation sees them: resized if need be, (x / 255 - mean) / std; no randomness.

    Args:
        images: uint8, (B, C, H, W).

    Returns:
        float32, (B, C, S, S).
    """
    return _scaled(_resized(_unit(images), image_size), spec)


def augment(
    images: Tensor,
    labels: Tensor,
    spec: AugmentSpec,
    *,
    num_classes: int,
    image_size: int,
    seed: int,
    step: int,
    first: int = 0,
    batch_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """A training batch as the model sees it: crop, flip, colour jitter, resize, normalise, mixup, in this order.

    The random numbers belong to the position in the batch, so that processes that share a batch draw what one
    process would have drawn. Only mixup, which needs a partner, stays within each process's share.

    Args:
        images: uint8, (B, C, H, W).
        labels: int64, (B,).
        first: position in the batch of the first of these images.
        batch_size: of the whole batch; B where these images are all of it.
        image_size: S; other sizes are resized to it (bilinear, antialiased).

    Returns:
        float32 images, (B, C, S, S), and the targets: with mixup float32 class probabilities,
        (B, num_classes), otherwise the labels.
    """
    B = len(images)
    random = torch.Generator().manual_seed(derive(seed, "augment", step))
    whole, mine = batch_size or B, slice(first, first + B)
    place = torch.rand(whole, 3, generator=random)[mine]  # flip, row and column of the crop
    area_ratio = torch.rand(whole, CROP_TRIES, 2, generator=random)[mine]
    colour = torch.rand(whole, 4, generator=random)[mine]

    flipped = (place[:, 0] < 0.5) & spec.flip
    if spec.random_resized_crop:
        box = crop_boxes(spec.random_resized_crop, images.shape[2:], area_ratio, place[:, 1:])
        x = resized_crops(_unit(images), box, flipped, max(image_size, images.shape[-1]))
    else:
        x = _unit(shifted_crops(images, spec.crop_padding, place[:, 1:], flipped))
    if spec.color_jitter:
        x = color_jitter(x, spec.color_jitter, to_device(colour, x.device))
    x = _scaled(_resized(x, image_size), spec)
    if spec.mixup:
        purpose = f"mixup from {first}" if first else "mixup"
        return mixup(x, labels, spec.mixup, num_classes, derive(seed, purpose, step))
    return x, labels


# Geometry


def shifted_crops(images: Tensor, padding: int, place: Tensor, flipped: Tensor) -> Tensor:
    """Crops of the images' own size at a random place of the zero-padded images, some of them mirrored.

    Args:
        images: uint8, (B, C, H, W).
        place: from [0, 1), (B, 2); row and column of the crop.
        flipped: bool, (B,).
    """
    H, W = images.shape[2:]
    if not padding and not flipped.any():
        return images
    corner = (place * (2 * padding + 1)).long()  # (B, 2)
    rows = corner[:, :1] + torch.arange(H)  # (B, H)
    columns = corner[:, 1:] + torch.arange(W)  # (B, W)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    rows, columns = to_device(rows, images.device), to_device(columns, images.device)
    padded = F.pad(images, (padding,) * 4)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (B, H, W, C) before


def crop_boxes(
    spec: RandomResizedCrop, size: tuple[int, int] | torch.Size, area_ratio: Tensor, place: Tensor
) -> Tensor:
    """Random crops by area (uniform) and aspect ratio (log-uniform): the first of the tries that fits.

    Where none fits, the largest central crop with an allowed ratio, as torchvision does, of a pixel at least.

    Args:
        size: H, W.
        area_ratio: from [0, 1), (B, tries, 2).
        place: from [0, 1), (B, 2).

    Returns:
        int64, (B, 4): top, left, height, width.
    """
    H, W = size
    low, high = spec.scale
    area = H * W * (low + (high - low) * area_ratio[..., 0])  # (B, tries)
    log_low, log_high = math.log(spec.ratio[0]), math.log(spec.ratio[1])
    ratio = torch.exp(log_low + (log_high - log_low) * area_ratio[..., 1])
    width, height = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (width > 0) & (width <= W) & (height > 0) & (height <= H)
    first = fits.int().argmax(1, keepdim=True)  # 0 where none fits
    width, height = width.gather(1, first)[:, 0], height.gather(1, first)[:, 0]  # (B,)
    top = (place[:, 0] * (H - height + 1)).long()
    left = (place[:, 1] * (W - width + 1)).long()

    nearest = min(max(W / H, spec.ratio[0]), spec.ratio[1])
    whole_w, whole_h = min(W, max(1, round(H * nearest))), min(H, max(1, round(W / nearest)))
    whole = torch.tensor([(H - whole_h) // 2, (W - whole_w) // 2, whole_h, whole_w])
    return torch.where(fits.any(1, keepdim=True), torch.stack([top, left, height, width], 1), whole)


def resized_crops(x: Tensor, box: Tensor, flipped: Tensor, size: int) -> Tensor:
    """Each image's crop, enlarged to size x size (bilinear), some of them mirrored.

    Args:
        x: float, (B, C, H, W), not larger than size: there is nothing to antialias.
        box: top, left, height, width, (B, 4).
        flipped: bool, (B,).
    """
    H, W = x.shape[2:]
    top, left, height, width = box.float()[:, :, None].unbind(1)  # (B, 1) each
    centre = (torch.arange(size) + 0.5) / size  # (S,)
    across = torch.where(flipped[:, None], 1 - centre, centre)  # (B, S)
    # Clamped to the crop, not to the image: pixels outside the crop must not bleed in.
    rows = top + (centre * height - 0.5).clamp(min=0).minimum(height - 1)  # (B, S)
    columns = left + (across * width - 0.5).clamp(min=0).minimum(width - 1)
    y, z = 2 * rows / max(H - 1, 1) - 1, 2 * columns / max(W - 1, 1) - 1  # grid_sample's -1 .. 1
    y, z = to_device(y, x.device), to_device(z, x.device)  # not the grid, which is S times as large
    grid = torch.stack(torch.broadcast_tensors(z[:, None, :], y[:, :, None]), -1)  # (B, S, S, 2)
    return F.grid_sample(x, grid, mode="bilinear", align_corners=True)


# Colour


def color_jitter(x: Tensor, spec: ColorJitter, random: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue of each image changed by its own factors, in this order.

    Args:
        x: RGB in [0, 1], (B, 3, H, W).
        random: from [0, 1), (B, 4).
    """
    factor = (2 * random - 1)[:, :, None, None, None].unbind(1)  # four of (B, 1, 1, 1), from [-1, 1)
    if spec.brightness:
        x = (x * (1 + spec.brightness * factor[0])).clamp(0, 1)
    if spec.contrast:
        x = _blend(x, _grey(x).mean((1, 2, 3), keepdim=True), 1 + spec.contrast * factor[1])
    if spec.saturation:
        x = _blend(x, _grey(x), 1 + spec.saturation * factor[2])
    if spec.hue:
        x = _shift_hue(x, spec.hue * factor[3])
    return x


def _grey(x: Tensor) -> Tensor:
    r, g, b = x.unbind(1)
    return (GREY[0] * r + GREY[1] * g + GREY[2] * b)[:, None]


def _blend(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(x), x, share).clamp(0, 1)


def _shift_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Hue moved around the circle by shift, from [-0.5, 0.5]; value and saturation kept."""
    value = x.amax(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    r, g, b = x[:, :1], x[:, 1:2], x[:, 2:]
    safe = torch.where(chroma == 0, 1.0, chroma)
    sixth = torch.where(value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    # Back to RGB: channel n is value - chroma * clamp(min(k, 4 - k), 0, 1), k = (n + hue in sixths) mod 6.
    n = torch.arange(5.0, 0.0, -2.0, device=x.device)[None, :, None, None]  # 5, 3, 1
    k = (n + sixth + 6 * shift) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


# Mixing


def mixup(x: Tensor, labels: Tensor, alpha: float, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Each image mixed with another of the batch, its weight from Beta(alpha, alpha), and the mixed targets.

    Returns:
        (B, C, S, S) and class probabilities, (B, num_classes).
    """
    random = np.random.default_rng(seed)
    weight = to_device(torch.from_numpy(random.beta(alpha, alpha, len(x))).to(x.dtype), x.device)
    partner = to_device(torch.from_numpy(random.permutation(len(x))), x.device)
    targets = F.one_hot(labels, num_classes).to(x.dtype)
    mixed = torch.lerp(x[partner], x, weight[:, None, None, None])
    return mixed, torch.lerp(targets[partner], targets, weight[:, None])


# Scale


def _unit(images: Tensor) -> Tensor:
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}, expected uint8")
    return images.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _resized(x: Tensor, size: int) -> Tensor:
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)


def _scaled(x: Tensor, spec: AugmentSpec) -> Tensor:
    return x.sub_(spec.mean).div_(spec.std)  # in place: x was made here
