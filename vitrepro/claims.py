"""Read the claim files, check each alone and all against each other, and select from them.

A directory of claims holds claim files (one claim, or a family under `claims:`), `experiments/`, optionally
`groups.yaml`, and files about the sources. A broken file costs its own claims, and those that need them, only; its
faults are kept and named.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import json
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from vitrepro import literal, snapshot, yamlfile
from vitrepro.errors import ClaimFileError, UsageError, did_you_mean
from vitrepro.metrics import TOP1, is_accuracy, limits, of_ignorance, unavailable
from vitrepro.recipe import COMPUTING, Recipe, apart
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

T = TypeVar("T", bound=BaseModel)
ENTRY_POINTS = "vitrepro.claims"


@dataclass(frozen=True)
class Place:
    """Where something is defined: its file, and `file:line:column` as messages show it."""

    path: str
    shown: str


@dataclass(frozen=True)
class Registry:
    """All claims at hand, and where each came from.

    Attributes:
        claims, experiments, groups: by id or name, in the order of the files.
        files: the file that holds a claim, an experiment or a source, as messages show it.
        problems: faults of the files that could not be used, one line each.
        papers: what is known of the sources of claims, by `source.paper`.
        warnings: what was left out without being at fault itself, such as an installed package that does not load.
        places: by what it is (claim, experiment, group or source) and its id or name.
        broken: ids of claims and experiments whose files have faults.
    """

    claims: Mapping[str, Claim]
    experiments: Mapping[str, TrainExperiment | AnalyticExperiment]
    groups: Mapping[str, Group]
    files: Mapping[str, str]
    problems: tuple[str, ...] = ()
    papers: Mapping[str, Paper] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()

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
    other = next((claims[name] for name in _named(claim, address) if name in claims), None)
    if other is None:
        near = did_you_mean(_named(claim, address)[0], claims)
        raise KeyError(f"{address}: no claim {claim_id!r}{near}")
    cells = other.reported.cells if other.reported else {}
    if cell not in cells:
        raise KeyError(f"{address}: {other.id} reports no cell {cell!r}{did_you_mean(cell, cells)}")
    return cells[cell]


def _named(claim: Claim, address: str) -> tuple[str, str]:
    """Ids of claims that an address in a formula of a claim may mean: of the same source, or with another in front."""
    claim_id = address.rpartition("/")[0]
    return f"{claim.id.rpartition('/')[0]}/{claim_id}", claim_id


def builtin_dir() -> Path:
    """The claims that come with vitrepro: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "_claims"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "claims"


def load(extra: Sequence[Path] = ()) -> Registry:
    """The built-in claims, those of installed packages and of further directories; faults are collected, not raised.

    Raises:
        UsageError: a directory does not exist or holds no claim file.
    """
    builtin = _builtin()
    warnings: list[str] = []
    further = (*_installed(warnings), *extra)
    found = _Collector(replace(builtin, warnings=tuple(warnings)))
    if further:
        seen = {os.path.realpath(path) for path in _files(builtin_dir())}
        for directory in further:
            for path in _files(directory):
                if os.path.realpath(path) not in seen:  # `validate claims` in a checkout names the built-in ones again
                    seen.add(os.path.realpath(path))
                    found.add(path, str(path))
    return found.registry()


def _files(directory: Path) -> list[Path]:
    """The claim files of a directory, in the order in which they are read.

    Raises:
        UsageError: there is no such directory, or none in it.
    """
    try:
        if not directory.is_dir():
            raise UsageError(f"{directory}: no such directory of claims")
        found = [Path(top, name) for top, _, names in os.walk(directory) for name in names if name.endswith(".yaml")]
        files = sorted(path for path in found if path.is_file())
    except OSError as error:
        raise UsageError(f"{directory}: cannot be read: {error.strerror or error}") from None
    if not files:
        raise UsageError(f"{directory}: holds no *.yaml file; a claim file ends in .yaml")
    return files


def _builtin() -> Registry:
    """The built-in claims, from the snapshot of the last reading while nothing has changed since."""
    directory = builtin_dir()
    paths = _files(directory)
    try:
        files = {path.relative_to(directory).as_posix(): yamlfile.read_bytes(path) for path in paths}
        key = snapshot.key_of(files)
        kept = snapshot.place(directory)
    except OSError:  # a file that cannot be read is named below
        files, key, kept = {}, "", None
    known = snapshot.read(kept, key) if kept else None
    if known is not None:
        return _restored(known, directory)
    found = _Collector(Registry({}, {}, {}, {}))
    for path in paths:
        name = path.relative_to(directory).as_posix()
        found.add(path, f"{directory.name}/{name}", files.get(name))
    registry = found.registry()
    if kept and not registry.problems:
        text = json.dumps(_kept(registry, directory))
        restored = _restored(json.loads(text), directory)
        if restored == registry and json.dumps(_kept(restored, directory)) == text:  # 1 == 1.0, and may not become it
            snapshot.write(kept, key, text)
    return registry


_SECTIONS: dict[str, tuple[str, Any]] = {
    "claim": ("claims", Claim),
    "experiment": ("experiments", TrainExperiment | AnalyticExperiment),
    "group": ("groups", Group),
    "source": ("papers", Paper),
}


def _kept(registry: Registry, directory: Path) -> dict[str, Any]:
    """A registry without faults as JSON, with places relative to its directory."""
    kept: dict[str, Any] = {}
    for what, (section, _) in _SECTIONS.items():
        kept[section] = []
        for name, item in getattr(registry, section).items():
            place = registry.places[what, name]
            _, line, column = place.shown.rsplit(":", 2)
            at = f"{Path(place.path).relative_to(directory).as_posix()}:{line}:{column}"
            kept[section].append([name, at, snapshot.plain(item)])
    trained = [e for e in registry.experiments.values() if isinstance(e, TrainExperiment)]
    kept["recipes"] = {e.id: {arm: snapshot.plain(r) for arm, r in recipes(e).items()} for e in trained}
    return kept


def _restored(kept: Mapping[str, Any], directory: Path) -> Registry:
    """The registry that `_kept` was made of."""
    sections: dict[str, Any] = {}
    places: dict[tuple[str, str], Place] = {}
    for what, (section, model) in _SECTIONS.items():
        sections[section] = {}
        for name, at, value in kept[section]:
            sections[section][name] = snapshot.build(model, value)
            places[what, name] = Place(str(directory / at.rsplit(":", 2)[0]), f"{directory.name}/{at}")
    for name, arms in kept["recipes"].items():
        _keep_recipes(sections["experiments"][name], {arm: snapshot.build(Recipe, r) for arm, r in arms.items()})
    return Registry(**sections, files=_files_of(places), places=places)


def _files_of(places: Mapping[tuple[str, str], Place]) -> dict[str, str]:
    files = {name: place.shown.rsplit(":", 2)[0] for (what, name), place in places.items() if what != "group"}
    claims = {name: place.shown.rsplit(":", 2)[0] for (what, name), place in places.items() if what == "claim"}
    return {**files, **claims}


def _installed(warnings: list[str]) -> Iterator[Path]:
    """Directories of claims that other packages name by an entry point; one that fails is a warning."""
    try:
        points = sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name)
    except Exception as error:  # the metadata of any package may be damaged
        warnings.append(f"claims of installed packages are left out: {_one_line(error)}")
        return
    for point in points:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # ours may be a JSON document
                made = point.load()
                directory = Path(made() if callable(made) else made)
            _files(directory)
        except (Exception, SystemExit) as error:  # whatever a package raises must not take the other claims with it
            warnings.append(f"claims of the installed package {_package(point)} are left out: {_one_line(error)}")
        else:
            yield directory


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def check_files(paths: Sequence[Path], registry: Registry) -> tuple[str, ...]:
    """Faults of single files, each held against everything already known, but for what it defines there itself."""
    unique = {os.path.realpath(path): path for path in paths}
    others = {named: place for named, place in registry.places.items() if os.path.realpath(place.path) not in unique}

    def known(what: str, items: Mapping[str, Any]) -> dict[str, Any]:
        return {name: i for name, i in items.items() if (what, name) in others or (what, name) not in registry.places}

    base = replace(
        registry,
        claims=known("claim", registry.claims),
        experiments=known("experiment", registry.experiments),
        groups=known("group", registry.groups),
        papers=known("source", registry.papers),
        places=others,
    )
    found = _Collector(base)
    for path in unique.values():
        found.add(path, str(path))
    return tuple(p for p in found.registry().problems if p not in registry.problems)


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
            if pattern in registry.broken:
                hint = ", for its file has faults"
            broken = f" ({len(registry.problems)} faults in claim files, see `vitrepro validate`)"
            raise UsageError(f"no claim matches {pattern!r}{hint}{broken if registry.problems else ''}")
        chosen.update({c.id: c for c in hits})
    group = registry.groups.get(patterns[0]) if len(patterns) == 1 else None
    return [c for c in registry.claims.values() if c.id in chosen], group


def one(registry: Registry, name: str) -> tuple[Claim, str | None]:
    """The claim of an id, or of `claim/cell`, with the cell.

    Raises:
        UsageError: nothing has this name, or several claims have.
    """
    chosen, _ = select(registry, [name])
    if len(chosen) > 1:
        raise UsageError(f"{name} names {len(chosen)} claims; one is needed")
    claim = chosen[0]
    return claim, None if claim.id == name or not name.startswith(f"{claim.id}/") else name.rpartition("/")[2]


def _matches(claim: Claim, pattern: str) -> bool:
    """A claim's id, a glob over ids, or a cell of the claim (`paper/claim/cell`)."""
    claim_id, _, cell = pattern.rpartition("/")
    return fnmatch.fnmatchcase(claim.id, pattern) or (claim_id == claim.id and cell in _cells(claim))


def _cells(claim: Claim) -> tuple[str, ...]:
    return tuple(claim.reported.cells) if claim.reported else ()


_recipes: dict[int, dict[str, Recipe]] = {}  # of experiments that are alive, by identity


def recipes(experiment: TrainExperiment) -> dict[str, Recipe]:
    """Arm name -> its whole recipe.

    Raises:
        ValidationError: an arm is not a recipe (files are checked for this when they are read).
    """
    if id(experiment) not in _recipes:
        _keep_recipes(experiment, {name: Recipe.model_validate(merged) for name, _, merged in _arms(experiment)})
    return dict(_recipes[id(experiment)])


def _keep_recipes(experiment: TrainExperiment, made: dict[str, Recipe]) -> None:
    _recipes[id(experiment)] = made
    weakref.finalize(experiment, _recipes.pop, id(experiment), None).atexit = False


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


@dataclass(frozen=True)
class _Found(Generic[T]):
    """Something read from a file, its key path there, and that of its name."""

    item: T
    path: Path
    document: Document
    at: Loc = ()
    key: Loc = ()

    @property
    def place(self) -> Place:
        return Place(str(self.path), self.document.where((*self.at, *self.key)))


@dataclass
class _Collector:
    """What is read on top of what is known already; the first of two things with one name counts.

    Attributes:
        broken: ids of claims and experiments whose files have faults.
    """

    base: Registry
    claims: dict[str, _Found[Claim]] = field(default_factory=dict)
    experiments: dict[str, _Found[TrainExperiment | AnalyticExperiment]] = field(default_factory=dict)
    groups: dict[str, _Found[Group]] = field(default_factory=dict)
    papers: dict[str, _Found[Paper]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def add(self, path: Path, shown: str, content: bytes | None = None) -> None:
        """Read a file, or its content where that is at hand."""
        value: Any = None
        try:
            document = yamlfile.read(path, shown) if content is None else yamlfile.decode(content, shown)
            value = document.value
            if not isinstance(value, dict):
                raise ClaimFileError([f"{shown}:1:1: a mapping is expected, found {_kind_of(value)}"])
            if path.name == "groups.yaml":
                for name in value:
                    self._group(name, value[name], path, document)
            elif "claims" in value:
                self._family(value, path, document)
            elif _is_experiment(value, path):
                experiment = _experiment(value, document)
                self._new(
                    "experiment", experiment.id, self.experiments, _Found(experiment, path, document, (), ("id",))
                )
            elif "paper" in value:
                paper = _validate(Paper, value, document, ())
                self._new("source", paper.paper, self.papers, _Found(paper, path, document, (), ("paper",)))
            else:
                self._claim(value, path, document, ())
        except ClaimFileError as error:
            self.problems.extend(error.problems)
            self._note_broken(value)

    def _family(self, value: dict[str, Any], path: Path, document: Document) -> None:
        """Its claims one by one, so that a faulty one does not take the others with it."""
        members = value["claims"]
        if not isinstance(members, list) or not members or value.keys() != {"claims"}:
            for member in members if isinstance(members, list) else ():
                self._note_broken(member)
            _validate(Family, value, document, ())
            return
        for i, member in enumerate(members):
            try:
                self._claim(member, path, document, ("claims", i))
            except ClaimFileError as error:
                self.problems.extend(error.problems)
                self._note_broken(member)

    def _note_broken(self, value: Any) -> None:
        if isinstance(value, dict) and isinstance(value.get("id"), str):
            self.broken.add(value["id"])

    def _group(self, name: str, value: Any, path: Path, document: Document) -> None:
        try:
            group = _validate(Group, value, document, (name,))
            self._new("group", name, self.groups, _Found(group, path, document, (name,)))
        except ClaimFileError as error:
            self.problems.extend(error.problems)

    def _claim(self, value: Any, path: Path, document: Document, loc: Loc) -> None:
        claim = _validate(Claim, value, document, loc)
        self._new("claim", claim.id, self.claims, _Found(claim, path, document, loc, ("id",)))

    def _new(self, what: str, name: str, into: dict[str, _Found[T]], found: _Found[T]) -> None:
        first = into[name].place if name in into else self.base.places.get((what, name))
        if first is not None:
            self.problems.append(f"{found.place.shown}: {what} {name!r} exists already, at {first.shown}")
        else:
            into[name] = found

    def registry(self) -> Registry:
        """What stands after the files were held against each other."""
        sound = {}
        for name, found in self.claims.items():
            if not self._lose(name, self._cross_check(found.item, found.document, found.at)):
                sound[name] = found
        before = -1
        while before != len(sound):  # a claim that compares with cells of another needs that one
            before, claims = len(sound), {**self.base.claims, **{name: found.item for name, found in sound.items()}}
            sound = {n: f for n, f in sound.items() if not self._lose(n, self._check_formulas(f, claims))}
        known = {**self.base.claims, **{name: found.item for name, found in self.claims.items()}}
        broken = self.base.broken | self.broken
        for name, group in self.groups.items():
            for i, pattern in enumerate(group.item.claims):
                if not any(_matches(c, pattern) for c in known.values()) and not fnmatch.filter(broken, pattern):
                    where = group.document.where((name, "claims", i))
                    self.problems.append(f"{where}: no claim matches {pattern!r}{did_you_mean(pattern, known)}")
        places = {
            **self.base.places,
            **{("claim", name): found.place for name, found in sound.items()},
            **{("experiment", name): experiment.place for name, experiment in self.experiments.items()},
            **{("group", name): group.place for name, group in self.groups.items()},
            **{("source", name): paper.place for name, paper in self.papers.items()},
        }
        return Registry(
            claims={**self.base.claims, **{name: found.item for name, found in sound.items()}},
            experiments={**self.base.experiments, **{name: e.item for name, e in self.experiments.items()}},
            groups={**self.base.groups, **{name: g.item for name, g in self.groups.items()}},
            files={**self.base.files, **_files_of(places)},
            problems=(*self.base.problems, *self.problems),
            papers={**self.base.papers, **{name: p.item for name, p in self.papers.items()}},
            warnings=self.base.warnings,
            places=places,
            broken=broken,
        )

    def _lose(self, name: str, faults: Iterable[str]) -> bool:
        """Whether a claim has faults, which are noted."""
        found = tuple(faults)
        self.problems.extend(found)
        if found:
            self.broken.add(name)
        return bool(found)

    def _cross_check(self, claim: Claim, document: Document, loc: Loc) -> Iterator[str]:
        yield from self._check_needs(claim, document, loc)
        experiments = {**self.base.experiments, **{name: found.item for name, found in self.experiments.items()}}
        for scale_name, scale in claim.scales.entries().items():
            if scale.expect is None or scale.experiment is None:
                continue
            at: Loc = (*loc, "scales", scale_name)
            shown = _dotted(at)
            if scale.fidelity == "exact" and scale.deviations:  # or a PASS would be called reproduced
                yield (
                    f"{document.where((*at, 'fidelity'))}: {shown}.fidelity: what deviates from the paper's protocol "
                    "is not exact: it is a substitute or a proxy"
                )
            where = f"{document.where((*at, 'experiment'))}: {shown}.experiment"
            if scale.experiment not in experiments:
                if scale.experiment in self.broken | self.base.broken:
                    yield f"{where}: the file of {scale.experiment!r} has faults, see there"
                else:
                    yield f"{where}: no experiment {scale.experiment!r}{did_you_mean(scale.experiment, experiments)}"
                continue
            experiment = experiments[scale.experiment]
            if isinstance(scale.expect, ExactExpect) != isinstance(experiment, AnalyticExperiment):
                wanted = "analytic" if isinstance(scale.expect, ExactExpect) else "train"
                yield f"{where}: what is expected needs an experiment of type {wanted}, this one is {experiment.type}"
                continue
            known = arm_names(experiment)
            for path, arm in arms_of(scale.expect):
                if arm not in known:
                    hint = did_you_mean(arm, known) or f"; it has {', '.join(known)}"
                    place = document.where((*at, "expect", *path))
                    yield f"{place}: {shown}.expect: {experiment.id} has no arm {arm!r}{hint}"
            if isinstance(experiment, TrainExperiment) and isinstance(scale.expect, OrderingExpect | ValueExpect):
                yield from _check_measures(scale.expect, experiment, document, at)
            if isinstance(experiment, TrainExperiment) and isinstance(scale.expect, EquivalenceExpect):
                for fault in _unpaired(scale.expect, experiment):
                    place = document.where((*at, "expect", "paired_by_seed"))
                    yield f"{place}: {shown}.expect.paired_by_seed: {fault}"
            yield from _check_cells(claim, scale_name, scale.expect, experiment, document, loc)

    def _check_needs(self, claim: Claim, document: Document, loc: Loc) -> Iterator[str]:
        """Data, weights and differences are those of the source's file, where there is one."""
        papers = {**self.base.papers, **{name: found.item for name, found in self.papers.items()}}
        paper = papers.get(claim.source.paper)
        if paper is None:
            return
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

    def _check_formulas(self, found: _Found[Claim], claims: Mapping[str, Claim]) -> Iterable[str]:
        """Every address in a check is a reported cell, and every check can be evaluated."""
        scale = found.item.scales.literal
        if scale is None or not isinstance(scale.expect, LiteralExpect):
            return ()

        def find(address: str) -> Cell:
            for name in _named(found.item, address):
                if name not in claims and name in self.broken | self.base.broken:
                    raise KeyError(f"{address}: claim {name!r} has faults, see there")
            return find_cell(claims, found.item, address)

        lines: dict[str, None] = {}
        for fault in literal.faults(scale.expect, find):
            at: Loc = (*found.at, "scales", "literal", "expect", *fault.place)
            lines[f"{found.document.where(at)}: {_dotted(at)}: {fault}"] = None
        return lines


def _is_experiment(value: Mapping[str, Any], path: Path) -> bool:
    if {"statement", "scales"} & value.keys():
        return False
    return bool({"type", "factors", "arms"} & value.keys()) or path.parent.name == "experiments"


def _check_measures(
    expect: OrderingExpect | ValueExpect, experiment: TrainExperiment, document: Document, at: Loc
) -> Iterator[str]:
    """Every metric is measured in its arms, and every bound on one can be missed."""
    made = recipes(experiment)
    used: list[tuple[Loc, str, str]] = []
    if isinstance(expect, ValueExpect):
        used = [(("cells", name), c.arm, c.metric) for name, c in expect.cells.items()]
    else:
        for i, c in enumerate(expect.all):
            arms = (c.arm,) if isinstance(c, Bound) else (c.greater, c.than)
            used += [(("all", i), arm, c.metric) for arm in arms]
            low, high = limits(c.metric)
            if isinstance(c, Bound) and not (c.above is None or c.above > low):
                place = document.where((*at, "expect", "all", i, "above"))
                yield f"{place}: {_dotted(at)}.expect: {c.metric} is never below {low:g}; the bound cannot be missed"
            if isinstance(c, Bound) and not (c.below is None or c.below < high):
                place = document.where((*at, "expect", "all", i, "below"))
                yield f"{place}: {_dotted(at)}.expect: {c.metric} is never above {high:g}; the bound cannot be missed"
    for path, arm, metric in used:
        why = unavailable(metric, made[arm]) if arm in made else None
        if why is not None:
            place = document.where((*at, "expect", *path))
            yield f"{place}: {_dotted(at)}.expect: arm {arm!r} of {experiment.id} does not measure {metric}; {why}"


def _unpaired(expect: EquivalenceExpect, experiment: TrainExperiment) -> Iterator[str]:
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


def _check_cells(
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
    """Every arm must be a recipe, and one of its own; a fault is shown at the level or base that wrote it."""
    problems: dict[str, None] = {}
    first: dict[Recipe, str] = {}
    for name, levels, merged in _arms(experiment):
        try:
            recipe = Recipe.model_validate(merged)
        except ValidationError as error:
            for loc, message in _faults(error, merged, Recipe):
                places = [(*place, *loc) for place in (*reversed(levels), ("base",))]
                at = next((p for p in places if p in document.marks), None)
                shown = _dotted(at or loc)
                where = document.where(at or levels[-1])
                problems[f"{where}: {shown}: {message}" + ("" if at else f" (arm {name})")] = None
        except OverflowError as error:
            problems[f"{document.where(levels[-1])}: a number is too large: {error} (arm {name})"] = None
        else:
            other = first.setdefault(recipe, name)
            if other != name:
                where = f"{document.where(levels[-1])}: {_dotted(levels[-1])}"
                problems[f"{where}: arms {other!r} and {name!r} have one recipe: they would be one run, not two"] = None
    return problems


@functools.cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _validate(model: Any, value: Any, document: Document, base: Loc) -> Any:
    try:
        return _adapter(model).validate_python(value)
    except ValidationError as error:
        lines: dict[str, None] = {}
        for loc, message in _faults(error, value, model):
            shown = _dotted((*base, *loc))
            lines[f"{document.where((*base, *loc))}: {shown + ': ' if shown else ''}{message}"] = None
        raise ClaimFileError(lines) from None
    except OverflowError as error:
        raise ClaimFileError([f"{document.where(base)}: a number is too large: {error}"]) from None


def _faults(error: ValidationError, value: Any, annotation: Any) -> Iterator[tuple[Loc, str]]:
    """Key path in the file and a message, for each fault that pydantic found."""
    found = _merged(error.errors(include_url=False))
    wrong_kinds = {fault["loc"][:-1] for fault in found if fault["loc"] and fault["loc"][-1] == "kind"}
    for fault in found:
        if fault["type"] == "too_short" and fault["input"]:
            continue  # its items have faults of their own, already listed
        if fault["type"] == "union_tag_not_found" and _is_form(fault) and fault["loc"][:-3] in wrong_kinds:
            continue  # without a kind of claim nothing tells what is expected, and that is listed
        if _said_once(fault["loc"]) and not _holds(value, fault["loc"]):
            continue  # it stands beside the cells, and is listed there
        loc, model = _resolve(fault["loc"], value, annotation)
        yield loc, _message(fault, loc, model)


def _merged(faults: Iterable[Any]) -> list[Any]:
    """Faults with those of words that stand in none of several lists made one."""
    merged: list[Any] = []
    for fault in faults:
        if fault["type"] == "literal_error" and str(fault["loc"][-1]).startswith("literal["):
            fault = {**fault, "loc": fault["loc"][:-1]}
            if merged and (merged[-1]["type"], merged[-1]["loc"]) == (fault["type"], fault["loc"]):
                merged[-1]["ctx"] = {"expected": f"{merged[-1]['ctx']['expected']}, {fault['ctx']['expected']}"}
                continue
        merged.append(fault)
    return merged


def _said_once(loc: Loc) -> bool:
    """Whether a key path is that of what a reported cell takes over where it does not say it itself."""
    *_, section, cells, _, key = ("", "", "", "", *loc)
    return (section, cells) == ("reported", "cells") and key in ("decimals", "runs", "n")


def _holds(value: Any, loc: Loc) -> bool:
    for part in loc:
        if not (part in value if isinstance(value, dict) else isinstance(value, list)):
            return False
        value = value[part]
    return True


def _message(fault: Any, loc: Loc, model: Any) -> str:
    found = fault["input"]
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            forms = (Comparison, Bound) if model in (Comparison, Bound) else (model,) if model is not None else ()
            keys = [sorted(form.model_fields) for form in forms]
            hint = did_you_mean(str(loc[-1]), dict.fromkeys(k for form in keys for k in form))
            return f"unknown key{hint} (known: {'; or '.join(', '.join(form) for form in keys)})"
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"{_short(found)} is not one of {context['expected']}{_near(found, context['expected'])}"
        case "union_tag_invalid":
            tags = context["expected_tags"]
            key = context["discriminator"].strip("'")
            return f"{key} {_short(context['tag'])} is not one of {tags}{_near(context['tag'], tags)}"
        case "union_tag_not_found" if _is_form(fault):
            return (
                "nothing here tells what is expected; it has cells (of numbers), all (orders and bounds), equal and "
                "within, larger_gain and than, increasing, or checks (of printed cells)"
            )
        case "union_tag_not_found":
            return f"{context['discriminator']} is missing, which says what this is"
        case "too_short":
            return f"needs at least {context['min_length']}, found {context['actual_length']}"
        case "tuple_type":
            return f"a list is expected, found {_kind_of(found)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"a mapping is expected, found {_kind_of(found)}"
        case "string_pattern_mismatch":
            return f"{_short(found)} is not a name of lower-case letters, digits, '.', '_' and '-'"
        case _:
            shown = _short(found) if not isinstance(found, dict | list) else _kind_of(found)
            return f"{shown}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _is_form(fault: Any) -> bool:
    """Whether the tag at fault is that of `expect`, which no file writes."""
    return bool(fault["ctx"]["discriminator"] == "'kind'")


def _dotted(loc: Loc) -> str:
    """A key path on one line, whatever the keys hold."""
    return ".".join(p if isinstance(p, str) and p.isprintable() and len(p) <= 120 else _short(p) for p in loc)


def _short(value: Any) -> str:
    """What was found, on one line."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _near(found: Any, expected: str) -> str:
    words = [w.strip(" '") for w in expected.replace(" or ", ",").split(",")]
    return did_you_mean(str(found), words)


def _kind_of(value: Any) -> str:
    return {dict: "a mapping", list: "a list", type(None): "nothing", str: "text"}.get(type(value), _short(value))


def _resolve(loc: Loc, value: Any, annotation: Any) -> tuple[Loc, Any]:
    """The key path in the file, without the union tags that pydantic adds, and the model whose key it ends in."""
    kept: list[str | int] = []
    owner: Any = None
    for part in loc:
        members = list(snapshot.members_of(annotation))
        models = [m for m in members if isinstance(m, type) and issubclass(m, BaseModel)]
        if len(models) > 1:
            annotation = next((m for m in models if part in _tags(m)), Any)
            continue
        if not isinstance(value, dict | list | None):
            break  # a plain word or number, which the schema takes for more
        owner = models[0] if models else None
        kept.append(part)
        annotation = _step(members, part)
        try:
            value = value[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            value = None
    return tuple(kept), owner


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """By which pydantic names a member of a union."""
    if model in (Bound, Comparison):  # told apart by their keys
        return (model.__name__,)
    return tuple(value for _, value in snapshot.tags_of(model))


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
