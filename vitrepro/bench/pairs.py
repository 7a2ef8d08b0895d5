"""Ours and others' turns, pair by pair: who is timed when, and for how long."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrepro import flops, provenance
from vitrepro.bench import counterparts
from vitrepro.bench.child import OURS, Child
from vitrepro.bench.results import Phase, Result, Side, Turn
from vitrepro.bench.workloads import Workload
from vitrepro.errors import RunError, UsageError, did_you_mean
from vitrepro.memory import kind_of
from vitrepro.recipe import Arithmetic, Recipe

if TYPE_CHECKING:
    from vitrepro.bench.setup import Setup  # brings in torch

PHASES: tuple[Phase, ...] = ("training", "evaluation")
LEAST = {"training": 4, "evaluation": 2}  # batches of a turn, however slow they are
WARM_UP = {"training": 2, "evaluation": 1}
MOST_WORKERS = {"cpu": 4, "cuda": 16}  # a GPU's step leaves the cores to them


def opponents(texts: Sequence[str]) -> tuple[str, ...]:
    """The names of `--against timm --against plain`, or `--against timm,plain`.

    Raises:
        UsageError: not one of them.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in counterparts.OPPONENTS:
            known = ", ".join(counterparts.OPPONENTS)
            raise UsageError(f"--against {name!r} is not one of {known}{did_you_mean(name, counterparts.OPPONENTS)}")
    return tuple(dict.fromkeys(names))


def check(chosen: dict[str, Workload], against: Sequence[str]) -> None:
    """Refuse, before anything is timed, what cannot be held against anything.

    Raises:
        UsageError: with the workload and the reason.
    """
    for name, workload in chosen.items():
        for opponent in against:
            if reason := counterparts.refusal(workload.recipe, opponent):
                raise UsageError(f"{name}: --against {opponent} has no counterpart of {reason}")


def workers(device: str) -> int:
    """Processes of other people's loaders: one a core, and not too many."""
    return min(MOST_WORKERS[kind_of(device)], provenance.cores())


def machine(devices: Sequence[str]) -> dict[str, Any]:
    """On what is measured, and when."""
    from vitrepro.distributed import device_name

    threads = provenance.cores()
    environment = provenance.environment(devices[0], device_name(devices[0]), threads).model_dump()
    wanted = ("torch", "torchvision", "timm", "numpy", "pillow")
    return {
        "device": devices[0],
        "device_name": environment["device_name"],
        **({"cpu_name": provenance.cpu_name()} if devices[0] != "cpu" else {}),
        "threads": threads,
        "slots": len(devices),
        "workers": workers(devices[0]),
        "packages": {name: version for name, version in environment["packages"].items() if name in wanted},
        "python": environment["python"],
        "platform": environment["platform"],
        "vitrepro": environment["vitrepro"],
        "git_revision": environment["git_revision"],
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
    }


def work(chosen: dict[str, Workload], against: Sequence[str], pairs: int) -> int:
    """How many times progress is told."""
    return sum((pairs + 1) * (1 + (w.runs is not None) + len(against)) for w in chosen.values())


def measure(
    chosen: dict[str, Workload],
    against: Sequence[str],
    *,
    devices: Sequence[str],
    resolve: Callable[[Any], Arithmetic],
    pairs: int,
    seconds: float,
    cache_dir: Path,
    slots_named: bool = False,
    advance: Callable[[str], None] = lambda _: None,
) -> Iterator[list[Result]]:
    """Every workload, one after another: each one's results as soon as they are there.

    Args:
        devices: slots of whole runs; steps are timed on the first device, on a CPU with all threads.
        resolve: the arithmetic that a recipe's precision stands for here.
        seconds: what a turn of the slowest side should last.
        slots_named: the user said how many slots the CPU has.
        advance: told of every turn.

    Raises:
        UsageError, RunError: a workload cannot be timed here.
        Interrupted: a signal came during whole runs.
    """
    from vitrepro.bench.setup import Setup

    for name, workload in chosen.items():
        precision = resolve(workload.recipe.train.precision)
        if workload.runs is not None:
            from vitrepro.bench import packing

            yield [
                packing.measure(
                    name,
                    workload,
                    against,
                    devices=devices,
                    slots_named=slots_named,
                    precision=precision,
                    workers=workers(devices[0]),
                    pairs=pairs,
                    cache_dir=cache_dir,
                    advance=advance,
                )
            ]
            continue
        setup = Setup(workload.recipe, devices[0], precision, provenance.cores(), workers(devices[0]))
        yield _steps(name, workload, setup, (OURS, *against), pairs, seconds, advance)


def _steps(
    name: str,
    workload: Workload,
    setup: Setup,
    names: Sequence[str],
    pairs: int,
    seconds: float,
    advance: Callable[[str], None],
) -> list[Result]:
    """Turns of training and evaluation of one workload, after one of each that does not count."""
    with contextlib.ExitStack() as stack:
        sides = {side: stack.enter_context(Child(side, setup)) for side in names}
        parameters = {side: child.ask("parameters") for side, child in sides.items()}
        if len(set(parameters.values())) > 1:
            raise RunError(f"{name}: not the same model: {parameters} parameters")
        slowest = dict.fromkeys(PHASES, 0.0)
        compiled = False
        for side, child in sides.items():
            for phase in PHASES:
                warm: Turn = child.ask(phase, WARM_UP[phase])
                slowest[phase] = max(slowest[phase], warm.seconds / WARM_UP[phase])
                if side == OURS and phase == "training":
                    compiled = child.ask("settle_on", warm.seconds / WARM_UP[phase])
            child.ask("rest")
            advance(f"{name}: {side}")
        length = {phase: max(LEAST[phase], math.ceil(seconds / slowest[phase])) for phase in PHASES}
        turns: dict[Phase, dict[str, list[Turn]]] = {phase: {side: [] for side in names} for phase in PHASES}
        rate = 0.0
        for pair in range(pairs):
            order = list(sides) if pair % 2 == 0 else list(reversed(sides))
            for phase in PHASES:
                for side in order:
                    rate = max(rate, sides[OURS].ask("product_rate"))  # often, to meet the machine at its best as well
                    turns[phase][side].append(sides[side].ask(phase, length[phase]))
                    sides[side].ask("rest")
            for side in order:
                if side == OURS or pair == pairs - 1:  # it leaves a loader less far ahead than a turn does
                    for phase in PHASES:
                        turns[phase][side][-1] = _with_input(turns[phase][side][-1], sides[side], phase, length[phase])
                    sides[side].ask("rest")
                advance(f"{name}: {side}")
    return [
        Result(
            workload=name,
            title=workload.title,
            phase=phase,
            sides={side: Side(tuple(turns[phase][side]), *operations(setup.recipe, phase, side)) for side in names},
            batch_size=setup.recipe.train.batch_size,
            image_size=setup.recipe.image_size,
            precision=setup.precision,
            parameters=parameters[OURS],
            product_rate=rate,
            compiled=compiled and phase == "training",
        )
        for phase in PHASES
    ]


def _with_input(turn: Turn, side: Child, phase: Phase, batches: int) -> Turn:
    """The turn, with what its input takes alone, measured on a quarter of its batches."""
    a_batch = side.ask("input_alone", phase, max(2, batches // 4))
    return Turn(turn.images, turn.seconds, turn.memory_bytes, a_batch * batches)


def operations(recipe: Recipe, phase: Phase, side: str) -> tuple[float | None, float | None]:
    """Floating point operations an image takes: of the model by the conventional count, and what a side carries out.

    Ours leaves out what no logit depends on; the others carry everything out.
    """
    sizes: dict[str, Any] = {"image_size": recipe.image_size, "channels": recipe.channels}
    sizes |= {"num_classes": recipe.data.num_classes, "batch_size": recipe.train.batch_size}
    passes = flops.TRAINING_PASSES if phase == "training" else 1
    counted = flops.forward_macs(recipe.model, **sizes)
    leaves_out = side == OURS and recipe.train.engine == "fast"
    executed = flops.executed_macs(recipe.model, **sizes) if leaves_out else counted
    both = (None if macs is None else float(flops.FLOPS_PER_MAC * passes * macs) for macs in (counted, executed))
    model, carried_out = both
    return model, carried_out
