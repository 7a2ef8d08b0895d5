"""Optimiser and learning rate of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from vitrepro.recipe import TrainSpec


def build(model: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; weight decay on matrices and kernels only.

    Biases, norms, class token and position embeddings are not decayed, as in the usual recipes.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if _decayed(name, p)]
    rest = [p for name, p in trained if not _decayed(name, p)]
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=True)


def _decayed(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and "pos_embed" not in name and "cls_token" not in name


def learning_rate(step: int, steps: int, spec: TrainSpec) -> float:
    """Rate of one step, 0 <= step < steps: linear warm-up to `lr`, then constant or down towards zero."""
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
