"""Optimiser and learning rate of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from vitrepro.recipe import TrainSpec

# as our own models, timm and torchvision name them
UNDECAYED = ("pos_embed", "cls_token", "class_token", "layer_scale", "relative_position_bias")


def build(model: nn.Module, spec: TrainSpec, *, fused: bool = True) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; weight decay on matrices and kernels only. Or Adam.

    Biases, norms, class token, position embeddings and layer scales are not decayed, as in the usual recipes. Adam's
    decay is added to the gradient, of every parameter, as in a plain script.

    Args:
        fused: one kernel for all parameters. Not with a loss scaler: fused SGD leaves its momentum unwritten when
            the first step is skipped.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if _decayed(name, p)]
    rest = [p for name, p in trained if not _decayed(name, p)]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    assert spec.lr is not None  # of a grid, one is tried at a time
    if spec.optimizer == "adam":
        every = [p for _, p in trained]
        return torch.optim.Adam(every, lr=spec.lr, betas=spec.betas, weight_decay=spec.weight_decay, fused=fused)
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, fused=fused)
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused)


def _decayed(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and not any(part in name for part in UNDECAYED)


def learning_rate(step: int, steps: int, spec: TrainSpec) -> float:
    """Rate of one step, 0 <= step < steps: linear warm-up to `lr`, then constant or down towards zero."""
    assert spec.lr is not None
    if step < spec.warmup_steps:
        return spec.lr * (step + 1) / spec.warmup_steps
    done = (step - spec.warmup_steps) / max(1, steps - spec.warmup_steps)
    match spec.schedule:
        case "constant":
            return spec.lr
        case "linear":
            return spec.lr * (1 - done)
        case "cosine":
            return spec.lr * 0.5 * (1 + math.cos(math.pi * done))
