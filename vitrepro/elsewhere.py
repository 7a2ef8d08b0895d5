"""Numbers that somebody obtained elsewhere, held against a claim by its own rules: nothing is run, nothing is stored.

An accuracy or a file of predictions is given for each cell of a claim, or for each arm that it compares. What is
given becomes an `Arm`, and `verdict.weigh` decides as it does for stored runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from vitrepro.catalog import DATASETS
from vitrepro.claims import Registry, arms_of, recipes
from vitrepro.errors import UsageError, did_you_mean
from vitrepro.given import Answers, Given, check_distinct, check_same_images, read, spread
from vitrepro.metrics import TOP1
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

REEVALUATION = 0.1  # margin in points for the same weights evaluated again, where the claim states none
MOST_IMAGES = 10**9
CLASSES: dict[str, int] = {name: d.num_classes for name, d in DATASETS.items()}
CLASSES |= {"imagenet": 1000, "imagenet-real": 1000}
Origin = Literal["scale", "claim", "default", "hand"]  # where a margin comes from


@dataclass(frozen=True)
class Asked:
    """How what was given is to be judged.

    Attributes:
        n: test images behind each accuracy, where the claim does not say it.
        margin: in points, where the claim registers none.
        same_weights: the numbers are of the very weights that the source evaluated.
        source: the claim that reports the numbers, if one does.
    """

    scale: CheckName | None = None
    n: int | None = None
    margin: float | None = None
    same_weights: bool = False
    source: str | None = None


@dataclass(frozen=True)
class Result:
    """A verdict, and the names that were given or reported and could not be judged, with the reason."""

    verdict: Verdict
    not_judged: Mapping[str, str] = field(default_factory=dict)


def from_claim(
    source: Claim, target: Claim, cell: str | None = None, scale: CheckName | None = None
) -> tuple[dict[str, Given], dict[str, str]]:
    """The numbers that another claim reports, by cell or arm; and those that cannot be judged, with the reason.

    Args:
        cell: of the target, which is to be judged alone.

    Raises:
        UsageError: the source is the target, has no accuracies in percent, or none that the target asks for.
    """
    if source.id == target.id:
        raise UsageError(f"--from {source.id}: a claim's own numbers say nothing of it")
    if not _in_percent(source):
        unit = repr(source.reported.unit) if source.reported else "nothing"
        raise UsageError(f"--from {source.id}: it reports {unit}; only accuracies in percent can be judged")
    assert source.reported is not None
    theirs = source.reported.cells
    takes = [cell] if cell is not None else _takes(target, scale)
    if not set(theirs) & set(takes):
        raise UsageError(
            f"--from {source.id}: none of its cells ({', '.join(theirs)}) is one of {target.id} "
            f"({', '.join(takes) or 'it has none'})"
        )
    given: dict[str, Given] = {}
    left = {} if cell is not None else {n: f"{target.id} has no {n}" for n in theirs if n not in takes}
    left |= {name: f"{source.id} reports no {name}" for name in takes if name not in theirs}
    for name in (name for name in takes if name in theirs):
        why = _unlike(source, target, name)
        if why is None:
            c = theirs[name]
            given[name] = Given((c.value,), digits=(c.decimals,), runs=c.runs, sd=c.sd, n=c.n, quoted=True)
        else:
            left[name] = why
    if not given:
        raise UsageError("; ".join(f"{name}: {why}" for name, why in left.items()))
    return given, left


def _unlike(source: Claim, target: Claim, name: str) -> str | None:
    """Why the number of one claim cannot be held against that of another, if so."""
    assert source.reported is not None
    value = source.reported.cells[name].value
    if not 0 <= value <= 100:
        return f"{value:g} of {source.id} is no accuracy in percent"
    if target.reported is not None and target.reported.is_evaluated(name):
        known = set(source.needs.weights)
        others = bool(known) and not set(target.needs.weights) <= known
        if others or not source.reported.is_evaluated(name):
            return f"{target.id} evaluates a released model there, which is not the model of {source.id}"
    return None


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
    if asked.n is not None and not 1 <= asked.n <= MOST_IMAGES:
        raise UsageError(f"--n {str(asked.n)[:20]}: a test set has one image or more, and at most {MOST_IMAGES:,}")
    check_distinct(given)
    scale, entry = _check(claim, asked.scale)
    if _by_cells(claim, entry):
        return _value(registry, claim, cell, given, asked)
    if entry is None:
        checked = [s for s, e in claim.scales.entries().items() if e.expect is not None]
        what = f"`vitrepro verify {claim.id}` checks it" if checked else f"`vitrepro show {claim.id}` says why"
        raise UsageError(f"{claim.id}: a claim of kind {claim.kind} with no check that accuracies could decide; {what}")
    if cell is not None:
        raise UsageError(f"{claim.id} compares arms with each other; leave out /{cell}")
    return _arms(registry, claim, given, asked, scale, entry)


def _in_percent(claim: Claim) -> bool:
    return claim.reported is not None and ("%" in claim.reported.unit or "percent" in claim.reported.unit)


def _by_cells(claim: Claim, entry: Scale | None) -> bool:
    """Whether numbers are held against reported ones, and not arms against each other."""
    return claim.kind == "value" or (entry is not None and isinstance(entry.expect, ValueExpect))


def _takes(claim: Claim, wanted: CheckName | None) -> list[str]:
    """Names of the cells or arms that numbers can be given for."""
    _, entry = _check(claim, wanted)
    if _by_cells(claim, entry):
        return list(claim.reported.cells) if claim.reported else []
    return _compared(entry.expect) if entry is not None and entry.expect is not None else []


def _compared(expect: Expect) -> list[str]:
    return list(dict.fromkeys(arm for _, arm in arms_of(expect)))


def _check(
    claim: Claim, wanted: CheckName | None, cells: Collection[str] = ()
) -> tuple[CheckName | None, Scale | None]:
    """The most faithful scale that accuracies can decide, or the one asked for; none where no scale has a check.

    Args:
        cells: only a scale with a margin for one of these reported numbers.

    Raises:
        UsageError: the scale asked for has no such check.
    """
    kinds = (ValueExpect, OrderingExpect, TrendExpect, EquivalenceExpect)
    entries = {s: e for s, e in claim.scales.entries().items() if isinstance(e.expect, kinds)}
    if wanted is not None and wanted not in entries:
        has = ", ".join(entries) or "none"
        raise UsageError(f"{claim.id} has no check of accuracies at scale {wanted} (it has {has})")
    for scale in (wanted,) if wanted else CHECKS:
        if scale in entries and (not cells or set(_stated(entries[scale])) & set(cells)):
            return scale, entries[scale]
    return None, None


def _stated(entry: Scale | None) -> Mapping[str, ValueCheck]:
    """The reported cells that a scale has a margin for, of final accuracies."""
    checks = entry.expect.cells if entry is not None and isinstance(entry.expect, ValueExpect) else {}
    return {name: check for name, check in checks.items() if check.metric == TOP1}


def _of_measures(claim: Claim) -> dict[str, str]:
    """The reported cells that are of a measure, with its name, at any scale."""
    expects = [scale.expect for scale in claim.scales.entries().values()]
    cells = [item for e in expects if isinstance(e, ValueExpect) for item in e.cells.items()]
    return {name: check.metric for name, check in cells if check.metric != TOP1}


def _value(registry: Registry, claim: Claim, only: str | None, given: Mapping[str, Given], asked: Asked) -> Result:
    if not _in_percent(claim):
        unit = repr(claim.reported.unit) if claim.reported else "nothing"
        raise UsageError(f"{claim.id} reports {unit}; only accuracies in percent can be judged")
    assert claim.reported is not None
    cells = claim.reported.cells
    named = _named(given, [only] if only else list(cells), claim.id, "cell")
    scale, entry = _check(claim, asked.scale, named)
    known = _recipes(registry, entry)
    checks: dict[str, ValueCheck] = {}
    origins: dict[str, Origin] = {}
    arms, notes, not_judged = {}, [], {}
    measures = _of_measures(claim)
    for name, numbers in named.items():
        if name in measures:
            not_judged[name] = f"it is {measures[name]} of training runs, which accuracies do not tell"
            continue
        if not 0 <= cells[name].value <= 100:
            not_judged[name] = f"the {cells[name].value:g} that {claim.id} reports is no accuracy in percent"
            continue
        stated = _stated(entry).get(name)
        found = _margin(claim, name, asked, stated)
        if found is None:
            not_judged[name] = f"{claim.id} registers no margin for {name}; --margin gives one, which decides nothing"
            continue
        checks[name], origins[name] = found
        recipe = known.get(stated.arm) if stated is not None else None
        size = _size(name, cells[name].n or (recipe.test_size if recipe else None), asked.n, numbers)
        if checks[name].same_weights and (numbers.values > 1 or numbers.runs not in (None, 1)):
            raise UsageError(
                f"{name}: the same weights evaluated again give one number, not those of several runs"
                + ("" if asked.same_weights else f"; {claim.id} evaluates a released model there")
            )
        arms[name], told = _arm(name, numbers, size, _classes(name, recipe))
        notes += told
    if not checks:
        raise UsageError("; ".join(not_judged.values()))
    caps = []
    if "hand" in origins.values():
        caps.append(("margin given by hand", "a margin chosen beside the result decides nothing"))
    used = scale if "scale" in origins.values() else None
    notes = [*_of_cells(claim, checks, origins, used), *notes]
    if only is None:
        not_judged |= {name: "no number is given for it" for name in cells if name not in named}
    return Result(_weigh(claim, ValueExpect(cells=checks), arms, used, asked, caps, notes), not_judged)


def _of_cells(
    claim: Claim, checks: Mapping[str, ValueCheck], origins: Mapping[str, Origin], scale: CheckName | None
) -> Iterable[str]:
    """What must be said beside a verdict on cells: how many of the claim's, and what was taken for granted."""
    assert claim.reported is not None
    if len(checks) < len(claim.reported.cells):
        yield f"{len(checks)} of {len(claim.reported.cells)} cells"
    same = [name for name, check in checks.items() if check.same_weights]
    if same:
        yield f"taken to be the same weights: {', '.join(same)}"
    beside = [name for name, origin in origins.items() if origin == "claim"]
    if beside and scale is not None:
        yield f"margin registered apart from the scale: {', '.join(beside)}"


def _margin(claim: Claim, cell: str, asked: Asked, stated: ValueCheck | None) -> tuple[ValueCheck, Origin] | None:
    """How a cell is judged, and where its margin comes from; None without a margin.

    Raises:
        UsageError: a margin by hand that cannot be one, or beside a registered one; the same weights as a mean.
    """
    assert claim.reported is not None
    evaluated = claim.reported.is_evaluated(cell)
    same = asked.same_weights or evaluated
    reported = claim.reported.cells[cell]
    if same and (reported.sd is not None or (reported.runs or 1) > 1):
        raise UsageError(f"{cell} is reported as a mean of several runs, which no one set of weights has")
    margin = claim.reported.margin(cell) if evaluated == same else None
    found: tuple[ValueCheck, Origin] | None = None
    if stated is not None and stated.same_weights == same:
        found = stated.model_copy(update={"arm": cell}), "scale"
    elif margin is not None:
        found = ValueCheck(arm=cell, margin=margin, same_weights=same), "claim"
    elif same:
        found = ValueCheck(arm=cell, margin=REEVALUATION, same_weights=True), "default"
    if asked.margin is None:
        return found
    if not 0 < asked.margin < 50:  # also refuses NaN
        raise UsageError(f"--margin {asked.margin:g}: a margin in points is above 0 and below 50")
    if found is not None:
        who = "the same weights have" if found[1] == "default" else f"{claim.id} registers"
        raise UsageError(f"--margin {asked.margin:g}: {who} {found[0].margin:g} points for {cell}; leave it out")
    return ValueCheck(arm=cell, margin=asked.margin), "hand"


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
        raise UsageError(
            f"{claim.id} rests on measures of trained models, which accuracies do not tell; `vitrepro verify "
            f"{claim.id}` takes them"
        )
    if asked.same_weights or asked.margin is not None:
        option = "--same-weights" if asked.same_weights else "--margin"
        raise UsageError(f"{option} is for a reported number; {claim.id} compares arms with each other")
    needed = _compared(expect)
    named = _named(given, needed, claim.id, "arm")
    missing = [arm for arm in needed if arm not in named]
    if missing:
        raise UsageError(f"{claim.id} compares {', '.join(needed)}; nothing is given for {', '.join(missing)}")
    known = _recipes(registry, entry)
    arms, answers, notes = {}, {}, []
    for name in needed:
        recipe = known.get(name)
        size = _size(name, recipe.test_size if recipe else None, asked.n, named[name])
        classes = _classes(name, recipe)
        answers[name] = read(name, named[name].files, size, classes)
        arms[name], told = _arm(name, named[name], size, classes, answers[name])
        notes += told
    sizes = {arm.n for arm in arms.values()}
    if len(sizes) > 1:
        raise UsageError(
            f"the arms are of {' and '.join(f'{n:,}' for n in sorted(sizes))} test images; one set is needed"
        )
    check_same_images([a for of_arm in answers.values() for a in of_arm])
    if any(arm.correct is None for arm in arms.values()):
        arms = {name: replace(arm, correct=None) for name, arm in arms.items()}
        notes.append("unpaired, from accuracies alone")
    elif any(a.labels is None for of_arm in answers.values() for a in of_arm):
        notes.append("paired by ids alone, without labels")
    if isinstance(expect, EquivalenceExpect) and expect.paired_by_seed:
        expect = expect.model_copy(update={"paired_by_seed": False})
        notes.append("not paired by seed, which nothing here tells")
    return Result(_weigh(claim, expect, arms, scale, asked, list(_twins(answers)), notes))


def _twins(answers: Mapping[str, Sequence[Answers]]) -> Iterable[tuple[str, str]]:
    """What keeps files from deciding: one model under the names of two arms."""
    for first, second in itertools.combinations(answers.values(), 2):
        for a, b in itertools.product(first, second):
            if a.same_as(b):
                why = "one model under the names of two arms decides nothing"
                yield f"the same answers: {a.path} and {b.path}", why
                return


def _weigh(
    claim: Claim,
    expect: Expect,
    arms: Mapping[str, Arm],
    scale: CheckName | None,
    asked: Asked,
    caps: Sequence[tuple[str, str]],
    notes: Iterable[str],
) -> Verdict:
    source = [f"numbers of {asked.source}"] if asked.source else []
    return weigh(
        claim,
        expect,
        arms,
        scale=scale,
        fidelity="elsewhere",
        registered_seeds=1,
        caps=caps,
        beside=("not run by vitrepro", *source, *dict.fromkeys(notes)),
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


def _recipes(registry: Registry, entry: Scale | None) -> Mapping[str, Recipe]:
    experiment = registry.experiment(entry.experiment) if entry is not None and entry.experiment else None
    return recipes(experiment) if isinstance(experiment, TrainExperiment) else {}


def _classes(name: str, recipe: Recipe | None) -> int | None:
    """Classes of the test set, for what guessing would give; None where nothing tells."""
    if recipe is not None:
        return recipe.data.num_classes
    fitting = [data for data in CLASSES if name == data or name.endswith(f"-{data}")]
    return CLASSES[max(fitting, key=len)] if fitting else None


def _size(name: str, registered: int | None, n: int | None, given: Given) -> int | None:
    """Test images; None where the files of predictions will tell.

    Raises:
        UsageError: another number than is registered, or none at all.
    """
    known = registered or given.n
    if n is not None and known is not None and n != known:
        raise UsageError(f"--n {n:,}: {name} is of {known:,} test images; other images cannot be held against it")
    if registered is not None and given.n is not None and given.n != registered:
        raise UsageError(f"{name} is of {given.n:,} test images there, of {registered:,} here")
    size = n or known
    if size is None and not given.files:
        raise UsageError(f"{name}: of how many test images? Give --n")
    return size


def _arm(
    name: str, given: Given, n: int | None, num_classes: int | None, answers: Sequence[Answers] | None = None
) -> tuple[Arm, list[str]]:
    """What was given as an arm, and what must be said beside it.

    Args:
        num_classes: two, the most cautious, where nothing tells.
        answers: what its files say, if they have been read.
    """
    classes = num_classes or 2
    if given.files:
        answers = answers or read(name, given.files, n, num_classes)
        rows = np.stack([a.correct for a in answers])
        labels = next((a.labels for a in answers if a.labels is not None), None)
        commonest = int(np.unique(labels, return_counts=True)[1].max()) if labels is not None else 0
        return Arm.of(rows, num_classes=classes, commonest=commonest), []
    assert n is not None
    above = [k for k in given.counts if k > n]
    if above:
        raise UsageError(f"--correct {above[0]:,}: more than the {n:,} test images of {name}")
    accuracies = given.accuracies or tuple(100 * k / n for k in given.counts)
    if given.runs is not None and given.runs > 1 and given.sd is not None:
        accuracies = spread(accuracies[0], given.sd, given.runs)
    return Arm(accuracies, n, len(accuracies), None, classes), list(_doubts(name, given, n))


def _doubts(name: str, given: Given, n: int) -> Iterable[str]:
    """What accuracies leave open: whether they are counts, and of how many runs."""
    if given.runs in (None, 1):
        pairs = zip(given.accuracies, given.digits, strict=True)
        odd = next((a for a, digits in pairs if not _is_count(a, n, digits)), None)
        if odd is not None:
            yield f"{name}: {odd:g} is no count of {n:,} images (a mean over batches or runs?)"
    if given.quoted and given.runs is None:
        yield "number of runs not stated, counted as one"
    elif given.quoted and given.runs != 1 and given.sd is None:
        yield f"{name}: a mean of {given.runs} runs without a deviation, counted as one"


def _is_count(accuracy: float, n: int, digits: int | None) -> bool:
    """Whether some number of n images rounds to this accuracy."""
    half = 1e-9 * 100 if digits is None else 0.5 * 10.0**-digits + 1e-9
    return abs(100 * round(accuracy * n / 100) / n - accuracy) <= half
