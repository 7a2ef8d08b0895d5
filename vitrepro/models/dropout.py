"""Dropout whose masks are cheap to draw."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16  # of the random numbers that are compared with the rate


class Dropout(nn.Dropout):
    """torch's dropout, or one that draws 16 bits for an element.

    On a CPU torch draws a number of its own for each element, one after another: up to a third of a training step of
    a small model. Four elements share 64 random bits here, and an element is zeroed with a probability of
    round(65536 p) / 65536; what stays is divided by one minus that, in the tensor's type.

    Attributes:
        sixteen_bits: draw so, from torch's default generator of the CPU. Of tensors on a CPU only.
        in_evaluation: drop in evaluation as in training.
    """

    sixteen_bits: bool = False
    in_evaluation: bool = False

    @property
    def active(self) -> bool:
        """Whether elements are dropped now."""
        return self.training or self.in_evaluation

    def forward(self, x: Tensor) -> Tensor:
        if not (self.sixteen_bits and self.active and 0 < self.p < 1):
            return F.dropout(x, self.p, self.active)
        return x * mask(x, self.p)


def mask(like: Tensor, p: float) -> Tensor:
    """Zeros, and what keeps the mean where they are not, in the shape and type of a tensor on a CPU.

    Args:
        p: of a zero, 0 < p < 1, to the nearest 65536th.
    """
    zeroed = min(round(LEVELS * p), LEVELS - 1)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    bits = words.view(torch.int16)[: like.numel()].view(like.shape)
    kept = torch.empty(like.shape, dtype=like.dtype)
    return torch.ge(bits, zeroed - LEVELS // 2, out=kept).mul_(LEVELS / (LEVELS - zeroed))
