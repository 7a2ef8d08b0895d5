"""The Vision Transformer as the paper's equations have it, one image at a time, in plain matrix products.

Slow, and written without torch's layers, so that it can disagree with the models it is compared with.

N: patches, T = N + 1: tokens, D: width of a token, d: width of a head, C: channels, P: pixels of a patch.

Source: equations 1 to 4 in Section 3.1; equations 5 to 8 in Appendix A.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LAYER_NORM_EPS = 1e-6  # of the authors' code; the paper does not say


def logits(weights: Mapping[str, Tensor], image: Tensor, *, depth: int, num_heads: int) -> Tensor:
    """The logits (K,) of an image (C, S, S).

    Args:
        weights: under timm's names, exactly those of `names(depth)`.
    """
    W = weights
    E, E_bias = W["patch_embed.proj.weight"].flatten(1).t(), W["patch_embed.proj.bias"]  # (P*P*C, D)
    x = [patch @ E + E_bias for patch in patches(image, W["patch_embed.proj.weight"].shape[-1])]
    z = torch.stack([W["cls_token"].flatten(), *x]) + W["pos_embed"].squeeze(0)  # (1): z_0, (T, D)
    for i in range(depth):
        layer = {name.removeprefix(f"blocks.{i}."): w for name, w in W.items() if name.startswith(f"blocks.{i}.")}
        z = msa(layer, layer_norm(z, layer["norm1.weight"], layer["norm1.bias"]), num_heads) + z  # (2): z'_l
        z = mlp(layer, layer_norm(z, layer["norm2.weight"], layer["norm2.bias"])) + z  # (3): z_l
    y = layer_norm(z[0], W["norm.weight"], W["norm.bias"])  # (4)
    return W["head.weight"] @ y + W["head.bias"]


def names(depth: int) -> set[str]:
    """What a model has to be made of, in timm's words, for the equations to describe it."""
    layer = [f"{part}.{kind}" for part in _LAYER for kind in ("weight", "bias")]
    rest = [f"{part}.{kind}" for part in ("patch_embed.proj", "norm", "head") for kind in ("weight", "bias")]
    return {"cls_token", "pos_embed", *rest, *(f"blocks.{i}.{name}" for i in range(depth) for name in layer)}


_LAYER = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def patches(image: Tensor, patch_size: int) -> list[Tensor]:
    """The patches x_p of an image (C, S, S), in raster order, each flattened to (P*P*C,)."""
    starts = range(0, image.shape[-1], patch_size)
    return [image[:, y : y + patch_size, x : x + patch_size].flatten() for y in starts for x in starts]


def msa(layer: Mapping[str, Tensor], z: Tensor, num_heads: int) -> Tensor:
    """Multi-head self-attention of tokens (T, D): equations 5 to 8, with the biases of the authors' code."""
    d = z.shape[1] // num_heads
    qkv = z @ layer["attn.qkv.weight"].t() + layer["attn.qkv.bias"]  # (T, 3D): q, then k, then v of all heads
    q, k, v = qkv.split(z.shape[1], dim=1)
    heads = []
    for h in range(num_heads):
        one = slice(h * d, (h + 1) * d)
        A = softmax(q[:, one] @ k[:, one].t() / d**0.5)  # (6), (T, T)
        heads.append(A @ v[:, one])  # (7)
    return torch.cat(heads, dim=1) @ layer["attn.proj.weight"].t() + layer["attn.proj.bias"]  # (8)


def mlp(layer: Mapping[str, Tensor], z: Tensor) -> Tensor:
    """Two layers with a GELU between them, of tokens (T, D)."""
    hidden = z @ layer["mlp.fc1.weight"].t() + layer["mlp.fc1.bias"]
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2  # x times the normal distribution function of x
    return hidden @ layer["mlp.fc2.weight"].t() + layer["mlp.fc2.bias"]


def layer_norm(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = z - z.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + LAYER_NORM_EPS).sqrt() * weight + bias


def softmax(logits: Tensor) -> Tensor:
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)
