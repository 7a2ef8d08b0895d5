"""Read the claim files, check each alone and all against each other, and select from them.

A directory of claims holds claim files (one claim, or a family under `claims:`), `experiments/` and
optionally `groups.yaml`. A broken file costs its own claims only; its faults are kept and named.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from vitrepro import literal, yamlfile
from vitrepro.errors import ClaimFileError, UsageError, did_you_mean
from vitrepro.recipe import Recipe
from vitrepro.spec import (
    AnalyticExperiment,
    Bound,
    Cell,
    Claim,
    Comparison,
    EquivalenceExpect,
    ExactExpect,
    Expect,
    Experiment,
    Family,
    Group,
    LiteralExpect,
    OrderingExpect,
    Paper,
    TrainExperiment,
    TrendExpect,
    ValueExpect,
)
from vitrepro.yamlfile import Document, Loc

T = TypeVar("T")
ENTRY_POINTS = "vitrepro.claims"


@dataclass(frozen=True)
class Registry:
    """All claims at hand, and where each came from.

    Attributes:
        claims, experiments, groups: by id or name, in the order of the files.
        papers: what is known of the sources of claims, by `source.paper`.
        files: the file that holds a claim or experiment, as messages show it.
        problems: faults of the files that could not be used, one line each.
        warnings: what was left out without being at fault itself, such as an installed package that does not load.
    """

    claims: Mapping[str, Claim]
    experiments: Mapping[str, TrainExperiment | AnalyticExperiment]
    groups: Mapping[str, Group]
    files: Mapping[str, str]
    problems: tuple[str, ...] = ()
    papers: Mapping[str, Paper] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def experiment(self, name: str) -> TrainExperiment | AnalyticExperiment:
        return self.experiments[name]

    def cells(self, claim: Claim) -> Callable[[str], Cell]:
        """How formulas of a claim find a cell by its address; see `find_cell`."""
        return lambda address: find_cell(self.claims, claim, address)


def find_cell(claims: Mapping[str, Claim], claim: Claim, address: str) -> Cell:
    """A reported cell as formulas name it.

    Args:
        address: `@cell` of the claim itself; `claim/cell` of the same source; or with the source in front.

    Raises:
        KeyError: there is no such cell; says what is near.
    """
    if address.startswith("@"):
        own = claim.reported.cells if claim.reported else {}
        if address[1:] not in own:
            raise KeyError(f"{address}: neither a cell of this claim nor a definition{did_you_mean(address[1:], own)}")
        return own[address[1:]]
    claim_id, _, cell = address.rpartition("/")
    source = claim.id.rpartition("/")[0]
    other = claims.get(f"{source}/{claim_id}") or claims.get(claim_id)
    if other is None:
        near = did_you_mean(f"{source}/{claim_id}", claims)
        raise KeyError(f"{address}: no claim {claim_id!r}{near}")
    cells = other.reported.cells if other.reported else {}
    if cell not in cells:
        raise KeyError(f"{address}: {other.id} reports no cell {cell!r}{did_you_mean(cell, cells)}")
    return cells[cell]


def builtin_dir() -> Path:
    """The claims that come with vitrepro: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "_claims"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "claims"


def load(extra: Sequence[Path] = ()) -> Registry:
    """The built-in claims, those of installed packages and of further directories; faults are collected, not raised.

    Raises:
        UsageError: a directory does not exist or holds no claim file.
    """
    found = _Collector()
    seen: set[Path] = set()
    for directory in (builtin_dir(), *_installed(found.warnings), *extra):
        if not directory.is_dir():
            raise UsageError(f"{directory}: no such directory of claims")
        names = sorted(p for p in directory.rglob("*.yaml") if p.is_file())
        if not names:
            raise UsageError(f"{directory}: holds no *.yaml file; a claim file ends in .yaml")
        for path in names:
            if path.resolve() in seen:  # `validate claims` in a checkout names the built-in ones again
                continue
            seen.add(path.resolve())
            builtin = directory == builtin_dir()
            found.add(path, f"{directory.name}/{path.relative_to(directory)}" if builtin else str(path))
    return found.registry()


def _installed(warnings: list[str]) -> Iterator[Path]:
    """Directories of claims that other packages name by an entry point; one that fails is a warning."""
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        try:
            made = point.load()
            directory = Path(made() if callable(made) else made)
            if not any(directory.rglob("*.yaml")):
                raise FileNotFoundError(f"{directory} holds no *.yaml file")
        except Exception as error:  # whatever a foreign package raises must not take the other claims with it
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warnings.append(f"claims of the installed package {package} are left out: {reason[:300]}")
        else:
            yield directory


def check_files(paths: Sequence[Path], registry: Registry) -> tuple[str, ...]:
    """Faults of single files, each held against the experiments and claims already known."""
    found = _Collector(known=registry.claims)
    for path in paths:
        found.add(path, str(path))
    for name, experiment in registry.experiments.items():
        found.experiments.setdefault(name, (experiment, None))
    return found.registry().problems


def select(registry: Registry, patterns: Sequence[str]) -> tuple[list[Claim], Group | None]:
    """The claims that ids, globs and groups name, without doubles, in the order of the files.

    Returns:
        The claims, and the group if one group alone was named (it brings its own scale).

    Raises:
        UsageError: a pattern names nothing; with the nearest names. No pattern at all is an error too.
    """
    if not patterns:
        raise UsageError("no claim is named; try `vitrepro list-claims`, or `vitrepro verify quickstart`")
    chosen: dict[str, Claim] = {}
    for pattern in patterns:
        globs = registry.groups[pattern].claims if pattern in registry.groups else (pattern,)
        hits = [c for c in registry.claims.values() if any(_matches(c, g) for g in globs)]
        if not hits:
            known = [*registry.claims, *registry.groups]
            claim_id, _, _ = pattern.rpartition("/")
            if claim_id in registry.claims:
                known = [f"{claim_id}/{cell}" for cell in _cells(registry.claims[claim_id])] or [claim_id]
            hint = did_you_mean(pattern, known, cutoff=0.3) or f"; known groups: {', '.join(registry.groups)}"
            broken = f" ({len(registry.problems)} faults in claim files, see `vitrepro validate`)"
            raise UsageError(f"no claim matches {pattern!r}{hint}{broken if registry.problems else ''}")
        chosen.update({c.id: c for c in hits})
    group = registry.groups.get(patterns[0]) if len(patterns) == 1 else None
    return [c for c in registry.claims.values() if c.id in chosen], group


def _matches(claim: Claim, pattern: str) -> bool:
    """A claim's id, a glob over ids, or a cell of the claim (`paper/claim/cell`)."""
    claim_id, _, cell = pattern.rpartition("/")
    return fnmatch.fnmatchcase(claim.id, pattern) or (claim_id == claim.id and cell in _cells(claim))


def _cells(claim: Claim) -> tuple[str, ...]:
    return tuple(claim.reported.cells) if claim.reported else ()


def recipes(experiment: TrainExperiment) -> dict[str, Recipe]:
    """Arm name -> its whole recipe.

    Raises:
        ValidationError: an arm is not a recipe (files are checked for this when they are read).
    """
    return {name: Recipe.model_validate(merged) for name, _, merged in _arms(experiment)}


def arm_names(experiment: TrainExperiment | AnalyticExperiment) -> tuple[str, ...]:
    if isinstance(experiment, AnalyticExperiment):
        return tuple(experiment.arms)
    return tuple(name for name, _, _ in _arms(experiment))


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
            return tuple((("cells", k, "arm"), c.arm) for k, c in expect.cells.items())
        case OrderingExpect():
            return tuple(
                (("all", i, side), getattr(c, side))
                for i, c in enumerate(expect.all)
                for side in (("arm",) if isinstance(c, Bound) else ("greater", "than"))
            )
        case TrendExpect():
            return tuple(
                ((key, i), arm)
                for key in ("larger_gain", "than", "increasing")
                for i, arm in enumerate(getattr(expect, key) or ())
            )
        case EquivalenceExpect():
            return tuple((("equal", i), arm) for i, arm in enumerate(expect.equal))
        case LiteralExpect():
            return ()
    raise AssertionError(expect)


def _arms(experiment: TrainExperiment) -> Iterator[tuple[str, tuple[Loc, ...], dict[str, Any]]]:
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


def json_schema() -> dict[str, Any]:
    """JSON Schema of a claim file, a family file, an experiment file or a file about a source, for editors."""
    return TypeAdapter(Claim | Family | Experiment | Paper).json_schema()


# --- collecting files -------------------------------------------------------------------------


@dataclass
class _Collector:
    claims: dict[str, tuple[Claim, tuple[Document, Loc]]] = field(default_factory=dict)
    experiments: dict[str, tuple[TrainExperiment | AnalyticExperiment, Document | None]] = field(default_factory=dict)
    groups: dict[str, tuple[Group, Document]] = field(default_factory=dict)
    papers: dict[str, tuple[Paper, Document]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    known: Mapping[str, Claim] = field(default_factory=dict)  # of other files, which groups may name
    broken: set[str] = field(default_factory=set)  # ids of experiments whose files have faults

    def add(self, path: Path, shown: str) -> None:
        value: Any = None
        try:
            document = yamlfile.read(path, shown)
            value = document.value
            if not isinstance(value, dict):
                raise ClaimFileError([f"{shown}:1:1: a mapping is expected, found {_kind_of(value)}"])
            if path.name == "groups.yaml":
                for name in value:
                    self._group(name, value[name], document)
            elif "type" in value or "factors" in value or "arms" in value or path.parent.name == "experiments":
                experiment = _experiment(value, document)
                self._new("experiment", experiment.id, self.experiments, (experiment, document), document, ("id",))
            elif "claims" in value:
                self._family(value, document)
            elif "paper" in value:
                paper = _validate(Paper, value, document, ())
                self._new("source", paper.paper, self.papers, (paper, document), document, ("paper",))
            else:
                self._claim(_validate(Claim, value, document, ()), document, ())
        except ClaimFileError as error:
            self.problems.extend(error.problems)
            if isinstance(value, dict):
                self.broken.add(str(value.get("id")))

    def _family(self, value: dict[str, Any], document: Document) -> None:
        """Its claims one by one, so that a faulty one does not take the others with it."""
        members = value["claims"]
        if not isinstance(members, list) or not members or value.keys() != {"claims"}:
            _validate(Family, value, document, ())
            return
        for i, member in enumerate(members):
            try:
                self._claim(_validate(Claim, member, document, ("claims", i)), document, ("claims", i))
            except ClaimFileError as error:
                self.problems.extend(error.problems)

    def _group(self, name: str, value: Any, document: Document) -> None:
        try:
            group = _validate(Group, value, document, (name,))
            self._new("group", name, self.groups, (group, document), document, (name,))
        except ClaimFileError as error:
            self.problems.extend(error.problems)

    def _claim(self, claim: Claim, document: Document, loc: Loc) -> None:
        self._new("claim", claim.id, self.claims, (claim, (document, loc)), document, (*loc, "id"))

    def _new(self, what: str, name: str, into: dict[str, Any], item: Any, document: Document, loc: Loc) -> None:
        if name in into:
            other = into[name][1]
            first = other[0].where((*other[1], "id")) if isinstance(other, tuple) else other.where(())
            self.problems.append(f"{document.where(loc)}: {what} {name!r} exists already, at {first}")
        else:
            into[name] = item

    def registry(self) -> Registry:
        """What stands after the files were held against each other."""
        sound: dict[str, Claim] = {}
        for name, (claim, (document, loc)) in self.claims.items():
            faults = list(self._cross_check(claim, document, loc))
            self.problems.extend(faults)
            if not faults:
                sound[name] = claim
        known = {**self.known, **{name: claim for name, (claim, _) in self.claims.items()}}
        for name, (group, document) in self.groups.items():
            for i, pattern in enumerate(group.claims):
                if not any(_matches(c, pattern) for c in known.values()):
                    hint = did_you_mean(pattern, known)
                    self.problems.append(f"{document.where((name, 'claims', i))}: no claim matches {pattern!r}{hint}")
        files = {name: document.path for name, (_, (document, _)) in self.claims.items()}
        files |= {name: d.path for name, (_, d) in self.experiments.items() if d is not None}
        files |= {name: d.path for name, (_, d) in self.papers.items()}
        return Registry(
            claims=sound,
            experiments={name: e for name, (e, _) in self.experiments.items()},
            groups={name: g for name, (g, _) in self.groups.items()},
            files=files,
            problems=tuple(self.problems),
            papers={name: p for name, (p, _) in self.papers.items()},
            warnings=tuple(self.warnings),
        )

    def _cross_check(self, claim: Claim, document: Document, loc: Loc) -> Iterator[str]:
        yield from self._check_needs(claim, document, loc)
        for scale_name, scale in claim.scales.entries().items():
            if isinstance(scale.expect, LiteralExpect):
                yield from self._check_formulas(claim, scale.expect, document, loc)
            if scale.expect is None or scale.experiment is None:
                continue
            at: Loc = (*loc, "scales", scale_name)
            shown = _dotted(at)
            if scale.experiment not in self.experiments:
                where = document.where((*at, "experiment"))
                if scale.experiment in self.broken:
                    yield f"{where}: {shown}.experiment: the file of {scale.experiment!r} has faults, see there"
                    continue
                hint = did_you_mean(scale.experiment, self.experiments)
                yield f"{where}: {shown}.experiment: no experiment {scale.experiment!r}{hint}"
                continue
            experiment, _ = self.experiments[scale.experiment]
            if isinstance(scale.expect, ExactExpect) != isinstance(experiment, AnalyticExperiment):
                wanted = "analytic" if isinstance(scale.expect, ExactExpect) else "train"
                where = document.where((*at, "experiment"))
                yield f"{where}: {shown}.experiment: kind {claim.kind} needs an experiment of type {wanted}"
                continue
            known = arm_names(experiment)
            for path, arm in arms_of(scale.expect):
                if arm not in known:
                    hint = did_you_mean(arm, known) or f"; it has {', '.join(known)}"
                    where = document.where((*at, "expect", *path))
                    yield f"{where}: {shown}.expect: {experiment.id} has no arm {arm!r}{hint}"
            yield from self._check_cells(claim, scale_name, document, loc)

    def _check_needs(self, claim: Claim, document: Document, loc: Loc) -> Iterator[str]:
        """Data, weights and differences are those of the source's file, where there is one."""
        if claim.source.paper not in self.papers:
            return
        paper, _ = self.papers[claim.source.paper]
        known: dict[str, Mapping[str, object]] = {
            "data": paper.data,
            "weights": paper.weights,
            "baselines": paper.weights,
            "differences": paper.differences,
        }
        for key, there in known.items():
            for i, name in enumerate(getattr(claim.needs, key)):
                if name not in there:
                    at: Loc = (*loc, "needs", key, i)
                    hint = did_you_mean(name, there) or f"; it has {', '.join(there) or 'none'}"
                    yield f"{document.where(at)}: {_dotted(at)}: the file of {paper.paper} has no {name!r}{hint}"

    def _check_formulas(self, claim: Claim, expect: LiteralExpect, document: Document, loc: Loc) -> Iterator[str]:
        """Every address in a check is a reported cell, and every check can be evaluated."""
        claims = {**self.known, **{name: c for name, (c, _) in self.claims.items()}}
        at: Loc = (*loc, "scales", "literal", "expect")
        try:
            literal.evaluate(expect, lambda address: find_cell(claims, claim, address))
        except literal.FormulaError as error:
            place = (*at, *error.place)
            yield f"{document.where(place)}: {_dotted(place)}: {error}"

    def _check_cells(self, claim: Claim, scale_name: str, document: Document, loc: Loc) -> Iterator[str]:
        """Cells exist, quantities are measured, and no margin reaches the result of knowing nothing."""
        scale = claim.scales.entries()[scale_name]
        expect = scale.expect
        if not isinstance(expect, ExactExpect | ValueExpect):
            return
        assert scale.experiment is not None
        experiment, _ = self.experiments[scale.experiment]
        cells = claim.reported.cells if claim.reported else {}
        for name, check in expect.cells.items():
            at: Loc = (*loc, "scales", scale_name, "expect", "cells", name)
            where = f"{document.where(at)}: {_dotted(at)}"
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
                if exact.direction == "at_least" and value <= 0:
                    yield f"{where}: every quantity is at least {value:g}; the check cannot fail"
            elif isinstance(experiment, TrainExperiment) and isinstance(expect, ValueExpect):
                recipe = recipes(experiment).get(check.arm)
                value, margin = cells[name].value, expect.cells[name].margin
                chance = 100 / recipe.data.num_classes if recipe else 0.0
                at_least = expect.cells[name].direction == "at_least"
                if claim.reported and "%" not in claim.reported.unit and "percent" not in claim.reported.unit:
                    yield f"{where}: accuracies are compared in percent, reported.unit is {claim.reported.unit!r}"
                elif not 0 <= value <= 100:
                    yield f"{where}: reported {value}; an accuracy in percent lies between 0 and 100"
                elif recipe and margin >= (value - chance if at_least else abs(value - chance)) / 2:
                    yield f"{where}: margin {margin} is not below half the distance of {value} to chance, {chance:g}"


# --- from pydantic's errors to lines a person can act on ----------------------------------------


def _experiment(value: dict[str, Any], document: Document) -> TrainExperiment | AnalyticExperiment:
    """An experiment; faults of its own keys and of the recipes of its arms come together."""
    problems: list[str] = []
    experiment: TrainExperiment | AnalyticExperiment | None = None
    try:
        experiment = _validate(Experiment, value, document, ())
    except ClaimFileError as error:
        problems.extend(error.problems)
    part = {key: value.get(key) for key in ("base", "factors")}
    with contextlib.suppress(ValidationError):  # no arms can be made of it; the faults above say why
        sound = {"id": "any", "type": "train", "title": "any", "seeds": [0]}
        problems.extend(_faults_of_arms(TrainExperiment.model_validate({**sound, **part}), document))
    if problems or experiment is None:
        raise ClaimFileError(problems)
    return experiment


def _faults_of_arms(experiment: TrainExperiment, document: Document) -> Iterable[str]:
    """Every arm must be a recipe; a fault is shown at the level or base that wrote it."""
    problems: dict[str, None] = {}
    for name, levels, merged in _arms(experiment):
        try:
            Recipe.model_validate(merged)
        except ValidationError as error:
            for loc, message in _faults(error, merged, Recipe):
                places = [(*place, *loc) for place in (*reversed(levels), ("base",))]
                at = next((p for p in places if p in document.marks), None)
                shown = _dotted(at or loc)
                where = document.where(at or levels[-1])
                problems[f"{where}: {shown}: {message}" + ("" if at else f" (arm {name})")] = None
    return problems


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _validate(model: Any, value: Any, document: Document, base: Loc) -> Any:
    try:
        return _adapter(model).validate_python(value)
    except ValidationError as error:
        lines = []
        for loc, message in _faults(error, value, model):
            shown = _dotted((*base, *loc))
            lines.append(f"{document.where((*base, *loc))}: {shown + ': ' if shown else ''}{message}")
        raise ClaimFileError(lines) from None


def _faults(error: ValidationError, value: Any, annotation: Any) -> Iterator[tuple[Loc, str]]:
    """Key path in the file and a message, for each fault that pydantic found."""
    for fault in error.errors(include_url=False):
        if fault["type"] == "too_short" and fault["input"]:
            continue  # its items have faults of their own, already listed
        if fault["type"] == "union_tag_not_found" and fault["ctx"]["discriminator"] == "'kind'":
            continue  # the claim's own kind is missing or wrong, already listed
        loc, model = _resolve(fault["loc"], value, annotation)
        yield loc, _message(fault, loc, model)


def _message(fault: Any, loc: Loc, model: Any) -> str:
    found = fault["input"]
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            known = sorted(model.model_fields) if model is not None else []
            return f"unknown key{did_you_mean(str(loc[-1]), known)} (known: {', '.join(known)})"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"{found!r} is not one of {context['expected']}{_near(found, context['expected'])}"
        case "union_tag_invalid":
            tags = context["expected_tags"]
            key = context["discriminator"].strip("'")
            return f"{key} {context['tag']!r} is not one of {tags}{_near(context['tag'], tags)}"
        case "union_tag_not_found":
            return f"{context['discriminator']} is missing, which says what this is"
        case "too_short":
            return f"needs at least {context['min_length']}, found {context['actual_length']}"
        case "tuple_type":
            return f"a list is expected, found {_kind_of(found)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"a mapping is expected, found {_kind_of(found)}"
        case "string_pattern_mismatch":
            return f"{found!r} is not a name of lower-case letters, digits, '.', '_' and '-'"
        case _:
            shown = repr(found) if not isinstance(found, dict | list) else _kind_of(found)
            return f"{shown}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _dotted(loc: Loc) -> str:
    """A key path on one line, whatever the keys hold."""
    return ".".join(p if isinstance(p, str) and p.isprintable() else repr(p) for p in loc)


def _near(found: Any, expected: str) -> str:
    words = [w.strip(" '") for w in expected.replace(" or ", ",").split(",")]
    return did_you_mean(str(found), words)


def _kind_of(value: Any) -> str:
    return {dict: "a mapping", list: "a list", type(None): "nothing", str: "text"}.get(type(value), repr(value))


def _resolve(loc: Loc, value: Any, annotation: Any) -> tuple[Loc, Any]:
    """The key path without the union tags that pydantic adds, and the model whose key it ends in."""
    kept: list[str | int] = []
    owner: Any = None
    for i, part in enumerate(loc):
        members = list(_members(annotation))
        tagged = [m for m in members if part in _tags(m)]
        if tagged and not (isinstance(value, Mapping) and part in value):
            annotation = tagged[0]
            owner = annotation if i == len(loc) - 1 else owner
            continue
        models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
        owner = models[0] if models else None
        kept.append(part)
        annotation = _step(members, part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(kept), owner


def _members(annotation: Any) -> Iterator[Any]:
    """The types a value may have, with Annotated, aliases and unions opened."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _tags(model: Any) -> tuple[Any, ...]:
    """Values by which a member of a tagged union is known."""
    fields = getattr(model, "model_fields", {})
    if model in (Bound, Comparison):  # told apart by their keys
        return (model.__name__,)
    literals = [fields[k].annotation for k in ("family", "type", "kind") if k in fields]
    return tuple(v for a in literals if get_origin(a) is Literal for v in get_args(a))


def _step(members: Iterable[Any], part: str | int) -> Any:
    for member in members:
        fields = getattr(member, "model_fields", {})
        if part in fields:
            return fields[part].annotation
        arguments = get_args(member)
        if get_origin(member) is dict:
            return arguments[1]
        if get_origin(member) in (tuple, list) and arguments:
            return arguments[0]
    return Any
