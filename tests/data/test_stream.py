from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vitrepro.data.batches import batches
from vitrepro.data.stream import Images, Resident, Streamed, choose

N, SIZE = 60, 4


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def mapped(pixels: np.ndarray, tmp_path: Path) -> np.ndarray:
    np.save(tmp_path / "images.npy", pixels)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


class Source:
    """Images that take their time, or fail; counts what was read."""

    def __init__(self, pixels: np.ndarray, before: Callable[[int], None] = lambda _: None) -> None:
        self.pixels, self.before = pixels, before
        self.reads = itertools.count()
        self.read = 0

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        self.read = next(self.reads) + 1
        self.before(self.read)
        return self.pixels[index]


def order(steps: int = 30, size: int = 7, start: int = 0) -> Iterator[np.ndarray]:
    return batches(N, size, steps, seed=3, start_step=start)


def streamed(source: Source | np.ndarray, **options: int) -> Streamed:
    return Streamed(source, "cpu", **options)  # type: ignore[arg-type]


def alive() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("vitrepro reads images")]


def test_batches_read_ahead_are_those_of_images_on_the_device(pixels: np.ndarray, mapped: np.ndarray) -> None:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with Resident(images) as there, streamed(mapped) as ahead:
        assert len(there) == len(ahead) == N
        for expected, index, found in zip(there.batches(order()), order(), ahead.batches(order()), strict=True):
            assert torch.equal(found, expected)
            assert torch.equal(found, images[torch.from_numpy(index)])
            assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())


def test_a_resumed_run_reads_what_an_uninterrupted_one_would_have(mapped: np.ndarray) -> None:
    with streamed(mapped) as images:
        whole = list(images.batches(order()))
        rest = list(images.batches(order(start=20)))
    assert len(rest) == 10
    assert all(torch.equal(a, b) for a, b in zip(whole[20:], rest, strict=True))


def test_the_order_is_kept_though_later_batches_are_ready_first(pixels: np.ndarray) -> None:
    source = Source(pixels, before=lambda read: time.sleep(0.02 if read % 3 == 1 else 0))
    with streamed(source, ahead=4, readers=3) as images:
        for index, found in zip(order(12), images.batches(order(12)), strict=True):
            assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), pixels[index])


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_fewer_batches_than_are_read_ahead_all_come(mapped: np.ndarray, steps: int) -> None:
    with streamed(mapped, ahead=3) as images:
        assert len(list(images.batches(order(steps)))) == steps


def test_no_more_is_read_ahead_than_asked_for(mapped: np.ndarray) -> None:
    indices = order()
    with streamed(mapped, ahead=2) as images:
        coming = images.batches(indices)
        next(coming)
        next(coming)
        assert len(list(indices)) == 30 - (2 + 2)


def test_stopping_early_ends_the_threads(pixels: np.ndarray) -> None:
    source = Source(pixels, before=lambda _: time.sleep(0.02))

    def train() -> None:
        with streamed(source, ahead=3) as images:
            next(images.batches(order()))
            assert alive()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert not alive()
    assert source.read < 6  # those that waited were not begun


def test_an_error_in_reading_surfaces_at_its_batch_and_not_before(pixels: np.ndarray) -> None:
    def fail(read: int) -> None:
        if read >= 4:
            raise OSError("the disk is gone")

    with streamed(Source(pixels, before=fail), ahead=3, readers=1) as images:
        coming = images.batches(order())
        assert len(list(itertools.islice(coming, 3))) == 3
        with pytest.raises(OSError, match="the disk is gone"):
            next(coming)
    assert not alive()


def test_a_position_that_is_not_there_is_an_error(mapped: np.ndarray) -> None:
    with streamed(mapped) as images, pytest.raises(IndexError):
        list(images.batches(iter([np.array([N])])))


def test_reading_overlaps_with_the_steps(pixels: np.ndarray) -> None:
    steps, seconds = 8, 0.05
    began = time.monotonic()
    with streamed(Source(pixels, before=lambda _: time.sleep(seconds)), ahead=3, readers=1) as images:
        for _ in images.batches(order(steps)):
            time.sleep(seconds)  # a step
    together = time.monotonic() - began
    assert together < 0.8 * 2 * steps * seconds  # half of the sum, and one batch, were nothing else at work


def test_images_are_streamed_where_they_would_fill_the_device(pixels: np.ndarray, mapped: np.ndarray) -> None:
    roomy, tight = choose(mapped, "cpu", 2 * pixels.nbytes), choose(mapped, "cpu", 2 * pixels.nbytes - 1)
    assert isinstance(roomy, Resident)
    assert isinstance(tight, Streamed)

    def read(images: Images) -> list[torch.Tensor]:
        with images:
            return list(images.batches(order(5)))

    assert all(torch.equal(a, b) for a, b in zip(read(roomy), read(tight), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_arrive_whole_on_the_device(pixels: np.ndarray) -> None:
    with Streamed(pixels, "cuda:0") as images:
        for index, found in zip(order(), images.batches(order()), strict=True):
            assert found.device.type == "cuda"
            assert np.array_equal(found.permute(0, 2, 3, 1).cpu().numpy(), pixels[index])
