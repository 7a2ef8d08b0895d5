"""From claims to the runs that decide them: which scale, which runs, what is changed by hand.

Nothing here trains or loads images, and torch is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from vitrepro import yamlfile
from vitrepro.claims import Registry, arms_of, merge, recipes
from vitrepro.data.locate import locate, missing_message
from vitrepro.errors import ClaimFileError, UsageError, did_you_mean
from vitrepro.literal import Checked, evaluate
from vitrepro.recipe import Arithmetic, Precision, Recipe
from vitrepro.record import ENGINE, Deviation, run_identity
from vitrepro.spec import (
    SCALES,
    AnalyticArm,
    AnalyticExperiment,
    CheckName,
    Claim,
    Edge,
    LiteralExpect,
    Scale,
    TrainExperiment,
    content_hash,
)

NEEDS_GPU: tuple[CheckName, ...] = ("paper", "gpu")
_LENGTHS = ("train.steps", "train.epochs")


@dataclass(frozen=True)
class Override:
    """One `--set path=value`, laid over every recipe of the experiments at hand."""

    path: str
    value: Any

    @staticmethod
    def parse(text: str) -> Override:
        """`train.lr=1e-3` with the value read as YAML.

        Raises:
            UsageError: no '=', no path, or a value that is not YAML.
        """
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            raise UsageError(f"--set {text!r}: expected key.path=value, such as train.lr=0.01")
        try:
            return Override(path.strip(), yamlfile.parse(value, f"--set {path.strip()}").value)
        except ClaimFileError as error:
            raise UsageError(str(error)) from None


@dataclass(frozen=True)
class Run:
    """The smallest unit that is executed, stored and resumed.

    Attributes:
        config: a Recipe to train, or an AnalyticArm to count; its precision is resolved.
        deviations: what was changed by hand against the experiment file.
    """

    experiment: str
    arm: str
    seed: int
    config: Recipe | AnalyticArm
    deviations: tuple[Deviation, ...] = ()

    @property
    def id(self) -> str:
        """Hash of exactly what determines the result: recipe, seed, and the engine's generation."""
        return run_identity(ENGINE, self.type, self.config.model_dump(mode="json"), self.seed)

    @property
    def config_hash(self) -> str:
        """The same for all seeds of an arm."""
        return content_hash([ENGINE, self.type, self.config.model_dump(mode="json")])

    @property
    def type(self) -> Literal["train", "analytic"]:
        return "train" if isinstance(self.config, Recipe) else "analytic"

    @property
    def name(self) -> str:
        return f"{self.experiment}/{self.arm}" + (f" seed {self.seed}" if self.type == "train" else "")


@dataclass(frozen=True)
class Choice:
    """The scale at which a claim is checked, or None, and why the others were passed over."""

    claim: Claim
    scale: CheckName | None
    entry: Scale | None
    reasons: Mapping[str, str]

    @property
    def why_not(self) -> str:
        return "; ".join(f"{scale}: {reason}" for scale, reason in self.reasons.items())


@dataclass(frozen=True)
class ClaimPlan:
    """A claim, how it is checked, and the runs that decide it (none where it cannot be checked).

    Attributes:
        checked: at scale `literal`, where nothing is run, what the printed cells say.
        held_back: why nothing is run for it, though it could be: no PASS is possible.
        failed_if: what its experiment declares a failed run.
    """

    choice: Choice
    runs: tuple[Run, ...]
    registered_seeds: int
    checked: tuple[Checked, ...] = ()
    held_back: str | None = None
    failed_if: Edge | None = None

    @property
    def claim(self) -> Claim:
        return self.choice.claim


def obstacles(
    registry: Registry, data_dir: Path | None, cache_dir: Path, *, cuda: bool, elsewhere: bool = False
) -> Callable[[CheckName, Scale], str | None]:
    """A function that says what keeps this machine from running an entry, or None.

    Args:
        elsewhere: another machine is planned for, whose data and weights cannot be looked for.
    """

    def reason(scale: CheckName, entry: Scale) -> str | None:
        if entry.experiment is None:  # printed cells only
            return None
        experiment = registry.experiment(entry.experiment)
        if not isinstance(experiment, TrainExperiment):
            return None
        if scale in NEEDS_GPU and not cuda:
            return "needs a CUDA device, and none is used here"
        if elsewhere:
            return None
        made = recipes(experiment)
        needed = [made[arm] for _, arm in arms_of(entry.expect)] if entry.expect else []
        for name in dict.fromkeys(r.data.name for r in needed):
            location = locate(name, data_dir, cache_dir)
            if location.kind == "missing":
                return " ".join(missing_message(location).split())
        for released in dict.fromkeys(r.weights for r in needed if r.weights):
            from vitrepro import weights  # only where some are named

            found = weights.locate(released, data_dir)
            if found.path is None:
                return " ".join(weights.missing_message(found).split())
        return None

    return reason


def choose_scale(
    claim: Claim, wanted: CheckName | None, *, why_not: Callable[[CheckName, Scale], str | None]
) -> Choice:
    """The most faithful scale that can run here, or the one asked for if it can.

    Where nothing can be measured, the printed cells are still held against the statement (scale `literal`).

    Args:
        why_not: what keeps this machine from running a scale's entry, or None.
    """
    reasons: dict[str, str] = {}
    if wanted != "literal" and claim.scales.any is not None:
        entry = claim.scales.any
        problem = entry.infeasible or why_not(wanted or "paper", entry)
        if problem is None:
            return Choice(claim, "any", entry, {})
        if wanted is None and claim.scales.literal is not None:
            return Choice(claim, "literal", claim.scales.literal, {"any": problem})
        return Choice(claim, None, entry, {"any": problem})
    for scale in (wanted,) if wanted else SCALES:
        entry_or_none = claim.scales.entry(scale)
        if entry_or_none is None:
            has = ", ".join(claim.scales.entries())
            if wanted:
                reasons[scale] = f"the claim has no check at this scale (it has {has})"
            continue
        problem = entry_or_none.infeasible or why_not(scale, entry_or_none)
        if problem is None:
            return Choice(claim, scale, entry_or_none, reasons)
        reasons[scale] = problem
    if wanted is None and claim.scales.literal is not None:
        return Choice(claim, "literal", claim.scales.literal, reasons)
    return Choice(claim, None, None, reasons)


def plan_claim(
    registry: Registry,
    choice: Choice,
    *,
    resolve: Callable[[Precision], Arithmetic],
    precision: Precision = "auto",
    seeds: int | None = None,
    overrides: Sequence[Override] = (),
) -> ClaimPlan:
    """Expand a choice into the runs that decide the claim: the arms its expectation names, times the seeds.

    Args:
        resolve: the precision that `auto` stands for on the devices at hand.
        precision: instead of the recipe's; a deviation only where the recipe fixes another.
        seeds: how many, instead of the registered ones: the first of them, then the next integers.

    Raises:
        UsageError: an override names no field, or a value it cannot have.
    """
    entry = choice.entry
    if choice.scale is not None and entry is not None and isinstance(entry.expect, LiteralExpect):
        return ClaimPlan(choice, (), 0, evaluate(entry.expect, registry.cells(choice.claim)))
    if choice.scale is None or entry is None or entry.experiment is None or entry.expect is None:
        return ClaimPlan(choice, (), 0)
    experiment = registry.experiment(entry.experiment)
    arms = dict.fromkeys(arm for _, arm in arms_of(entry.expect))
    if isinstance(experiment, AnalyticExperiment):
        if overrides:
            raise UsageError(f"--set {overrides[0].path}: {choice.claim.id} counts and trains nothing to change")
        runs = tuple(Run(experiment.id, arm, 0, experiment.arms[arm]) for arm in arms)
        return ClaimPlan(choice, runs, 1)
    made = recipes(experiment)
    numbers = first_seeds(experiment.seeds, seeds)
    planned = []
    for arm in arms:
        registered = made[arm]
        wanted = overrides
        if precision != "auto" and registered.train.precision != "auto":
            wanted = (*overrides, Override("train.precision", precision))
        recipe, deviations = apply(registered, wanted)
        asked = precision if recipe.train.precision == "auto" else recipe.train.precision
        train = recipe.train.model_copy(update={"precision": resolve(asked)})
        recipe = recipe.model_copy(update={"train": train})
        planned.append((arm, recipe, deviations))
    ordered = [Run(experiment.id, arm, s, r, d) for s in numbers for arm, r, d in planned]  # whole seeds first
    return ClaimPlan(choice, tuple(ordered), len(experiment.seeds), failed_if=experiment.failed_if)


def first_seeds(registered: Sequence[int], count: int | None) -> tuple[int, ...]:
    """The first `count` seeds; beyond the registered ones, the next unused integers."""
    if count is None:
        return tuple(registered)
    extra = (s for s in range(max(registered) + 1, max(registered) + 1 + count))
    return (*registered, *extra)[:count]


def apply(recipe: Recipe, overrides: Sequence[Override]) -> tuple[Recipe, tuple[Deviation, ...]]:
    """A recipe with overrides laid over it, and what that changed.

    Raises:
        UsageError: a path that names no field (with the nearest), or a value the field cannot have.
    """
    registered: dict[str, Any] = recipe.model_dump()
    values = registered
    for override in overrides:
        if _lookup(values, override.path) == override.value:
            continue
        change: Any = override.value
        for key in reversed(override.path.split(".")):
            change = {key: change}
        values = merge(values, change)
        if override.path in _LENGTHS:  # one replaces the other
            other = next(path for path in _LENGTHS if path != override.path)
            values["train"][other.split(".")[1]] = None
    try:
        result = Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"]) or "recipe"
        found = "" if isinstance(first["input"], dict) else f" (found {_short(first['input'])})"
        raise UsageError(f"--set: {where}: {first['msg'].removeprefix('Value error, ')}{found}") from None
    deviations = []
    for path in dict.fromkeys(o.path for o in overrides):
        used, old = _lookup(values, path), _lookup(registered, path)
        if used is None or used == old:  # set back, or replaced by the other way to give a length
            continue
        shown = f"{recipe.steps} steps" if path in _LENGTHS and old is None else "none" if old is None else _short(old)
        deviations.append(Deviation(path=path, used=_short(used), registered=shown))
    if result != recipe and not deviations:  # a value was taken away
        deviations = [Deviation(path=o.path, used="none", registered="another") for o in overrides]
    return result, tuple(deviations)


def _lookup(values: Mapping[str, Any], path: str) -> Any:
    keys = path.split(".")
    place: Any = values
    for i, key in enumerate(keys):
        if not isinstance(place, Mapping) or key not in place:
            known = [".".join((*keys[:i], k)) for k in place] if isinstance(place, Mapping) else []
            hint = did_you_mean(path, known, cutoff=0.4) or f"; known: {', '.join(known) or 'nothing below it'}"
            raise UsageError(f"--set {path}: no such setting{hint}")
        place = place[key]
    return place


def unique_runs(plans: Iterable[ClaimPlan]) -> tuple[Run, ...]:
    """Every run once, claim by claim, so that early claims are decided early; none of plans that are held back."""
    return tuple({run.id: run for plan in plans if plan.held_back is None for run in plan.runs}.values())


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
