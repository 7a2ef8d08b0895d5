"""Runs in processes of their own, on every slot at once.

A slot is a CUDA device or a share of one, or a share of the CPU's cores. Each slot has a process, so that a crash
takes one run down and the others finish. A process that has finished a run does the slot's next one; one that could
not is replaced. Processes are forked from a server that has torch loaded already (or spawned where that is not
possible), and end by themselves when the command that started them is gone, however it went.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, Literal

from vitrepro import memory, provenance
from vitrepro.errors import VitreproError

if TYPE_CHECKING:
    from vitrepro.plan import Run
    from vitrepro.runner import Task

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOST_PROCESSES = 8  # on one CUDA device
FLOPS_PER_SECOND = 1e14  # of a CUDA device, roughly, in 16-bit arithmetic
LAUNCH_SECONDS = 5e-3  # of a step of a small model, whatever its size; recorded, one took 1.2 to 3.2 ms on an H100
GRACE_SECONDS = 60.0  # to finish a step and write a checkpoint after SIGTERM


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time."""

    device: str
    threads: int


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    Attributes:
        kind: `started`; `progress`, with step, steps and loss in `detail`; then one of `done`, `failed`
            (with `message`), `again` (out of memory, starts once more with smaller micro-batches), `stopped`
            (resumable) or `skipped` (never started: over the budget).
    """

    kind: Literal["started", "progress", "done", "failed", "again", "stopped", "skipped"]
    run_id: str
    slot: int = -1
    message: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


class Interrupted(Exception):
    """SIGINT or SIGTERM ended the work; everything finished so far is stored."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


# --- Who works where


@dataclass(frozen=True)
class Need:
    """What a run asks of its device; None where nothing tells.

    Attributes:
        memory_bytes: at most, by a process of its own.
        pass_flops: of a forward and backward pass of one micro-batch.
    """

    memory_bytes: int | None
    pass_flops: float | None


@dataclass(frozen=True)
class Group:
    """Runs that share the devices in one way, and the slots for them."""

    runs: tuple[Run, ...]
    places: tuple[Slot, ...]


def slots(
    devices: Sequence[str], runs: int | None = None, *, named: bool = False, processes: int = 1
) -> tuple[Slot, ...]:
    """Places for runs; the cores are shared out among them evenly and never promised twice.

    On the CPU there is one slot per core. Where there are fewer runs than that, there is a slot for each of
    them and it has more threads; all slots have equally many, so that it does not matter which one a run gets.

    Args:
        devices: `cpu` once per slot, or CUDA devices.
        runs: how many there are to do; more than enough unless given.
        named: the user said how many slots there are.
        processes: that share each device.
    """
    places = [device for _ in range(processes) for device in devices]  # the first runs spread over all devices
    if runs is not None and not named:
        places = places[: max(1, runs)]
    threads = max(1, provenance.cores() // len(places))
    return tuple(Slot(device, threads) for device in places)


def per_device(needs: Sequence[Need], *, free_bytes: int, cores: int) -> int:
    """How many processes share a CUDA device, so that it does not idle and does not run out of memory.

    A step takes at least as long as launching its kernels does. Where its arithmetic takes less, the device
    waits, and other processes may use it meanwhile: as many as fill that time. Where a step or its memory is
    not known, a process has the device for itself.

    Args:
        needs: of the runs that may meet on the device.
        cores: for the processes on this device; each needs one.
    """
    largest, longest = 0, 0.0
    for need in needs:
        if need.memory_bytes is None or need.pass_flops is None:
            return 1
        largest, longest = max(largest, need.memory_bytes), max(longest, need.pass_flops / FLOPS_PER_SECOND)
    by_memory = int(memory.USABLE * free_bytes / largest) if largest else MOST_PROCESSES
    by_speed = int(LAUNCH_SECONDS / longest) if longest else MOST_PROCESSES
    return max(1, min(cores, MOST_PROCESSES, by_memory, by_speed))


def arrange(
    runs: Sequence[Run],
    devices: Sequence[str],
    *,
    planned: int | None = None,
    named: bool = False,
    need: Callable[[Run], Need] = lambda _: Need(None, None),
    begun: Callable[[Run], int | None] = lambda _: None,
    free_bytes: Callable[[str], int] = memory.free_bytes,
) -> tuple[Group, ...]:
    """The runs in groups, to be worked on one group after another, and the slots of each.

    On CUDA, runs that leave most of the device idle are packed, several processes to a device, and the large
    ones follow with a device each. No result depends on it.

    On the CPU all runs have equally many threads, given by how many runs are planned, finished ones among them, so
    that a command that goes on gives each run what it would have had: float32 sums differ in their
    last bits with the number of threads. A run that was begun with other threads than that therefore keeps them,
    in a group of its own that comes first, so that its weights are those of an uninterrupted run; only where the
    machine has fewer cores now does it go on with what there is. A record tells the threads that its run ended with.

    Args:
        devices: as for `slots`, and `named`.
        planned: runs of the whole command, finished ones too; those to do unless given.
        begun: threads with which an unfinished run has trained so far, or None.
        free_bytes: of a CUDA device.
    """
    if devices[0].startswith("cuda"):
        return _by_size(runs, devices, need, free_bytes)
    return _by_threads(runs, devices, planned or len(runs), named, begun)


def _by_threads(
    runs: Sequence[Run], devices: Sequence[str], planned: int, named: bool, begun: Callable[[Run], int | None]
) -> tuple[Group, ...]:
    cores = provenance.cores()
    even = slots(devices, planned, named=named)
    by_threads: dict[int, list[Run]] = {}
    for run in runs:
        threads = begun(run)
        if threads is None or threads > cores:
            threads = even[0].threads
        by_threads.setdefault(threads, []).append(run)
    rest = by_threads.pop(even[0].threads, [])
    groups = [
        Group(tuple(some), (Slot(devices[0], threads),) * min(cores // threads, len(devices), len(some)))
        for threads, some in by_threads.items()
    ]
    return (*groups, Group(tuple(rest), even)) if rest else tuple(groups)


def _by_size(
    runs: Sequence[Run], devices: Sequence[str], need: Callable[[Run], Need], free_bytes: Callable[[str], int]
) -> tuple[Group, ...]:
    cores = max(1, provenance.cores() // len(devices))
    free = min(free_bytes(device) for device in devices)
    needs = {run.id: need(run) for run in runs}

    def together(some: Sequence[Run]) -> int:
        return per_device([needs[run.id] for run in some], free_bytes=free, cores=cores)

    packed = {run.id: together([run]) > 1 for run in runs}
    small, large = [r for r in runs if packed[r.id]], [r for r in runs if not packed[r.id]]
    parts = [part for part in (small, large) if part]
    return tuple(Group(tuple(part), slots(devices, len(part), processes=together(part))) for part in parts)


# --- Doing it


def warm_up() -> None:
    """Start the server that forks the runs' processes, so that it loads torch while this process still plans."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        _context()
        with _held_back():
            forkserver.ensure_running()


def load() -> None:
    """Load torch and scipy while signals wait: one that comes while compiled modules load ends in a crash."""
    with _held_back():
        import scipy.stats  # noqa: F401
        import torch  # noqa: F401


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Signals wait, here and in what is started here, until the runs' processes have their handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_all(
    tasks: Sequence[Task],
    places: Sequence[Slot],
    on_event: Callable[[Event], None],
    *,
    fits: Callable[[Task], bool] = lambda _: True,
    overdue: Callable[[Task, float, float], bool] = lambda *_: False,
) -> None:
    """Execute the tasks, as many at a time as there are slots, in their order.

    Args:
        tasks: their device and threads are replaced by those of the slot that takes them.
        fits: asked before a task starts; one that does not fit the budget is skipped.
        overdue: asked while it runs, with its share done and seconds so far; True stops it, resumable.

    Raises:
        Interrupted: after a signal, once every process has written its checkpoint and ended. A second
            signal ends them at once.
    """
    context = _context()
    waiting, active, idle = list(tasks), dict[int, _Active](), dict[int, _Active]()
    with signals_noted() as received:
        try:
            while (waiting or active) and not received:
                for number, place in enumerate(places):
                    while waiting and number not in active:
                        task = waiting.pop(0)
                        if not fits(task):
                            on_event(Event("skipped", task.run.id, message="does not fit the budget"))
                            continue
                        active[number] = _take(context, task, place, number, idle)
                        on_event(Event("started", task.run.id, number))
                waiting[:0] = _listen(active, idle, on_event, timeout=0.5)
                if not waiting:  # what they hold is better with those that still work
                    _dismiss(idle)
                for worker in active.values():
                    if not worker.asked_to_stop and overdue(worker.task, worker.share, worker.seconds):
                        worker.ask_to_stop()
            if received:
                _wind_down(active, idle, on_event, received)
        finally:
            for worker in active.values():
                worker.process.kill()
            _dismiss(idle)
    if received:
        raise Interrupted(received[0])


@dataclass
class _Active:
    """A run at work in a slot's process."""

    task: Task
    process: BaseProcess
    pipe: Connection  # tasks go down, messages come up
    started: float = field(default_factory=time.monotonic)
    share: float = 0.0
    ended: Event | None = None
    silent: bool = False  # it has closed its end of the pipe
    asked_to_stop: bool = False

    @staticmethod
    def start(context: Any, task: Task, place: Slot) -> _Active:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,), name=f"vitrepro {task.run.name}")
        with _held_back():
            process.start()
        theirs.close()
        worker = _Active(task, process, ours)
        with contextlib.suppress(OSError):  # it is gone already; listening will tell
            ours.send(_placed(task, place))
        return worker

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def ask_to_stop(self) -> None:
        self.asked_to_stop = True
        if self.process.pid and self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGTERM)


def _placed(task: Task, place: Slot) -> Task:
    return replace(task, device=place.device, threads=place.threads)


def _take(context: Any, task: Task, place: Slot, number: int, idle: dict[int, _Active]) -> _Active:
    """The task at work: in the process that did a run in the slot before, where there is one that it can follow in."""
    before = idle.get(number)
    if before is not None and _can_go_on(before, task):
        with contextlib.suppress(OSError):  # it has died meanwhile
            before.pipe.send(_placed(task, place))
            return _Active(task, idle.pop(number).process, before.pipe)
    _dismiss(idle, number)
    return _Active.start(context, task, place)


def _can_go_on(before: _Active, task: Task) -> bool:
    """Not with a signal pending that was meant for its last run, nor where CUDA's libraries have settled otherwise."""
    settled, wanted = (getattr(t.run.config, "train", None) for t in (before.task, task))
    return not before.asked_to_stop and getattr(settled, "deterministic", 0) == getattr(wanted, "deterministic", 0)


def _listen(
    active: dict[int, _Active], idle: dict[int, _Active], on_event: Callable[[Event], None], timeout: float
) -> list[Task]:
    """Pass messages on, and notice runs that are done and processes that ended, with or without a word.

    Args:
        idle: where processes that have finished their run are put.

    Returns:
        tasks to be started again.
    """
    again = []
    by_handle: dict[Any, int] = {}
    for number, worker in active.items():
        if not worker.silent:
            by_handle[worker.pipe] = number
        by_handle[worker.process.sentinel] = number
    ready = wait(list(by_handle), timeout)
    for number in {by_handle[handle] for handle in ready}:
        worker = active[number]
        run_id = worker.task.run.id
        ended = not worker.process.is_alive()  # looked at before the pipe is emptied
        try:
            while worker.pipe.poll():
                kind, message, detail = worker.pipe.recv()
                if kind == "progress":
                    worker.share = detail["step"] / detail["steps"]
                    on_event(Event("progress", run_id, number, detail=detail))
                else:
                    worker.ended = Event(kind, run_id, number, message)
        except (EOFError, OSError):
            worker.silent = True
        if worker.ended is not None and worker.ended.kind == "done" and not ended:
            idle[number] = active.pop(number)
            on_event(worker.ended)
        elif ended:
            worker.process.join()
            worker.pipe.close()
            event = worker.ended or _silent_end(worker, number)
            del active[number]
            if event.kind == "failed":
                with contextlib.suppress(VitreproError):
                    worker.task.store.write_error(run_id, event.message)
            if event.kind == "again":
                again.append(replace(worker.task, fresh=False))
            on_event(event)
    return again


def _dismiss(idle: dict[int, _Active], *numbers: int) -> None:
    """End processes that have nothing to do, and so nothing to lose: those of some slots, or all."""
    for number in numbers or tuple(idle):
        if (worker := idle.pop(number, None)) is not None:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


def _silent_end(worker: _Active, number: int) -> Event:
    """A process that ended without a word: killed from outside, by the memory guard, or a crash in native code."""
    code = worker.process.exitcode or 0
    if code == -signal.SIGTERM and worker.asked_to_stop:
        return Event("stopped", worker.task.run.id, number)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return Event("failed", worker.task.run.id, number, f"its process {how}{hint}")


def _wind_down(
    active: dict[int, _Active], idle: dict[int, _Active], on_event: Callable[[Event], None], received: list[int]
) -> None:
    """Let every process finish its step and write a checkpoint; a second signal does not wait for that."""
    deadline = time.monotonic() + GRACE_SECONDS
    while active and len(received) < 2 and time.monotonic() < deadline:
        for worker in active.values():
            worker.ask_to_stop()  # again: a process that just starts is deaf to the first
        _listen(active, idle, on_event, timeout=0.2)
    for worker in active.values():
        worker.process.kill()
    for number, worker in list(active.items()):
        worker.process.join()
        on_event(Event("stopped", worker.task.run.id, number))
        del active[number]


@contextlib.contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Signals that ask us to end, noted instead of raised; outside the main thread there are none."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {n: signal.signal(n, lambda number, _: received.append(number)) for n in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    for name, value in provenance.ALLOCATOR.items():
        os.environ.setdefault(name, value)  # for the server, which reads them when it starts
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vitrepro.forkserver", "vitrepro.__main__"])
    return context


def _work(pipe: Connection) -> None:
    """A slot's process, from its first line to its exit: one run after another, as long as they are finished."""
    asked: list[int] = []  # an Event would lock itself up if a signal came while it is set for another
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # they were held back until here
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from vitrepro.runner import clear

    with contextlib.suppress(EOFError, OSError):  # there are no more
        while _do(pipe.recv(), pipe, lambda: bool(asked)):
            clear()
    pipe.close()


def _do(task: Task, pipe: Connection, should_stop: Callable[[], bool]) -> bool:
    """Do a run and tell of it; whether it was finished, so that this process can be trusted with another."""
    from vitrepro.runner import SmallerBatch, execute
    from vitrepro.train import Stopped

    def say(kind: str, message: str = "", detail: dict[str, Any] | None = None) -> None:
        with contextlib.suppress(OSError):
            pipe.send((kind, message, detail or {}))

    try:
        execute(task, lambda row: say("progress", detail=row), should_stop)
    except Stopped:
        say("stopped")
    except SmallerBatch as error:  # a device that ran out of memory is not to be trusted by the same process
        say("again", str(error))
    except (VitreproError, MemoryError) as error:
        say("failed", str(error) or "out of memory")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            say("failed", f"out of memory on {task.device}: {str(error).splitlines()[0]}")
        else:
            traceback.print_exc(file=sys.stderr)
            say("failed", f"{type(error).__name__}: {error}")
    else:
        say("done")
        return True
    return False


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nobody is left to report to; the last checkpoint stays
