"""Arms of an experiment, and those that an expectation names."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vitrepro.recipe import Recipe
from vitrepro.spec import (
    AnalyticExperiment,
    Bound,
    Comparison,
    Conditional,
    EquivalenceExpect,
    ExactExpect,
    Expect,
    LiteralExpect,
    OrderingExpect,
    TrainExperiment,
    TrendExpect,
    ValueExpect,
)
from vitrepro.yamlfile import Loc

_recipes: dict[int, dict[str, Recipe]] = {}  # of experiments that are alive, by identity


def recipes(experiment: TrainExperiment) -> dict[str, Recipe]:
    """Arm name -> its whole recipe.

    Raises:
        ValidationError: an arm is not a recipe (files are checked for this when they are read).
    """
    if id(experiment) not in _recipes:
        keep_recipes(experiment, {name: Recipe.model_validate(merged) for name, _, merged in combinations(experiment)})
    return dict(_recipes[id(experiment)])


def keep_recipes(experiment: TrainExperiment, made: dict[str, Recipe]) -> None:
    """Have `recipes` return these, for as long as the experiment is there."""
    _recipes[id(experiment)] = made
    weakref.finalize(experiment, _recipes.pop, id(experiment), None).atexit = False


def arm_names(experiment: TrainExperiment | AnalyticExperiment) -> tuple[str, ...]:
    """In the order of the file; of a training experiment the combinations of its factors' levels."""
    if isinstance(experiment, AnalyticExperiment):
        return tuple(experiment.arms)
    return tuple(name for name, _, _ in combinations(experiment))


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mapping by mapping; lists and scalars are replaced."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def arms_of(expect: Expect) -> tuple[tuple[Loc, str], ...]:
    """Every arm that an expectation names, with its key path inside it."""
    match expect:
        case ExactExpect() | ValueExpect():
            found: Iterable[tuple[Loc, str]] = ((("cells", k, "arm"), c.arm) for k, c in expect.cells.items())
        case OrderingExpect():
            found = _compared("all", expect.all)
        case TrendExpect():
            found = (
                ((key, i), arm)
                for key in ("larger_gain", "than", "increasing")
                for i, arm in enumerate(getattr(expect, key) or ())
            )
        case EquivalenceExpect():
            found = ((("equal", i), arm) for i, arm in enumerate(expect.equal))
        case LiteralExpect():
            found = ()
    conditions = expect.given if isinstance(expect, Conditional) else ()
    return (*found, *_compared("given", conditions))


def _compared(key: str, items: Sequence[Comparison | Bound]) -> Iterator[tuple[Loc, str]]:
    for i, c in enumerate(items):
        for side in ("arm",) if isinstance(c, Bound) else ("greater", "than"):
            yield (key, i, side), getattr(c, side)


def combinations(experiment: TrainExperiment) -> Iterator[tuple[str, tuple[Loc, ...], dict[str, Any]]]:
    """Name, key paths of its levels in the file, merged recipe: for every combination of levels."""
    combinations: list[tuple[tuple[str, ...], tuple[Loc, ...], dict[str, Any]]] = [((), (), dict(experiment.base))]
    for factor, levels in experiment.factors.items():
        combinations = [
            ((*names, level), (*locs, ("factors", factor, level)), merge(merged, change))
            for names, locs, merged in combinations
            for level, change in levels.items()
        ]
    for names, locs, merged in combinations:
        yield "-".join(names), locs, merged
