"""What a model computes, by formula: multiply-accumulates (MACs) of its matrix products and convolutions.

The count of torch's `FlopCounterMode`, halved: normalisations, activations, softmax and additions are
left out. Nothing here loads torch, so that an experiment is costed before anything is built.
"""

from __future__ import annotations

from vitrepro.recipe import ModelSpec, ResNetSpec, ViTSpec, check_grid

FLOPS_PER_MAC = 2  # a multiplication and an addition
TRAINING_PASSES = 3  # forward, gradients of the activations, gradients of the weights


def forward_macs(
    spec: ModelSpec,
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    batch_size: int = 1,
    padding: bool = True,
) -> int | None:
    """Multiply-accumulates of one image's forward pass, or None for a model of timm or torchvision.

    Args:
        batch_size: images at once; an image costs more among many where attention goes across them.
        padding: count the products with the zeros around a map, which a convolution carries out and nothing comes of.

    Raises:
        ValueError: the patches of a ViT do not cover the image.
    """
    if isinstance(spec, ViTSpec):
        return _vit(spec, image_size, channels, num_classes, batch_size, padding)
    if isinstance(spec, ResNetSpec):
        return _resnet(spec, image_size, channels, num_classes, padding)
    return None


def executed_macs(
    spec: ModelSpec, *, image_size: int, channels: int, num_classes: int, batch_size: int = 1
) -> int | None:
    """What of `forward_macs` is computed: a ViT read off its first token skips the other tokens of its last layer.

    Raises:
        ValueError: the patches of a ViT do not cover the image.
    """
    macs = forward_macs(spec, image_size=image_size, channels=channels, num_classes=num_classes, batch_size=batch_size)
    if macs is None or not isinstance(spec, ViTSpec):
        return macs
    patch_size, D, depth, _, mlp_dim = spec.sizes
    T = check_grid(spec, image_size) ** 2 + (spec.pool == "cls")
    if spec.reads_one_place:  # every layer of one token, and without class token one patch
        layer = 4 * D * D + 2 * D * mlp_dim + 2 * batch_size * D
        patch = 0 if spec.pool == "cls" else patch_size**2 * channels * D
        return macs - (T - 1) * (depth * layer + patch)
    if not spec.reads_first_token:
        return macs
    skipped = (T - 1) * (2 * D * D + 2 * D * mlp_dim)  # queries and proj; fc1 and fc2
    skipped += 2 * (T - 1) * T * D  # queries with keys; weights with values
    return macs - skipped


def training_flops(macs: int, images: float) -> float:
    """Floating point operations of training on that many images, repetitions counted.

    6 per MAC and image: a MAC is two operations, and a backward pass costs twice the forward pass.

    Source: the convention under which the exaFLOPs of Table 6 follow from the models' sizes; the same
    as the 6 per parameter and token of Kaplan et al., arXiv 2001.08361, Section 2.1.
    """
    return float(FLOPS_PER_MAC * TRAINING_PASSES * macs * images)


def _vit(spec: ViTSpec, image_size: int, channels: int, num_classes: int, batch_size: int, padding: bool) -> int:
    patch_size, D, depth, _, mlp_dim = spec.sizes
    G = check_grid(spec, image_size)
    N = G**2  # patches
    T = N + 1 if spec.pool == "cls" else N  # tokens
    stem, features = 0, channels
    if spec.hybrid is not None:
        body = spec.hybrid
        stem, features = _body(body.layers, "bottleneck", "imagenet", body.width, image_size, channels, padding)
    patches = N * patch_size**2 * features * D
    dense = T * (4 * D * D + 2 * D * mlp_dim)  # qkv and proj; fc1 and fc2
    keys = batch_size if spec.attention == "batch" else T
    attention = 2 * T * keys * D  # queries with keys; weights with values
    if spec.attention == "axial":  # a layer is two, in which a patch attends to the G of its row or column
        dense, attention = 2 * dense, 2 * 2 * N * G * D
    if spec.pos_embed == "relative":
        attention += N * (2 * N - 1) * D  # queries with the embeddings of all offsets
    return stem + patches + depth * (dense + attention) + D * num_classes


def _resnet(spec: ResNetSpec, image_size: int, channels: int, num_classes: int, padding: bool) -> int:
    assert spec.layers is not None
    assert spec.block is not None
    body, features = _body(spec.layers, spec.block, spec.stem, spec.width, image_size, channels, padding)
    return body + features * num_classes


def _body(
    layers: tuple[int, ...], block: str, stem: str, width: int, image_size: int, channels: int, padding: bool
) -> tuple[int, int]:
    """Stem and stages of a residual network of any style: MACs and channels of the final map."""

    def products(side: int, kernel: int, out_side: int) -> int:
        """Of one kernel with one channel of a map of that side."""
        if padding:
            return (out_side * kernel) ** 2
        stride, before = -(-side // out_side), kernel // 2
        starts = (stride * i - before for i in range(out_side))
        return sum(min(start + kernel, side) - max(start, 0) for start in starts) ** 2

    if stem == "imagenet":
        side = _half(image_size)
        macs = products(image_size, 7, side) * channels * width
        side = _half(side)  # the pool
    else:
        side = image_size
        macs = products(side, 3, side) * channels * width
    features = width
    for i, blocks in enumerate(layers):
        mid = width * 2**i
        out = 4 * mid if block == "bottleneck" else mid
        for j in range(blocks):
            halve = i > 0 and j == 0
            out_side = _half(side) if halve else side
            if block == "bottleneck":
                macs += side**2 * features * mid  # 1x1, before the stride
                macs += products(side, 3, out_side) * mid * mid + out_side**2 * mid * out
            else:
                macs += products(side, 3, out_side) * features * mid + products(out_side, 3, out_side) * mid * mid
            if halve or features != out:
                macs += out_side**2 * features * out  # the shortcut's 1x1
            side, features = out_side, out
    return macs, features


def _half(side: int) -> int:
    return (side + 1) // 2
