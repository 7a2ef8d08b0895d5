"""Numbers that somebody obtained elsewhere, held against a claim by its own rules: nothing is run, nothing is stored.

An accuracy or a file of predictions is given for each cell of a claim, or for each arm that it compares. What is
given becomes an `Arm`, and `verdict.weigh` decides as it does for stored runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from vitrepro.catalog import DATASETS
from vitrepro.claims import Registry, arms_of, recipes
from vitrepro.errors import UsageError, did_you_mean
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import Note, note
from vitrepro.judge.given import Answers, Given, check_same_images, one_run, read, refuse, spread
from vitrepro.judge.spread import Regime
from vitrepro.judge.verdict import Verdict, weigh
from vitrepro.metrics import TOP1
from vitrepro.recipe import Recipe
from vitrepro.spec import (
    CHECKS,
    CheckName,
    Claim,
    EquivalenceExpect,
    Expect,
    OrderingExpect,
    Reported,
    Scale,
    TrainExperiment,
    TrendExpect,
    ValueCheck,
    ValueExpect,
)

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
        regime: whether training started from scratch or from released weights; None where the claim is to tell.
    """

    scale: CheckName | None = None
    n: int | None = None
    margin: float | None = None
    same_weights: bool = False
    source: str | None = None
    regime: Regime | None = None


@dataclass(frozen=True)
class Result:
    """A verdict, and the names that were given or reported and could not be judged, with the reason."""

    verdict: Verdict
    not_judged: Mapping[str, str] = field(default_factory=dict)


class Made(NamedTuple):
    """What was given as an arm, what must be said beside it, and what its files say."""

    arm: Arm
    notes: tuple[Note, ...]
    answers: Sequence[Answers] = ()


def from_claim(
    source: Claim, target: Claim, cell: str | None = None, scale: CheckName | None = None
) -> tuple[dict[str, Given], dict[str, str]]:
    """The numbers that another claim reports, by cell or arm; and those that cannot be judged, with the reason.

    Args:
        cell: of the target, which is to be judged alone.

    Raises:
        UsageError: the source is the target, has no accuracies in percent, or none that the target asks for.
    """
    where = f"--from {source.id}"
    refuse((source.id == target.id, f"{where}: a claim's own numbers say nothing of it"))
    theirs = _percentages(source, where)
    takes = [cell] if cell is not None else _takes(target, scale)
    none = f"none of its cells ({', '.join(theirs.cells)}) is one of {target.id} ({', '.join(takes) or 'it has none'})"
    refuse((not set(takes) & set(theirs.cells), f"{where}: {none}"))
    left = {} if cell is not None else {n: f"{target.id} has no {n}" for n in theirs.cells if n not in takes}
    left |= {name: why for name in takes if (why := _unlike(source, theirs, target, name))}
    refuse((not set(takes) - set(left), f"{where}: {'; '.join(f'{name}: {why}' for name, why in left.items())}"))
    taken = {name: theirs.cells[name] for name in takes if name not in left}
    given = {
        n: Given((c.value,), digits=(c.decimals,), runs=c.runs, sd=c.sd, n=c.n, quoted=True) for n, c in taken.items()
    }
    return given, left


def _unlike(source: Claim, theirs: Reported, target: Claim, name: str) -> str | None:
    """Why one claim has no number that can be held against that of another, if so."""
    if name not in theirs.cells:
        return f"{source.id} reports no {name}"
    value, known = theirs.cells[name].value, set(source.needs.weights)
    if not 0 <= value <= 100:
        return f"{value:g} of {source.id} is no accuracy in percent"
    same = theirs.is_evaluated(name) and (not known or set(target.needs.weights) <= known)
    if target.reported and target.reported.is_evaluated(name) and not same:
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
    files = Counter(path for numbers in given.values() for path in {p.resolve() for p in numbers.files})
    twice = ", ".join(str(path) for path, times in files.items() if times > 1)
    refuse(
        (not given, "nothing is given to judge; use --accuracy, --correct, --predictions or --from"),
        (
            asked.n is not None and not 1 <= asked.n <= MOST_IMAGES,
            f"--n {str(asked.n)[:20]}: a test set has one image or more, and at most {MOST_IMAGES:,}",
        ),
        (twice, f"{twice} is given twice; one run is no other arm"),
    )
    scale, entry = _check(claim, asked.scale)
    if _by_cells(claim, entry):
        return _value(registry, claim, cell, given, asked)
    if entry is None:
        checked = any(e.expect is not None for e in claim.scales.entries().values())
        what = f"`vitrepro verify {claim.id}` checks it" if checked else f"`vitrepro show {claim.id}` says why"
        raise UsageError(f"{claim.id}: a claim of kind {claim.kind} with no check that accuracies could decide; {what}")
    refuse((cell is not None, f"{claim.id} compares arms with each other; leave out /{cell}"))
    return _arms(registry, claim, given, asked, scale, entry)


def _percentages(claim: Claim, where: str) -> Reported:
    """What a claim reports.

    Raises:
        UsageError: nothing, or no accuracies in percent.
    """
    reported = claim.reported
    if reported is None or not any(word in reported.unit for word in ("%", "percent")):
        found = repr(reported.unit) if reported else "nothing"
        raise UsageError(f"{where}: it reports {found}; only accuracies in percent can be judged")
    return reported


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
    has = f"{claim.id} has no check of accuracies at scale {wanted} (it has {', '.join(entries) or 'none'})"
    refuse((wanted is not None and wanted not in entries, has))
    for scale in (wanted,) if wanted else CHECKS:
        decided = {name for name, check in _checks(entries.get(scale)).items() if check.metric == TOP1}
        if scale in entries and (not cells or decided & set(cells)):
            return scale, entries[scale]
    return None, None


def _checks(entry: Scale | None) -> dict[str, ValueCheck]:
    """How a scale checks reported cells."""
    return entry.expect.cells if entry is not None and isinstance(entry.expect, ValueExpect) else {}


def _value(registry: Registry, claim: Claim, only: str | None, given: Mapping[str, Given], asked: Asked) -> Result:
    """The verdict on reported cells."""
    reported = _percentages(claim, claim.id)
    cells = reported.cells
    named = _named(given, [only] if only else list(cells), claim.id, "cell")
    scale, entry = _check(claim, asked.scale, named)
    known = _recipes(registry, entry)
    found = {name: _margin(claim, entry, reported, name, asked) for name in named}
    left = {name: why for name, why in found.items() if isinstance(why, str)}
    refuse((len(left) == len(named), "; ".join(left.values())))
    checks = {name: margin[0] for name, margin in found.items() if not isinstance(margin, str)}
    origins = {name: margin[1] for name, margin in found.items() if not isinstance(margin, str)}
    made = {
        name: _arm(name, named[name], cells[name].n, known.get(name), claim, asked, evaluated=check.same_weights)
        for name, check in checks.items()
    }
    same = tuple(name for name, check in checks.items() if check.same_weights)
    apart = tuple(name for name, origin in origins.items() if origin == "claim" and "scale" in origins.values())
    notes = [
        (len(checks) < len(cells), note("some_cells", judged=len(checks), of=len(cells))),
        (same, note("taken_same_weights", cells=same)),
        (apart, note("margin_apart", cells=apart)),
    ]
    caps = [note("margin_by_hand")] if "hand" in origins.values() else []
    if only is None:
        left |= {name: "no number is given for it" for name in cells if name not in named}
    used = scale if "scale" in origins.values() else None
    beside = [said for holds, said in notes if holds]
    return Result(_weigh(claim, ValueExpect(cells=checks), made, used, asked, caps, beside), left)


def _margin(
    claim: Claim, entry: Scale | None, reported: Reported, cell: str, asked: Asked
) -> tuple[ValueCheck, Origin] | str:
    """How a cell is judged, and where its margin comes from; or why it is not judged.

    Raises:
        UsageError: a margin by hand that cannot be one, or beside a registered one; the same weights as a mean.
    """
    value, evaluated = reported.cells[cell], reported.is_evaluated(cell)
    every = [_checks(e).get(cell) for e in claim.scales.entries().values()]
    measures = [check.metric for check in every if check and check.metric != TOP1]
    if measures:
        return f"it is {measures[-1]} of training runs, which accuracies do not tell"
    if not 0 <= value.value <= 100:
        return f"the {value.value:g} that {claim.id} reports is no accuracy in percent"
    same = asked.same_weights or evaluated
    mean = same and (value.sd is not None or (value.runs or 1) > 1)
    refuse((mean, f"{cell} is reported as a mean of several runs, which no one set of weights has"))
    found = _registered(_checks(entry).get(cell), reported, cell, same)
    if asked.margin is None:
        return found or f"{claim.id} registers no margin for {cell}; --margin gives one, which decides nothing"
    by_hand = f"--margin {asked.margin:g}"
    refuse((not 0 < asked.margin < 50, f"{by_hand}: a margin in points is above 0 and below 50"))  # nor is NaN
    if found:
        who = "the same weights have" if found[1] == "default" else f"{claim.id} registers"
        raise UsageError(f"{by_hand}: {who} {found[0].margin:g} points for {cell}; leave it out")
    return ValueCheck(arm=cell, margin=asked.margin), "hand"


def _registered(
    stated: ValueCheck | None, reported: Reported, cell: str, same: bool
) -> tuple[ValueCheck, Origin] | None:
    """The margin of a scale, else of the claim, else the one for the same weights, where they are the same."""
    margin = reported.margin(cell)
    if stated is not None and stated.same_weights == same:
        return stated.model_copy(update={"arm": cell}), "scale"
    if margin is not None and reported.is_evaluated(cell) == same:
        return ValueCheck(arm=cell, margin=margin, same_weights=same), "claim"
    return (ValueCheck(arm=cell, margin=REEVALUATION, same_weights=True), "default") if same else None


def _arms(
    registry: Registry,
    claim: Claim,
    given: Mapping[str, Given],
    asked: Asked,
    scale: CheckName | None,
    entry: Scale,
) -> Result:
    """The verdict on arms that a claim compares."""
    expect = entry.expect
    assert expect is not None
    needed, known = _compared(expect), _recipes(registry, entry)
    option = "--same-weights" if asked.same_weights else "--margin"
    takes = f"which accuracies do not tell; `vitrepro verify {claim.id}` takes them"
    refuse(
        (
            isinstance(expect, OrderingExpect) and expect.measures,
            f"{claim.id} rests on measures of trained models, {takes}",
        ),
        (
            asked.same_weights or asked.margin is not None,
            f"{option} is for a reported number; {claim.id} compares arms with each other",
        ),
    )
    named = _named(given, needed, claim.id, "arm")
    missing = ", ".join(arm for arm in needed if arm not in named)
    refuse((missing, f"{claim.id} compares {', '.join(needed)}; nothing is given for {missing}"))
    made = {name: _arm(name, named[name], None, known.get(name), claim, asked) for name in needed}
    sizes = sorted({m.arm.n for m in made.values()})
    refuse((len(sizes) > 1, f"the arms are of {' and '.join(f'{n:,}' for n in sizes)} test images; one set is needed"))
    answers = [a for m in made.values() for a in m.answers]
    check_same_images(answers)
    notes: list[Note] = []
    if any(m.arm.correct is None for m in made.values()):
        made = {name: m._replace(arm=replace(m.arm, correct=None)) for name, m in made.items()}
        notes.append(note("no_pairs"))
    elif any(a.labels is None for a in answers):
        notes.append(note("no_labels"))
    if isinstance(expect, EquivalenceExpect) and expect.paired_by_seed:
        expect = expect.model_copy(update={"paired_by_seed": False})
        notes.append(note("no_seed_pairs"))
    twins = [note("same_answers", first=str(a.path), second=str(b.path)) for a, b in one_run(answers)]
    return Result(_weigh(claim, expect, made, scale, asked, twins[:1], notes))


def _weigh(
    claim: Claim,
    expect: Expect,
    made: Mapping[str, Made],
    scale: CheckName | None,
    asked: Asked,
    caps: Sequence[Note],
    notes: Sequence[Note],
) -> Verdict:
    source = [note("numbers_of", source=asked.source)] if asked.source else []
    of_arms = [said for m in made.values() for said in m.notes]
    return weigh(
        claim,
        expect,
        {name: m.arm for name, m in made.items()},
        scale=scale,
        fidelity="elsewhere",
        registered_seeds=1,
        caps=caps,
        beside=(note("not_run_here"), *source, *dict.fromkeys((*notes, *of_arms))),
    )


def _named(given: Mapping[str, Given], known: Sequence[str], claim_id: str, what: str) -> dict[str, Given]:
    """What was given under names that the claim has.

    Raises:
        UsageError: a name that it does not have, or none where several are possible.
    """
    found: dict[str, Given] = {}
    for name, numbers in given.items():
        own, names = name or known[0], ", ".join(known)
        hint = did_you_mean(own, known) or f"; it has {names}"
        refuse(
            (
                not name and len(known) > 1,
                f"{claim_id} has several {what}s; name one, as in {known[0]}=VALUE ({names})",
            ),
            (own not in known, f"{claim_id} has no {what} {own!r} to judge{hint}"),
            (own in found, f"{own} is given twice"),
        )
        found[own] = numbers
    return found


def _recipes(registry: Registry, entry: Scale | None) -> Mapping[str, Recipe]:
    """By name of an arm, and of a cell that the scale checks."""
    experiment = registry.experiment(entry.experiment) if entry is not None and entry.experiment else None
    known = recipes(experiment) if isinstance(experiment, TrainExperiment) else {}
    return known | {cell: known[check.arm] for cell, check in _checks(entry).items() if check.arm in known}


def _arm(
    name: str,
    given: Given,
    registered: int | None,
    recipe: Recipe | None,
    claim: Claim,
    asked: Asked,
    *,
    evaluated: bool = False,
) -> Made:
    """What was given of one cell or arm.

    Where no recipe tells how many classes there are, the name of the data does, else they are two, the most cautious.
    Whether training started from scratch is told by the user, else by the recipe, else by the work the claim names.

    Args:
        registered: test images by the claim.
        evaluated: no training is behind it that other seeds could repeat.

    Raises:
        UsageError: another number of test images than the claim has, or none at all; more right answers than images.
    """
    by_claim = registered or (recipe.test_size if recipe else None)
    sizes = {who: n for who, n in (("the claim", by_claim), ("--from", given.n), ("--n", asked.n)) if n}
    told = ", ".join(f"{n:,} by {who}" for who, n in sizes.items())
    n = next(iter(sizes.values()), 0)
    most = max(given.counts, default=0)
    one = f"{name}: the same weights evaluated again give one number, not those of several runs"
    where = "" if asked.same_weights else f"; {claim.id} evaluates a released model there"
    refuse(
        (evaluated and (given.values > 1 or given.runs not in (None, 1)), one + where),
        (len(set(sizes.values())) > 1, f"{name}: test images: {told}; other images cannot be held against it"),
        (not n and not given.files, f"{name}: of how many test images? Give --n"),
        (not given.files and most > n, f"--correct {most:,}: more than the {n:,} test images of {name}"),
    )
    fitting = [data for data in CLASSES if name == data or name.endswith(f"-{data}")]
    classes = recipe.data.num_classes if recipe else CLASSES[max(fitting, key=len)] if fitting else None
    work = claim.needs.work
    tuned = recipe.weights is not None if recipe else "fine-tuning" in work and "pre-training" not in work
    regime: Regime = asked.regime or ("fine-tuned" if tuned else "scratch")
    notes = [note("regime", regime=regime)] if not evaluated and (asked.regime or recipe is None) else []
    if given.files:
        answers = read(name, given.files, n or None, classes)
        labels = next((a.labels for a in answers if a.labels is not None), None)
        commonest = int(np.unique(labels, return_counts=True)[1].max()) if labels is not None else 0
        rows = np.stack([a.correct for a in answers])
        return Made(Arm.of(rows, num_classes=classes or 2, commonest=commonest, regime=regime), tuple(notes), answers)
    accuracies = given.accuracies or tuple(100 * k / n for k in given.counts)
    if given.runs is not None and given.runs > 1 and given.sd is not None:
        accuracies = spread(accuracies[0], given.sd, given.runs)
    arm = Arm(accuracies, n, len(accuracies), num_classes=classes or 2, regime=regime)
    return Made(arm, (*notes, *_doubts(name, given, n)))


def _doubts(name: str, given: Given, n: int) -> Iterator[Note]:
    """What accuracies leave open: whether they are counts, and of how many runs."""
    if given.runs in (None, 1):
        numbers = zip(given.accuracies, given.digits, strict=True)
        odd = [a for a, digits in numbers if not _is_count(a, n, digits)]
        yield from (note("no_count", name=name, value=a, n=n) for a in odd[:1])
    if given.quoted and given.runs is None:
        yield note("runs_unstated")
    elif given.quoted and given.runs != 1 and given.sd is None:
        yield note("no_deviation", name=name, runs=given.runs)


def _is_count(accuracy: float, n: int, digits: int | None) -> bool:
    """Whether some number of n images rounds to this accuracy."""
    half = 1e-9 * 100 if digits is None else 0.5 * 10.0**-digits + 1e-9
    return abs(100 * round(accuracy * n / 100) / n - accuracy) <= half
