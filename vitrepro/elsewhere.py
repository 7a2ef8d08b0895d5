"""Numbers that somebody obtained elsewhere, held against a claim by its own rules: nothing is run, nothing is stored.

An accuracy or a file of predictions is given for each cell of a claim, or for each arm that it compares. What is
given becomes an `Arm`, and `verdict.weigh` decides as it does for stored runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vitrepro.catalog import DATASETS
from vitrepro.claims import Registry, arms_of, recipes
from vitrepro.errors import UsageError, did_you_mean
from vitrepro.given import Given, check_same_labels, read
from vitrepro.recipe import Recipe
from vitrepro.rules import Arm
from vitrepro.spec import (
    CHECKS,
    CheckName,
    Claim,
    EquivalenceExpect,
    Expect,
    OrderingExpect,
    Scale,
    TrainExperiment,
    TrendExpect,
    ValueCheck,
    ValueExpect,
)
from vitrepro.verdict import Verdict, weigh

MOST_SEEDS = 1_000
REEVALUATION = 0.1  # margin in points for the same weights evaluated again, where the claim states none
CLASSES: dict[str, int] = {name: d.num_classes for name, d in DATASETS.items()}
CLASSES |= {"imagenet": 1000, "imagenet-real": 1000}


@dataclass(frozen=True)
class Asked:
    """How what was given is to be judged.

    Attributes:
        n: test images behind each accuracy, where the claim does not say it.
        seeds, sd: one accuracy is the mean of so many runs with this standard deviation.
        margin: in points, where the claim registers none.
        same_weights: the numbers are of the very weights that the source evaluated.
    """

    scale: CheckName | None = None
    n: int | None = None
    seeds: int | None = None
    sd: float | None = None
    margin: float | None = None
    same_weights: bool = False


@dataclass(frozen=True)
class Result:
    """A verdict, and the names that were given or reported and could not be judged, with the reason."""

    verdict: Verdict
    not_judged: Mapping[str, str] = field(default_factory=dict)


def from_claim(source: Claim, target: Claim) -> tuple[dict[str, Given], dict[str, str]]:
    """The reported numbers of another claim, by cell; and those that the target has no cell for.

    Raises:
        UsageError: no cell of the two has the same name, or one says other test images than the other.
    """
    theirs = source.reported.cells if source.reported else {}
    ours = target.reported.cells if target.reported else {}
    if source.id == target.id:
        raise UsageError(f"--from {source.id}: a claim's own numbers say nothing of it")
    shared = [name for name in theirs if name in ours]
    if not shared:
        raise UsageError(
            f"--from {source.id}: none of its cells ({', '.join(theirs) or 'it has none'}) is one of {target.id} "
            f"({', '.join(ours) or 'it has none'})"
        )
    for name in shared:
        n, m = theirs[name].n, ours[name].n
        if n is not None and m is not None and n != m:
            raise UsageError(f"--from {source.id}: {name} is of {n:,} test images there, of {m:,} in {target.id}")
    given = {name: Given(accuracies=(theirs[name].value,), digits=(theirs[name].decimals,)) for name in shared}
    return given, {name: f"{target.id} reports no {name}" for name in theirs if name not in ours}


# --- the verdict --------------------------------------------------------------------------------


def judge(registry: Registry, claim: Claim, cell: str | None, given: Mapping[str, Given], asked: Asked) -> Result:
    """The verdict that these numbers give.

    Args:
        cell: judge this reported cell alone.
        given: by name of a cell or arm; the empty name where there is one only.

    Raises:
        UsageError: numbers for what the claim does not have, none for what it needs, or numbers that cannot be.
    """
    if not given:
        raise UsageError("nothing is given to judge; use --accuracy, --correct, --predictions or --from")
    scale, entry = _check(claim, asked.scale)
    if claim.kind == "value" or (entry is not None and isinstance(entry.expect, ValueExpect)):
        return _value(claim, cell, given, asked, scale, entry)
    if entry is None or entry.expect is None:
        raise UsageError(
            f"{claim.id}: a claim of kind {claim.kind} with no check that accuracies could decide; `vitrepro show "
            f"{claim.id}` says what it has"
        )
    return _arms(registry, claim, given, asked, scale, entry)


def _check(claim: Claim, wanted: CheckName | None) -> tuple[CheckName | None, Scale | None]:
    """The most faithful scale that accuracies can decide, or the one asked for; none where no scale has a check.

    Raises:
        UsageError: the scale asked for has no such check.
    """
    kinds = (ValueExpect, OrderingExpect, TrendExpect, EquivalenceExpect)
    entries = {s: e for s, e in claim.scales.entries().items() if isinstance(e.expect, kinds)}
    if wanted is not None and wanted not in entries:
        has = ", ".join(entries) or "none"
        raise UsageError(f"{claim.id} has no check of accuracies at scale {wanted} (it has {has})")
    for scale in (wanted,) if wanted else CHECKS:
        if scale in entries:
            return scale, entries[scale]
    return None, None


def _value(
    claim: Claim,
    only: str | None,
    given: Mapping[str, Given],
    asked: Asked,
    scale: CheckName | None,
    entry: Scale | None,
) -> Result:
    cells = claim.reported.cells if claim.reported else {}
    if claim.reported is None or ("%" not in claim.reported.unit and "percent" not in claim.reported.unit):
        unit = repr(claim.reported.unit) if claim.reported else "nothing"
        raise UsageError(f"{claim.id} reports {unit}; only accuracies in percent can be judged")
    named = _named(given, [only] if only else list(cells), claim.id, "cell")
    checks: dict[str, ValueCheck] = {}
    arms, notes, not_judged = {}, [], {}
    by_hand = False
    for name, numbers in named.items():
        found = _margin(claim, name, asked, entry)
        if found is None:
            not_judged[name] = f"{claim.id} registers no margin for {name}; --margin gives one, which decides nothing"
            continue
        check, registered = found
        by_hand = by_hand or not registered
        size = _size(name, cells[name].n, asked.n, numbers)
        arms[name], told = _arm(name, numbers, size, _classes(name, None), asked)
        notes += told
        checks[name] = check
    if not checks:
        raise UsageError("; ".join(not_judged.values()))
    caps = [("margin given by hand", "a margin chosen beside the result decides nothing")] if by_hand else []
    expect = ValueExpect(cells=checks)
    used = None if entry is None or not isinstance(entry.expect, ValueExpect) else scale
    return Result(_weigh(claim, expect, arms, used, caps, notes), not_judged)


def _margin(claim: Claim, cell: str, asked: Asked, entry: Scale | None) -> tuple[ValueCheck, bool] | None:
    """How a cell is judged, and whether its margin was registered; None without a margin.

    Raises:
        UsageError: a margin by hand that cannot be one, or beside a registered one.
    """
    assert claim.reported is not None
    same = asked.same_weights or claim.reported.is_evaluated(cell)
    reported = claim.reported.cells[cell]
    if same and (reported.sd is not None or (reported.runs or 1) > 1):
        raise UsageError(
            f"--same-weights: {cell} is reported as a mean of several runs, which no one set of weights has"
        )
    expect = entry.expect if entry is not None else None
    stated = expect.cells.get(cell) if isinstance(expect, ValueExpect) else None
    registered = stated if stated is not None and stated.same_weights == same else None
    margin = claim.reported.margin(cell)
    if registered is None and margin is not None and claim.reported.is_evaluated(cell) == same:
        registered = ValueCheck(arm=cell, margin=margin, same_weights=same)
    if registered is None and same:
        registered = ValueCheck(arm=cell, margin=REEVALUATION, same_weights=True)
    if asked.margin is not None:
        if not 0 < asked.margin < 50:  # also refuses NaN
            raise UsageError(f"--margin {asked.margin:g}: a margin in points is above 0 and below 50")
        if registered is not None:
            raise UsageError(
                f"--margin {asked.margin:g}: {claim.id} registers {registered.margin:g} points for {cell}; leave it out"
            )
        return ValueCheck(arm=cell, margin=asked.margin), False
    return None if registered is None else (registered.model_copy(update={"arm": cell}), True)


def _arms(
    registry: Registry,
    claim: Claim,
    given: Mapping[str, Given],
    asked: Asked,
    scale: CheckName | None,
    entry: Scale,
) -> Result:
    expect = entry.expect
    assert expect is not None
    if isinstance(expect, OrderingExpect) and expect.measures:
        raise UsageError(f"{claim.id} rests on measures of trained models, which accuracies do not tell; verify it")
    if asked.same_weights or asked.margin is not None:
        option = "--same-weights" if asked.same_weights else "--margin"
        raise UsageError(f"{option} is for a reported number; {claim.id} compares arms with each other")
    needed = list(dict.fromkeys(arm for _, arm in arms_of(expect)))
    named = _named(given, needed, claim.id, "arm")
    missing = [arm for arm in needed if arm not in named]
    if missing:
        raise UsageError(f"{claim.id} compares {', '.join(needed)}; nothing is given for {', '.join(missing)}")
    known = _recipes(registry, entry)
    arms, notes = {}, []
    for name in needed:
        recipe = known.get(name)
        size = _size(name, recipe.test_size if recipe else None, asked.n, named[name])
        arms[name], told = _arm(name, named[name], size, _classes(name, recipe), asked)
        notes += told
    sizes = {arm.n for arm in arms.values()}
    if len(sizes) > 1:
        raise UsageError(
            f"the arms are of {' and '.join(f'{n:,}' for n in sorted(sizes))} test images; one set is needed"
        )
    check_same_labels(named)
    if any(arm.correct is None for arm in arms.values()):
        arms = {name: replace(arm, correct=None) for name, arm in arms.items()}
        notes.append("unpaired, from accuracies alone")
    return Result(_weigh(claim, expect, arms, scale, (), notes))


def _weigh(
    claim: Claim,
    expect: Expect,
    arms: Mapping[str, Arm],
    scale: CheckName | None,
    caps: Sequence[tuple[str, str]],
    notes: Iterable[str],
) -> Verdict:
    return weigh(
        claim,
        expect,
        arms,
        scale=scale,
        fidelity="elsewhere",
        registered_seeds=1,
        caps=caps,
        beside=("not run by vitrepro", *dict.fromkeys(notes)),
    )


def _named(given: Mapping[str, Given], known: Sequence[str], claim_id: str, what: str) -> dict[str, Given]:
    """What was given under names that the claim has.

    Raises:
        UsageError: a name that it does not have, or none where several are possible.
    """
    found = {}
    for name, numbers in given.items():
        if not name and len(known) > 1:
            raise UsageError(f"{claim_id} has several {what}s; name one, as in {known[0]}=VALUE ({', '.join(known)})")
        own = name or known[0]
        if own not in known:
            hint = did_you_mean(own, known) or f"; it has {', '.join(known)}"
            raise UsageError(f"{claim_id} has no {what} {own!r} to judge{hint}")
        if own in found:
            raise UsageError(f"{own} is given twice")
        found[own] = numbers
    return found


def _recipes(registry: Registry, entry: Scale) -> Mapping[str, Recipe]:
    experiment = registry.experiment(entry.experiment) if entry.experiment else None
    return recipes(experiment) if isinstance(experiment, TrainExperiment) else {}


def _classes(name: str, recipe: Recipe | None) -> int:
    """Classes of the test set, for what guessing would give; two, the most cautious, where nothing tells."""
    if recipe is not None:
        return recipe.data.num_classes
    fitting = [data for data in CLASSES if name == data or name.endswith(f"-{data}")]
    return CLASSES[max(fitting, key=len)] if fitting else 2


def _size(name: str, registered: int | None, n: int | None, given: Given) -> int | None:
    """Test images; None where the files of predictions will tell.

    Raises:
        UsageError: another number than is registered, or none at all.
    """
    if n is not None and n < 1:
        raise UsageError(f"--n {n}: a test set has one image or more")
    if n is not None and registered is not None and n != registered:
        raise UsageError(f"--n {n:,}: {name} is of {registered:,} test images; other images cannot be held against it")
    size = n or registered
    if size is None and not given.files:
        raise UsageError(f"{name}: of how many test images? Give --n")
    return size


def _arm(name: str, given: Given, n: int | None, num_classes: int, asked: Asked) -> tuple[Arm, list[str]]:
    """What was given as an arm, and what must be said beside it."""
    if given.files:
        if asked.sd is not None or asked.seeds is not None:
            raise UsageError("--sd and --seeds go with one accuracy; files of predictions tell both")
        rows, commonest = read(name, given.files, n)
        return Arm.of(rows, num_classes=num_classes, commonest=commonest), []
    assert n is not None
    if given.counts:
        above = [k for k in given.counts if k > n]
        if above:
            raise UsageError(f"--correct {above[0]:,}: more than the {n:,} test images of {name}")
        accuracies = tuple(100 * k / n for k in given.counts)
        notes = []
    else:
        accuracies = given.accuracies
        pairs = zip(accuracies, given.digits, strict=True)
        odd = [a for a, digits in pairs if not _is_count(a, n, digits)] if asked.seeds is None else []
        notes = [f"{name}: {odd[0]:g} is no count of {n:,} images (a mean over batches or runs?)"] if odd else []
    spread = _spread(accuracies, asked)
    return Arm(spread, n, len(spread), None, num_classes), notes


def _is_count(accuracy: float, n: int, digits: int | None) -> bool:
    """Whether some number of n images rounds to this accuracy."""
    half = 1e-9 * 100 if digits is None else 0.5 * 10.0**-digits + 1e-9
    return abs(100 * round(accuracy * n / 100) / n - accuracy) <= half


def _spread(accuracies: tuple[float, ...], asked: Asked) -> tuple[float, ...]:
    """One accuracy per run; of a mean and its deviation, numbers that have both.

    Raises:
        UsageError: a deviation without seeds, seeds without one, or several accuracies beside them.
    """
    if asked.seeds is None and asked.sd is None:
        return accuracies
    if asked.seeds is not None and asked.sd is None and asked.seeds == len(accuracies):
        return accuracies
    if asked.seeds is not None and asked.seeds > MOST_SEEDS:
        raise UsageError(f"--seeds {asked.seeds}: at most {MOST_SEEDS:,}")
    if len(accuracies) != 1 or asked.seeds is None or asked.sd is None or asked.seeds < 2:
        raise UsageError(
            "--seeds 3 --sd 0.05 say that one accuracy is the mean of three runs with this standard deviation; give "
            "both and one accuracy, or the accuracy of each run, separated by ','"
        )
    if not (math.isfinite(asked.sd) and asked.sd >= 0):
        raise UsageError(f"--sd {asked.sd:g}: a standard deviation in points is 0 or more")
    steps = np.arange(asked.seeds) - (asked.seeds - 1) / 2
    spread = accuracies[0] + asked.sd * steps / steps.std(ddof=1)
    if spread.min() < 0 or spread.max() > 100:
        raise UsageError(
            f"--sd {asked.sd:g}: runs that vary so much around {accuracies[0]:g} would not stay within 0 and 100"
        )
    return tuple(spread.tolist())
