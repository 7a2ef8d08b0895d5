"""How the arms of a claim would be computed here: the choices made for speed, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from vitrepro import provenance
from vitrepro.claims import Registry, arms_of, recipes
from vitrepro.distributed import resolve_precision
from vitrepro.engine import choose
from vitrepro.plan import Choice
from vitrepro.report.terminal import table
from vitrepro.spec import TrainExperiment


def choices(choice: Choice, registry: Registry, devices: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Of each arm that the claim's experiment trains at this scale: what is chosen, by name; {} where nothing is."""
    entry = choice.entry
    experiment = registry.experiments.get(entry.experiment or "") if entry is not None else None
    if entry is None or entry.expect is None or not isinstance(experiment, TrainExperiment):
        return {}
    named = {arm for _, arm in arms_of(entry.expect)}
    found = {}
    for arm, recipe in recipes(experiment).items():
        if arm in named:
            precision = resolve_precision(recipe.train.precision, devices)
            told = choose(recipe, devices[0], precision).told
            found[arm] = {"device": devices[0], "precision": precision} | told | {"allocator": provenance.KEPT}
    return found


def print_choices(out: Console, scale: str | None, found: Mapping[str, Mapping[str, str]]) -> None:
    """A table for each set of choices, with the arms that share it."""
    if not found:
        out.print("  Engine: nothing is trained for this claim here.", markup=False)
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for arm, told in found.items():
        alike.setdefault(tuple(told.items()), []).append(arm)
    for rows, arms in alike.items():
        out.print(f"  Engine at scale {scale}, {', '.join(arms)}:", markup=False, soft_wrap=True)
        out.print(table(("choice", "here"), rows))
