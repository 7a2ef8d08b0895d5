"""What turns come to: rates, shares of what the device can do, and ratios pair by pair. Without torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

PRODUCT = {"cpu": 2048, "cuda": 8192}  # rows and columns of the product that a device's rate is measured by
Phase = Literal["training", "evaluation", "whole runs"]


@dataclass(frozen=True)
class Turn:
    """One side's turn.

    Attributes:
        memory_bytes: the most that was in use: by tensors on a GPU, or, on a CPU, by the process beyond what it
            had before it made the model. None where it is not measured.
        input_seconds: getting and augmenting as many batches, with nothing else to do. None where not measured.
    """

    images: int
    seconds: float
    memory_bytes: int | None = None
    input_seconds: float | None = None

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


class Ratio(NamedTuple):
    """How many times faster we are, over the pairs."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """One side's turns.

    Attributes:
        flops: of the model per image, by the conventional count; None where it is not known.
        executed: what of them this side's model carries out.
    """

    turns: tuple[Turn, ...]
    flops: float | None = None
    executed: float | None = None

    @property
    def images_per_second(self) -> float:
        return statistics.median(t.images_per_second for t in self.turns)

    @property
    def flops_per_second(self) -> float | None:
        return None if self.flops is None else self.flops * self.images_per_second

    def utilisation(self, product_rate: float | None) -> float | None:
        """Model FLOP/s over the rate of a large matrix product: MFU, with what this device measures as its peak."""
        if self.flops_per_second is None or product_rate is None:
            return None
        return self.flops_per_second / product_rate

    def share(self, product_rate: float | None) -> float | None:
        """Operations carried out over those of a large matrix product in the same time."""
        if self.executed is None or product_rate is None:
            return None
        return self.executed * self.images_per_second / product_rate

    @property
    def memory_bytes(self) -> int | None:
        known = [t.memory_bytes for t in self.turns if t.memory_bytes is not None]
        return max(known, default=None)

    @property
    def input_share(self) -> float | None:
        """Median over the turns of input alone over the whole step."""
        known = [t.input_seconds / t.seconds for t in self.turns if t.input_seconds is not None]
        return statistics.median(known) if known else None


@dataclass(frozen=True)
class Result:
    """One workload in one phase.

    Attributes:
        sides: ours first.
        product_rate: operations per second of a large matrix product in the same precision, with all threads.
        parameters: of the model; the same on every side.
        compiled: whether ours ran compiled, as a run as long as the recipe's would.
    """

    workload: str
    title: str
    phase: Phase
    sides: Mapping[str, Side]
    batch_size: int
    image_size: int
    precision: str
    parameters: int
    product_rate: float | None = None
    compiled: bool = False

    @property
    def ours(self) -> str:
        return next(iter(self.sides))

    def ratio(self, other: str) -> Ratio:
        """Our images per second over the other's, each pair of turns by itself."""
        pairs = zip(self.sides[self.ours].turns, self.sides[other].turns, strict=True)
        ratios = [a.images_per_second / b.images_per_second for a, b in pairs]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))
