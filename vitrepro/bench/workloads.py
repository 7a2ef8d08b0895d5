"""What is timed: the recipes of `workloads.yaml`, and any arm of the registry."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from vitrepro import claims, yamlfile
from vitrepro.claims import Registry
from vitrepro.errors import UsageError, did_you_mean
from vitrepro.recipe import Recipe, Strict
from vitrepro.spec import AnalyticExperiment
from vitrepro.store import first_fault

RATE = 1e-4  # learning rate of timed steps: random labels teach nothing, and must not diverge


class Workload(Strict):
    """A recipe to time.

    Attributes:
        device: where it is timed unless named; what says `cuda` is refused on a CPU.
        runs: that many whole runs on all slots, against one process that does them one after another; None:
            steps of training and evaluation.
    """

    title: str
    device: Literal["cpu", "cuda"] = "cpu"
    runs: PositiveInt | None = Field(None)
    recipe: Recipe


@functools.cache
def table() -> dict[str, Workload]:
    """The built-in workloads by name."""
    path = Path(__file__).with_name("workloads.yaml")
    return {name: Workload.model_validate(value) for name, value in yamlfile.read(path).value.items()}


def chosen(names: Sequence[str], registry: Registry) -> dict[str, Workload]:
    """The workloads of these names.

    Raises:
        UsageError: no such workload or arm, or nothing to time.
    """
    return {name: table().get(name) or _arm(name, registry) for name in names}


def suited(named: dict[str, Workload], devices: Sequence[str]) -> dict[str, Workload]:
    """The workloads that were named, or, where none was, those for these slots.

    Raises:
        UsageError: a CPU is too slow for one, or there are too few slots.
    """
    kind = devices[0].partition(":")[0]
    packs = len(devices) > 1 or kind == "cuda"  # several small runs share a GPU
    if not named:
        return {name: w for name, w in table().items() if w.device == kind and (packs or w.runs is None)}
    whole = next((name for name, w in named.items() if w.runs is not None), None)
    if whole and not packs:
        raise UsageError(f"{whole}: there is one slot only, nothing to pack; use --devices cpu:N")
    slow = next((name for name, w in named.items() if w.device == "cuda" and kind == "cpu"), None)
    if slow:
        small = ", ".join(name for name, w in table().items() if w.device == "cpu")
        raise UsageError(
            f"{slow} needs a CUDA device: a CPU takes minutes for one of its steps, so that pairs of turns would "
            f"take hours. For a CPU: {small}, or EXPERIMENT/ARM of the registry"
        )
    return named


def _arm(name: str, registry: Registry) -> Workload:
    experiment_id, _, arm = name.partition("/")
    experiment = registry.experiments.get(experiment_id)
    if experiment is None:
        known = [*table(), *(f"{e.id}/{a}" for e in registry.experiments.values() for a in claims.arm_names(e))]
        raise UsageError(
            f"no workload {name!r}{did_you_mean(name, known)} (known: {', '.join(table())}, and EXPERIMENT/ARM)"
        )
    if isinstance(experiment, AnalyticExperiment):
        raise UsageError(f"{name}: experiment {experiment.id} is counted by formula, there is nothing to time")
    made = claims.recipes(experiment)
    if arm not in made:
        raise UsageError(f"{name}: no such arm{did_you_mean(arm, made)} (arms of {experiment.id}: {', '.join(made)})")
    return Workload(title=f"an arm of {experiment.title[:1].lower()}{experiment.title[1:]}", recipe=made[arm])


def changed(name: str, workload: Workload, *, precision: str, batch_size: int | None) -> Workload:
    """The workload in the precision and with the batch asked for, where they are (`auto` and None leave them).

    Raises:
        UsageError: the recipe cannot have such a batch.
    """
    change: dict[str, Any] = {}
    if precision != "auto":
        change["precision"] = precision
    if batch_size is not None:
        change["batch_size"] = batch_size
    train = workload.recipe.train.model_dump() | change
    try:
        recipe = Recipe.model_validate(workload.recipe.model_dump() | {"train": train})
    except ValidationError as error:
        raise UsageError(f"{name}: {first_fault(error)}") from None
    return workload.model_copy(update={"recipe": recipe})


def timed(recipe: Recipe, steps: int) -> Recipe:
    """The recipe for that many steps, with a learning rate that random labels cannot diverge at."""
    change = {"steps": steps, "epochs": None, "warmup_steps": 0, "lr": RATE, "lr_grid": None}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=change)})
