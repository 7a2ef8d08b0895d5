"""What training comes to along the way: its loss epoch by epoch, the best epoch's weights, the first gradient norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from vitrepro.recipe import EvaluatedSplit, Recipe
from vitrepro.record import EpochPoint

NORM_STEPS = 100  # of which gradient norms are kept


@dataclass
class Course:
    """What a training has come to so far; every checkpoint holds it.

    Attributes:
        ends: steps after which an epoch is over.
        chosen_on: the split by which an epoch's weights are kept, if they are.
        patience: epochs without a new best after which training is over; None for no end but the last step.
        norms_of: steps of which the gradient's norm is kept.
        clip_norm: beyond which gradients are counted as clipped; None where they are not counted.
        points: of the epochs that are over.
        loss_sum: over the steps of the epoch under way.
        norms: of the whole gradient before it is clipped, on the device, one for each step.
        clipped: steps with a finite gradient beyond `clip_norm`, on the device.
        best: the weights of the best epoch, in the machine's memory.
        seconds: spent on evaluating after epochs, over all attempts.
    """

    ends: frozenset[int]
    chosen_on: EvaluatedSplit | None
    patience: int | None
    norms_of: int
    clip_norm: float | None
    points: list[EpochPoint] = field(default_factory=list)
    loss_sum: float = 0.0
    norms: list[Tensor] = field(default_factory=list)
    clipped: Tensor | int = 0
    best: dict[str, Tensor] | None = None
    seconds: float = 0.0

    @staticmethod
    def of(recipe: Recipe) -> Course:
        norms = NORM_STEPS if "gradient_norm_spread" in recipe.measures else 0
        clip_norm = recipe.train.clip_norm if "clipped_share" in recipe.measures else None
        return Course(frozenset(recipe.epoch_ends), recipe.train.chosen_on, recipe.train.patience, norms, clip_norm)

    def state(self) -> dict[str, Any]:
        """Plain values and tensors, as a checkpoint can hold them."""
        points = [point.model_dump() for point in self.points]
        values = {"points": points, "loss_sum": self.loss_sum, "seconds": self.seconds}
        return {**values, "norms": list(self.norms), "clipped": self.clipped, "best": self.best}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what `state` gave; from nothing where an earlier version wrote the checkpoint."""
        if state is None:
            self.ends = frozenset()
            return
        self.points = [EpochPoint(**point) for point in state["points"]]
        self.loss_sum, self.seconds, self.norms = state["loss_sum"], state["seconds"], list(state["norms"])
        self.clipped = state.get("clipped", 0)
        self.best = _copied(state["best"]) if state["best"] is not None else None

    def add(self, losses: Iterable[float]) -> None:
        """Count the losses of further steps, one by one, so that the sum is the same however they are grouped."""
        for loss in losses:
            self.loss_sum += loss

    def end_epoch(self, step: int, counts: Mapping[str, int], model: nn.Module) -> None:
        """Note the epoch that this step ends, and keep the model's weights if none was better.

        Args:
            counts: right answers and images, by the fields of `EpochPoint`.
        """
        steps = step - (self.points[-1].steps if self.points else 0)
        loss, self.loss_sum = self.loss_sum, 0.0
        before = self._right()
        self.points.append(
            EpochPoint(epoch=len(self.points) + 1, steps=step, train_loss=loss / steps, train_loss_sum=loss, **counts)
        )
        if self.chosen_on is not None and self._right()[-1] > max(before, default=-1):
            self.best = _copied(model.state_dict())

    @property
    def kept_epoch(self) -> int | None:
        """The first of the best epochs, where one is kept."""
        right = self._right()
        return right.index(max(right)) + 1 if self.chosen_on is not None and right else None

    @property
    def over(self) -> bool:
        """Whether no epoch was better than the kept one for as long as patience lasts."""
        return self.patience is not None and len(self.points) - (self.kept_epoch or 0) >= self.patience

    def _right(self) -> list[int]:
        """Right answers after each epoch, on the split by which one is chosen."""
        name: Literal["dev_correct", "test_correct"] = "dev_correct" if self.chosen_on == "dev" else "test_correct"
        return [getattr(point, name) or 0 for point in self.points]


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
