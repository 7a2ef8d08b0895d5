"""What this process computes on: device, arithmetic, and its place among the processes of one run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from vitrepro import provenance
from vitrepro.arrays import Ints
from vitrepro.errors import RunError, UsageError
from vitrepro.recipe import Arithmetic, Precision

T = TypeVar("T")
Value = TypeVar("Value", bound=np.generic)
DTYPES: dict[Arithmetic, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def devices(wanted: str = "auto") -> tuple[str, ...]:
    """The slots' devices: every visible CUDA device, or `cpu` once per slot.

    Args:
        wanted: `auto`, `cpu`, `cpu:4` (four slots), `cuda`, or a list such as `cuda:0,cuda:2`. Numbers
            count the devices that CUDA_VISIBLE_DEVICES leaves visible.

    Raises:
        UsageError: not of this form, or a device that is not here.
    """
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0  # a driver may be too old for this torch
    if wanted == "auto":
        wanted = "cuda" if visible else "cpu"
    if wanted == "cuda":
        if not visible:
            raise UsageError(f"--devices cuda: no CUDA device is visible. {_instead(visible)}")
        return tuple(f"cuda:{i}" for i in range(visible))
    kind, _, number = wanted.partition(":")
    if kind == "cpu" and "," not in wanted:
        if number and (not number.isdigit() or not 1 <= int(number) <= 1024):
            raise UsageError(f"--devices {wanted}: cpu:N has N slots, from 1 to 1024")
        return ("cpu",) * (int(number) if number else provenance.cores())
    chosen = []
    for name in wanted.split(","):
        kind, _, number = name.strip().partition(":")
        if kind != "cuda" or not number.isdigit():
            raise UsageError(f"--devices {wanted}: {name.strip()!r} is no device. {_instead(visible)}")
        if int(number) >= visible:
            raise UsageError(f"--devices {wanted}: {name.strip()} is not visible. {_instead(visible)}")
        chosen.append(f"cuda:{int(number)}")
    if len(set(chosen)) != len(chosen):
        raise UsageError(f"--devices {wanted}: a device stands twice")
    return tuple(chosen)


def _instead(visible: int) -> str:
    here = f", cuda, cuda:0 to cuda:{visible - 1}" if visible else ""
    return f"Here: auto, cpu, cpu:N{here}"


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else provenance.cpu_name()


def resolve_precision(wanted: Precision, devices: Sequence[str]) -> Arithmetic:
    """What `auto` stands for: bfloat16 where every device multiplies it, else float16 on CUDA and float32 on the CPU.

    Raises:
        UsageError: fp16 or tf32 on the CPU, which has neither, or tf32 on a CUDA device without it.
    """
    cuda = devices[0].startswith("cuda")
    if wanted in ("fp16", "tf32") and not cuda:
        raise UsageError(f"--precision {wanted} needs a CUDA device; use bf16 or fp32 on the CPU")
    if wanted == "tf32" and not all(_cuda_multiplies_bf16(d) for d in devices):
        raise UsageError("--precision tf32 needs an NVIDIA GPU of the Ampere generation or later; use fp32 or fp16")
    if wanted != "auto":
        return wanted
    if cuda:
        return "bf16" if all(_cuda_multiplies_bf16(d) for d in devices) else "fp16"
    return "bf16" if _cpu_multiplies_bf16() else "fp32"


def _cuda_multiplies_bf16(device: str) -> bool:
    return torch.cuda.get_device_capability(device)[0] >= 8  # Ampere and later


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextlib.contextmanager
def autocast(device: str, precision: Arithmetic) -> Iterator[None]:
    """Mixed precision on this device; float32 throughout for fp32 and tf32."""
    kind = device.partition(":")[0]
    with torch.autocast(kind, DTYPES[precision], enabled=DTYPES[precision] != torch.float32):
        yield


def to_device(values: Tensor, device: str | torch.device) -> Tensor:
    """The values on a device, which is not waited for: it copies them when it has done what it was told before."""
    if values.device.type == "cpu" and torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)  # the allocator keeps what is being copied
    return values.to(device)


def reseed(device: str, seed: int) -> None:
    """Seed what dropout on this device draws from, and that alone.

    torch.manual_seed seeds every kind of device, and keeps a note of the call, with a traceback, for each kind that
    is not in use: every step costs more than the one before.
    """
    if device.startswith("cuda"):
        torch.cuda.default_generators[torch.device(device).index or 0].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def rank_and_world() -> tuple[int, int]:
    """Place of this process among those that share a run; (0, 1) when it is alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share(batch_size: int) -> tuple[int, int]:
    """First position and size of this process's share of every batch.

    Raises:
        UsageError: the batch cannot be shared out evenly.
    """
    rank, world = rank_and_world()
    size, rest = divmod(batch_size, world)
    if rest or not size:
        raise UsageError(f"{world} processes cannot share batches of {batch_size} evenly; start a divisor of it")
    return rank * size, size


def share_gradients(model: nn.Module, device: str, *, some_unused: bool) -> DistributedDataParallel:
    """The model, whose gradients are averaged over all processes.

    Args:
        some_unused: whether it holds parameters that its output does not depend on.
    """
    ids = None if device == "cpu" else [torch.device(device)]
    return DistributedDataParallel(model, device_ids=ids, find_unused_parameters=some_unused)


def total(values: Tensor) -> Tensor:
    """Sums over all processes, on every one of them; the values themselves where there is one."""
    if rank_and_world()[1] > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def any_of(flag: bool) -> bool:
    """Whether any of the processes says so."""
    if rank_and_world()[1] == 1:
        return flag
    said: list[bool] = [flag] * rank_and_world()[1]
    dist.all_gather_object(said, flag)
    return any(said)


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, on all of them; the others wait for it.

    Raises:
        Exception: what `make` raised on the first process; a RunError with its words on the others.
    """
    rank, world = rank_and_world()
    if world == 1:
        return make()
    message: list[Any] = [None, None]
    raised: Exception | None = None
    if rank == 0:
        try:
            message = [make(), None]
        except Exception as error:  # told to the others before it goes its way
            raised, message = error, [None, str(error) or type(error).__name__]
    dist.broadcast_object_list(message)
    if raised is not None:
        raise raised
    if message[1] is not None:
        raise RunError(message[1])
    made: T = message[0]
    return made


def agree(value: object, what: str) -> None:
    """Make sure that all processes hold the same value.

    Raises:
        RunError: they do not; `what` they would do then.
    """
    _, world = rank_and_world()
    if world > 1:
        said = [value] * world
        dist.all_gather_object(said, value)
        if any(other != said[0] for other in said):
            raise RunError(f"the processes of the run would {what}: {said}; they need one store, on a shared disk")


def gather_by_position(positions: Ints, values: NDArray[Value], n: int) -> NDArray[Value]:
    """Values from all processes, put at their positions; (n,) on every process.

    Raises:
        ValueError: a position is missing or came twice; nothing is padded, dropped or counted twice.
    """
    _, world = rank_and_world()
    parts = [(positions, values)]
    if world > 1:
        parts = [(positions, values)] * world
        dist.all_gather_object(parts, (positions, values))
    everywhere = np.concatenate([p for p, _ in parts])
    if len(everywhere) != n or not np.array_equal(np.sort(everywhere), np.arange(n)):
        raise ValueError(f"{len(everywhere)} predictions for {n} images, or an image twice")
    result = np.empty(n, values.dtype)
    result[everywhere] = np.concatenate([v for _, v in parts])
    return result


def product_rate(
    device: str,
    size: int | None = None,
    repeats: int = 5,
    *,
    threads: int = 1,
    precision: Arithmetic | None = None,
) -> float:
    """Floating point operations per second of a square matrix product: the best of a few.

    Args:
        size: rows and columns; unless given 1024, or 8192 on CUDA: smaller ones do not fill a GPU.
        threads: on the CPU; one, as a slot has, unless given.
        precision: the arithmetic that `auto` stands for unless given.
    """
    cuda = device.startswith("cuda")
    size = size or (8192 if cuda else 1024)
    dtype = DTYPES[precision or resolve_precision("auto", (device,))]
    a = torch.randn(size, size, device=device, dtype=dtype)
    if cuda:
        return 2.0 * size**3 / min(_cuda_product_seconds(a) for _ in range(repeats + 1))  # the first one warms up
    before = torch.get_num_threads()
    best = math.inf
    try:
        torch.set_num_threads(threads)
        for _ in range(repeats):
            began = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    return 2.0 * size**3 / best


def _cuda_product_seconds(a: Tensor, products: int = 10) -> float:
    """Seconds of one product of several told at once, by the device's clock: the host's is that of their launch."""
    with torch.cuda.device(a.device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(products):
            torch.mm(a, a)
        end.record()
        end.synchronize()
    return begin.elapsed_time(end) / 1e3 / products
