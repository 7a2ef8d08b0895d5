"""Where a Vision Transformer attends: its attention weights, read while it runs, and what they sum up to.

B: images, L: layers, H: heads, T: tokens, N: patches, in raster order; `grid` of them per side, N = grid**2.
`prefix` counts the tokens before the patches: the class token, and registers in some of timm's models.

Source: Section 4.5, Appendices D.7 and D.8; google-research/vision_transformer#162 (distance) and #18 (roll-out).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitrepro.errors import UsageError
from vitrepro.measure.positions import offsets
from vitrepro.models.vit import Attention, Block, ViT

WIDE = 0.7  # of uniform attention's distance


# --- read off a model


@dataclass(frozen=True)
class Encoder:
    """What of a Vision Transformer is needed to read its attention.

    Attributes:
        layers: the attention of each, lowest first, ours or timm's.
        prefix: tokens before the patches.
        class_token: whether the first of these is one.
    """

    layers: list[Any]
    prefix: int
    class_token: bool


def encoder(model: nn.Module) -> Encoder:
    """The encoder of our ViT or of timm's VisionTransformer.

    Raises:
        UsageError: another kind of model, or another kind of attention.
    """
    if isinstance(model, ViT) and all(isinstance(block, Block) for block in model.blocks):
        blocks = [block for block in model.blocks if isinstance(block, Block)]
        cls = model.cls_token is not None
        return Encoder([block.attn for block in blocks], int(cls), cls)
    from timm.models import vision_transformer as timm_vit

    if isinstance(model, timm_vit.VisionTransformer):
        layers = [getattr(block, "attn", None) for block in model.blocks]
        if all(isinstance(layer, timm_vit.Attention) for layer in layers):
            return Encoder(layers, model.num_prefix_tokens, model.has_class_token)
    raise UsageError(
        f"the attention of a {type(model).__name__} cannot be read: measures of attention need a Vision "
        "Transformer of family vit, or one of timm's with its plain self-attention"
    )


def attention_weights(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """Each layer's attention weights for these images, (B, H, T, T), lowest layer first; rows sum to 1.

    Raises:
        UsageError: not a model whose attention can be read.
    """
    return (log_weights.exp() for log_weights in attention_log_weights(model, images))


@torch.no_grad()
def attention_log_weights(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """Logarithms of each layer's attention weights, of which none vanishes however small the weight.

    The model runs once, as it always does, and is only watched; the weights are then computed again from its
    queries and keys, one layer at a time, since fused kernels never hold them.

    Args:
        model: in evaluation mode, since dropout of weights is not repeated.

    Raises:
        UsageError: not a model whose attention can be read.
    """
    layers = encoder(model).layers
    outputs: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.qkv.register_forward_hook(lambda _, __, output: outputs.append(output)))
        model(images)
    for layer, output in zip(layers, outputs, strict=True):
        yield _log_softmax(layer, output)


def _log_softmax(layer: Any, qkv: Tensor) -> Tensor:
    """Logarithm of what `layer` weighs its values with, (B, H, T, T), from queries, keys and values (B, T, 3 H d)."""
    B, T, _ = qkv.shape
    q, k, _ = qkv.reshape(B, T, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
    if isinstance(layer, Attention):
        q = q * layer.scale
        logits = q @ k.transpose(-2, -1)
        if layer.pos_embed is not None:
            logits = logits + layer.pos_embed(q)
    else:
        q, k = layer.q_norm(q), layer.k_norm(k)  # the identity in most of timm's models
        logits = (q * layer.scale) @ k.transpose(-2, -1)
    return logits.log_softmax(dim=-1)


# --- what the weights sum up to


def among_patches(log_weights: Tensor, prefix: int) -> Tensor:
    """Weights without other tokens than patches, rows summing to 1 again: (B, H, N, N) from logarithms (B, H, T, T)."""
    return log_weights[..., prefix:, prefix:].softmax(-1)


def of_class_token(log_weights: Tensor, prefix: int) -> Tensor:
    """How the class token weighs the patches, without other tokens, summing to 1 again: (B, H, N) from logarithms."""
    return log_weights[..., 0, prefix:].softmax(-1)


def attention_distance(weights: Tensor, grid: int, patch_size: int) -> Tensor:
    """Mean distance each head attends over in each image, in pixels.

    The paper does not say what becomes of the class token, which is nowhere in the image; here it is removed.

    Args:
        weights: attention among patches, (B, H, N, N); class token removed, rows sum to 1.
        patch_size: pixels per side.

    Returns:
        (B, H)

    Raises:
        ValueError: N is not grid**2.

    Source: Figure 7 (right), Appendix D.7.
    """
    if weights.shape[-1] != grid**2:
        raise ValueError(f"weights cover {weights.shape[-1]} patches, expected {grid}x{grid} = {grid**2}")
    rows, columns = offsets(grid, weights.device)
    distance = patch_size * torch.hypot(rows.float(), columns.float())  # (N, N), between centres
    return (weights * distance).sum(-1).mean(-1)


def uniform_distance(grid: int, patch_size: int) -> float:
    """The distance, in pixels, of a head that attends to all patches alike."""
    N = grid**2
    return attention_distance(torch.full((1, 1, N, N), 1 / N), grid, patch_size).item()


def attention_rollout(weights: Iterable[Tensor]) -> Tensor:
    """How much of each input token reaches each output token through attention and residual connections.

    Heads are averaged, the identity is added for the residual connection, rows are made to sum to 1, and
    the layers are multiplied.

    Args:
        weights: of each layer, lowest first, (B, H, T, T).

    Returns:
        (B, T, T), output token by input token; rows sum to 1.

    Raises:
        ValueError: no layers.

    Source: Figure 6, Appendix D.8; Abnar and Zuidema, arXiv 2005.00928.
    """
    rollout = None
    for layer in weights:
        mixed = layer.mean(1) + torch.eye(layer.shape[-1], device=layer.device)
        mixed = mixed / mixed.sum(-1, keepdim=True)
        rollout = mixed if rollout is None else mixed @ rollout
    if rollout is None:
        raise ValueError("a roll-out needs the weights of at least one layer")
    return rollout


def attention_entropy(weights: Tensor) -> Tensor:
    """Entropy of attention distributions, over the last dimension, in nats: 0 for one patch, log N for all alike."""
    return torch.special.entr(weights).sum(-1)


# --- what the distances say of a model
#
# distance: (L, H), lowest layer first, as a share of uniform attention's.


def low_max(distance: Tensor) -> float:
    """The widest head of the lowest third of layers."""
    return distance[: _third(distance)].max().item()


def low_min(distance: Tensor) -> float:
    """The most local head of the lowest third of layers."""
    return distance[: _third(distance)].min().item()


def depth_correlation(distance: Tensor) -> float:
    """Spearman correlation of a layer's place and the mean distance of its heads.

    Raises:
        UsageError: a single layer.
    """
    from scipy.stats import spearmanr

    _half(distance, "attention_depth_correlation")
    mean = distance.mean(1).cpu().numpy()
    return float(spearmanr(range(len(mean)), mean).statistic)


def low_spread_excess(distance: Tensor) -> float:
    """Standard deviation between the heads of a layer, in the first half of layers less that in the second.

    It is the sample's (H - 1), averaged over the layers of each half; the middle one of an odd number is in
    neither.

    Raises:
        UsageError: a single layer, or a single head.
    """
    half = _half(distance, "attention_low_spread_excess")
    if distance.shape[1] == 1:
        raise UsageError("attention_low_spread_excess compares the heads of a layer, this model has one per layer")
    sd = distance.std(dim=1)
    return (sd[:half].mean() - sd[-half:].mean()).item()


def wide_share_second_half(distance: Tensor) -> float:
    """Share of the heads in the second half of layers whose distance is above 0.7 of uniform attention's.

    Raises:
        UsageError: a single layer.
    """
    half = _half(distance, "attention_wide_share_second_half")
    return (distance[-half:] > WIDE).float().mean().item()


def _third(distance: Tensor) -> int:
    return max(1, len(distance) // 3)


def _half(distance: Tensor, name: str) -> int:
    if len(distance) == 1:
        raise UsageError(f"{name} compares layers, this model has one")
    return len(distance) // 2
