"""One run at a time, shared by the processes that `torchrun` started, on one machine or several.

    torchrun --nproc-per-node 8 -m vitrepro verify CLAIM --scale gpu

Every process walks the same path; the first alone prints, and reads and writes the store, which must be on
a disk that all of them see. Loading this module does not load torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from vitrepro import provenance
from vitrepro.errors import RunError, UsageError

if TYPE_CHECKING:
    from vitrepro.launch import Event
    from vitrepro.runner import Task

WAIT = timedelta(days=1)  # for the first process, which may wait for another command's run


def asked() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def first() -> bool:
    """Whether this process is the one that prints and writes; it is where it is alone."""
    return not asked() or os.environ["RANK"] == "0"


def device(wanted: str) -> str:
    """The device of this process: its own CUDA device, or the CPU, whose cores the machine's processes share.

    Raises:
        UsageError: a device is named by its number, or there are more processes on this machine than devices.
    """
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"--devices {wanted}: under torchrun each process takes its own device; give auto, cpu or cuda"
        )
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not visible):
        return "cpu"
    here, rank = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    if here > visible:
        raise UsageError(f"torchrun started {here} processes for {visible} CUDA devices; start one for each")
    return f"cuda:{rank}"


def threads() -> int:
    """Threads of each process: the machine's processes share its cores."""
    return max(1, provenance.cores() // int(os.environ["LOCAL_WORLD_SIZE"]))


@contextmanager
def joined(wanted: str) -> Iterator[None]:
    """Be one of the processes while this lasts, and silent unless the first; nothing happens without torchrun."""
    if not asked():
        yield
        return
    import torch
    from torch import distributed as dist

    mine = device(wanted)
    if mine.startswith("cuda"):
        torch.cuda.set_device(mine)
    dist.init_process_group("gloo" if mine == "cpu" else "cpu:gloo,cuda:nccl", timeout=WAIT)
    said = sys.stdout, sys.stderr
    try:
        if dist.get_rank() > 0:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
        yield
    finally:
        sys.stdout, sys.stderr = said
        dist.destroy_process_group()


def run_all(tasks: Sequence[Task], mine: str, on_event: Callable[[Event], None], fits: Callable[[Task], bool]) -> None:
    """Execute the tasks one after another, each by all processes together.

    Args:
        mine: this process's device.
        fits: asked before a task starts; one that does not fit the budget is skipped.

    Raises:
        Interrupted: after a signal to any of the processes; a checkpoint is written.
        OutOfMemory: the same command goes on, where a smaller micro-batch may fit.
    """
    from vitrepro import launch
    from vitrepro.distributed import agree, from_first, rank_and_world
    from vitrepro.runner import OutOfMemory, execute
    from vitrepro.train import Stopped

    agree([task.run.id for task in tasks], "do other runs")
    with launch.signals_noted() as received:
        for task in tasks:
            run_id = task.run.id
            if not from_first(lambda task=task: fits(task)):  # type: ignore[misc]
                on_event(launch.Event("skipped", run_id, message="does not fit the budget"))
                continue
            on_event(launch.Event("started", run_id, 0))

            def say(row: dict[str, Any], run_id: str = run_id) -> None:
                on_event(launch.Event("progress", run_id, 0, detail=row))

            try:
                execute(replace(task, device=mine, threads=threads()), say, lambda: bool(received))
            except Stopped:
                on_event(launch.Event("stopped", run_id, 0))
                raise launch.Interrupted(received[0] if received else 15) from None
            except OutOfMemory:
                raise  # perhaps on this device alone
            except RunError as error:
                if rank_and_world()[0] == 0:
                    task.store.write_error(run_id, str(error))
                on_event(launch.Event("failed", run_id, 0, str(error)))
            else:
                on_event(launch.Event("done", run_id, 0))
