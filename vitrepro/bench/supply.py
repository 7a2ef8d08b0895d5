"""Batches of somebody else's loader, whose workers stand still while others have their turns."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor

Batches = Iterator[tuple[Tensor, Tensor]]

PREFETCHED = 2  # batches that each worker keeps ready; torch's default
EPOCH = 500  # batches, if not more are asked for: no turn meets the pause between epochs
LEAD = 2  # batches of a turn before the clock starts, once the loader is as far ahead as turns let it be
CAN_STOP = hasattr(signal, "SIGSTOP")


class Sized(Protocol):
    """A data set that is as long as it is told to be."""

    length: int


class Supply:
    """What a loader gives, some batches at a time.

    Between the times its workers are stopped in the middle of what they do (where the system can), so that they take
    nothing from another side's turn, and the loader is as far ahead when a turn starts as when the last one ended.

    Attributes:
        ahead: batches that the workers keep ready at most; what a turn has at most before its clock starts.
    """

    def __init__(self, loader: Any, data: Sized, batch_size: int, workers: int) -> None:
        self.loader, self.data, self.batch_size = loader, data, batch_size
        self.ahead = max(LEAD, PREFETCHED * workers)
        self._batches: Batches = iter(())
        self._left = 0  # of the epoch
        self._steady = False
        self._workers: set[int] = set()

    def epoch(self, images: int) -> Batches:
        """All batches of so many images, from a fresh start, and no more."""
        self.data.length = images
        return iter(self.loader)

    def lead(self, parts: int) -> int:
        """How many steps, each of so many batches, a turn has before its clock starts."""
        return math.ceil((LEAD if self._steady else self.ahead) / parts)

    @contextlib.contextmanager
    def flowing(self, number: int, *, in_steps: bool) -> Iterator[Batches]:
        """An iterator with at least so many batches, which the workers are ahead of to the last.

        Args:
            in_steps: taken at the pace of a turn, and not as fast as they come.
        """
        self._tell("SIGCONT")
        if self._left < number:
            self._begin(number)
        self._left -= number
        yield self._batches
        self._tell("SIGSTOP")
        self._steady = in_steps and CAN_STOP

    def _begin(self, number: int) -> None:
        """A new epoch; its first batch, with which the workers start, is thrown away."""
        self._left = max(EPOCH, number)
        self.data.length = (1 + self._left + self.ahead) * self.batch_size
        others = {child.pid for child in multiprocessing.active_children()}
        self._batches = iter(self.loader)
        next(self._batches)
        started = {child.pid for child in multiprocessing.active_children()} - others
        self._workers |= {pid for pid in started if pid is not None}  # none where they persist
        self._steady = False

    def _tell(self, name: str) -> None:
        for worker in self._workers if CAN_STOP else ():
            os.kill(worker, getattr(signal, name))
