"""What a claim expects, held against the experiment that is to tell."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from vitrepro.claims.arms import recipes
from vitrepro.claims.faults import dotted
from vitrepro.errors import did_you_mean
from vitrepro.metrics import TOP1, is_accuracy, limits, of_ignorance, unavailable
from vitrepro.recipe import COMPUTING, apart
from vitrepro.spec import (
    AnalyticExperiment,
    Bound,
    Cell,
    Claim,
    Comparison,
    Conditional,
    EquivalenceExpect,
    ExactCheck,
    ExactExpect,
    Expect,
    OrderingExpect,
    TrainExperiment,
    ValueExpect,
)
from vitrepro.yamlfile import Document, Loc


def check_measures(expect: Conditional, experiment: TrainExperiment, document: Document, at: Loc) -> Iterator[str]:
    """Every metric is measured in its arms, and every bound on one can be missed."""
    made = recipes(experiment)
    used: list[tuple[Loc, str, str]] = []
    if isinstance(expect, ValueExpect):
        used = [(("cells", name), c.arm, c.metric) for name, c in expect.cells.items()]
    compared: list[tuple[Loc, Comparison | Bound]] = [(("given", i), c) for i, c in enumerate(expect.given)]
    if isinstance(expect, OrderingExpect):
        compared += [(("all", i), c) for i, c in enumerate(expect.all)]
    for path, c in compared:
        used += [(path, arm, c.metric) for arm in c.arms]
        low, high = limits(c.metric)
        if isinstance(c, Bound) and not (c.above is None or c.above > low):
            place = document.where((*at, "expect", *path, "above"))
            yield f"{place}: {dotted(at)}.expect: {c.metric} is never below {low:g}; the bound cannot be missed"
        if isinstance(c, Bound) and not (c.below is None or c.below < high):
            place = document.where((*at, "expect", *path, "below"))
            yield f"{place}: {dotted(at)}.expect: {c.metric} is never above {high:g}; the bound cannot be missed"
    for path, arm, metric in used:
        why = unavailable(metric, made[arm]) if arm in made else None
        if why is not None:
            place = document.where((*at, "expect", *path))
            yield f"{place}: {dotted(at)}.expect: arm {arm!r} of {experiment.id} does not measure {metric}; {why}"


def unpaired(expect: EquivalenceExpect, experiment: TrainExperiment) -> Iterator[str]:
    """Which arms do not start alike from a seed, and see the same batches: those that differ in what is computed."""
    made = recipes(experiment) if expect.paired_by_seed else {}
    arms = [arm for arm in expect.equal if arm in made]
    for arm in arms[1:]:
        path = apart(made[arms[0]], made[arm])
        if path is not None:
            yield (
                f"arms {arms[0]!r} and {arm!r} of {experiment.id} differ in {path}; arms that seeds make pairs of may "
                f"differ in {', '.join(COMPUTING)} only"
            )


def _printed(claim: Claim, check: ExactCheck) -> bool:
    """Whether a count must equal a number that the source itself prints."""
    ours = claim.ours or claim.reported is None or claim.reported.by == "us"
    return not ours and check.direction == "equal"


def _decimals(cell: Cell) -> int:
    """Digits after the point that are printed; those of the value where nothing else is said."""
    if cell.decimals is not None:
        return cell.decimals
    exponent = Decimal(repr(cell.value)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def check_cells(
    claim: Claim,
    scale_name: str,
    expect: Expect,
    experiment: TrainExperiment | AnalyticExperiment,
    document: Document,
    loc: Loc,
) -> Iterator[str]:
    """Cells exist, quantities are measured, and no margin reaches the result of knowing nothing."""
    if not isinstance(expect, ExactExpect | ValueExpect):
        return
    cells = claim.reported.cells if claim.reported else {}
    for name, check in expect.cells.items():
        at: Loc = (*loc, "scales", scale_name, "expect", "cells", name)
        where = f"{document.where(at)}: {dotted(at)}"
        if name not in cells:
            yield f"{where}: no reported cell {name!r}{did_you_mean(name, cells)}"
        elif isinstance(experiment, AnalyticExperiment) and isinstance(expect, ExactExpect):
            arm, quantity = experiment.arms.get(check.arm), expect.cells[name].quantity
            if arm and quantity not in arm.quantities:
                yield f"{where}: arm {check.arm!r} of {experiment.id} does not measure {quantity}"
            value, exact = cells[name].value, expect.cells[name]
            tolerance = exact.tolerance or 0.0
            if value and tolerance >= abs(value) / 2:
                yield f"{where}: tolerance {tolerance:g} is not below half of {value:g}: nearly anything passes"
            elif claim.scales.entries()[scale_name].fidelity == "exact" and _printed(claim, exact):
                half = 0.5 * 10.0 ** -_decimals(cells[name])
                allowed = tolerance if exact.relative_tolerance is None else exact.relative_tolerance * abs(value)
                if allowed > half * (1 + 1e-9):
                    yield (
                        f"{where}: exact is a count that rounds to what is printed, within {half:g}, and {allowed:g} "
                        "is allowed; with a wider tolerance it is a substitute"
                    )
            if exact.direction == "at_least" and value <= 0:
                yield f"{where}: every quantity is at least {value:g}; the check cannot fail"
        elif isinstance(experiment, TrainExperiment) and isinstance(expect, ValueExpect):
            recipe = recipes(experiment).get(check.arm)
            value, margin, metric = cells[name].value, expect.cells[name].margin, expect.cells[name].metric
            chance = of_ignorance(metric, recipe) if recipe else None
            at_least = expect.cells[name].direction == "at_least"
            if expect.cells[name].same_weights:
                yield (
                    f"{where}: same_weights is for a released model evaluated as it is, and {experiment.id} trains; "
                    "reported.evaluated names such cells for `vitrepro judge`"
                )
            percent = claim.reported and ("%" in claim.reported.unit or "percent" in claim.reported.unit)
            low, high = limits(metric)
            if is_accuracy(metric) and claim.reported and not percent:
                yield f"{where}: accuracies are compared in percent, reported.unit is {claim.reported.unit!r}"
            elif not low <= value <= high:
                what = "an accuracy in percent" if metric == TOP1 else metric
                yield f"{where}: reported {value}; {what} lies between {low:g} and {high:g}"
            elif chance is not None and margin >= (value - chance if at_least else abs(value - chance)) / 2:
                what = "chance" if is_accuracy(metric) else "that of a model that knows nothing"
                yield f"{where}: margin {margin} is not below half the distance of {value} to {what}, {chance:g}"
