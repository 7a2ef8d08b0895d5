"""Training images batch by batch: from the device where they lie on it, else read from the disk ahead of the steps.

Both ways give the same batches in the same order, so no result depends on which one it was.

B: images of a batch, N: all images, C: channels, H x W: pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrepro import memory
from vitrepro.arrays import Ints
from vitrepro.distributed import to_device

READERS = 2  # threads: while one waits for the disk or copies, the other gathers
AHEAD = memory.PREFETCHED - 1  # batches read beyond the one in use


class Resident:
    """Images that lie on the device.

    Args:
        images: uint8, (N, C, H, W).
    """

    def __init__(self, images: Tensor) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __enter__(self) -> Resident:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def batches(self, indices: Iterator[Ints]) -> Iterator[Tensor]:
        """The images at these positions, batch by batch: uint8, (B, C, H, W)."""
        for index in indices:
            yield self._images[to_device(torch.from_numpy(index), self._images.device)]


class Streamed:
    """Images that are read from an array, usually a file mapped into memory, by threads that run ahead.

    The threads end with the `with` block, whatever ends it; the positions are asked for in the caller's thread.

    Args:
        images: uint8, (N, H, W, C); only its `len` and its rows by an array of positions are used.
        ahead: batches beyond the one in use that are read, and on the device, before they are asked for.
    """

    def __init__(self, images: NDArray[np.uint8], device: str, *, ahead: int = AHEAD, readers: int = READERS) -> None:
        self._images = images
        self._ahead = ahead
        self._readers = readers
        self._to_device = _to_cuda(device) if device.startswith("cuda") else _as_it_is

    def __len__(self) -> int:
        return len(self._images)

    def __enter__(self) -> Streamed:
        self._pool = ThreadPoolExecutor(self._readers, "vitrepro reads images")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def batches(self, indices: Iterator[Ints]) -> Iterator[Tensor]:
        """The images at these positions, batch by batch and in this order: uint8, (B, C, H, W), on the device.

        Raises:
            Exception: what went wrong in reading, when the batch that it happened to is asked for.
        """
        reading: deque[Future[Callable[[], Tensor]]] = deque()
        for index in indices:
            reading.append(self._pool.submit(self._read, index))
            if len(reading) > self._ahead:
                yield reading.popleft().result()()
        while reading:
            yield reading.popleft().result()()

    def _read(self, index: Ints) -> Callable[[], Tensor]:
        rows = np.asarray(self._images[index])  # numpy lets other threads work meanwhile
        return self._to_device(torch.from_numpy(rows).permute(0, 3, 1, 2))


Images: TypeAlias = Resident | Streamed


def choose(images: NDArray[np.uint8], device: str, free_bytes: int) -> Images:
    """A split's images on the device where they leave room for the training, else read batch by batch.

    Args:
        images: uint8, (N, H, W, C).
        free_bytes: of the device.
    """
    if not memory.resident(images.nbytes, free_bytes):
        return Streamed(images, device)
    whole = torch.from_numpy(np.array(images))  # a copy: the mapped file is read-only
    return Resident(whole.to(device).permute(0, 3, 1, 2))


def _as_it_is(images: Tensor) -> Callable[[], Tensor]:
    return lambda: images


def _to_cuda(device: str) -> Callable[[Tensor], Callable[[], Tensor]]:
    """Copies to the device beside its computations, which wait for a copy where they use it."""
    beside = torch.cuda.Stream(device)

    def copy(images: Tensor) -> Callable[[], Tensor]:
        with torch.cuda.stream(beside):
            there = to_device(images, device)
            copied = beside.record_event()

        def wait() -> Tensor:
            here = torch.cuda.current_stream(device)
            here.wait_event(copied)
            there.record_stream(here)  # its memory is free for other copies only after that
            return there

        return wait

    return copy
