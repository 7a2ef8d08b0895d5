"""Files read one by one, each checked alone and all held against each other."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from vitrepro import literal, yamlfile
from vitrepro.claims.arms import arm_names, arms_of, combinations
from vitrepro.claims.checks import check_cells, check_measures, unpaired
from vitrepro.claims.faults import dotted, faults, kind_of, validate
from vitrepro.claims.registry import Place, Registry, addressed, find_cell, matches
from vitrepro.errors import ClaimFileError, did_you_mean
from vitrepro.metrics import TOP1, unavailable
from vitrepro.recipe import Recipe
from vitrepro.spec import (
    AnalyticExperiment,
    Cell,
    Claim,
    Conditional,
    EquivalenceExpect,
    ExactExpect,
    Experiment,
    Family,
    Group,
    LiteralExpect,
    Paper,
    TrainExperiment,
)
from vitrepro.yamlfile import Document, Loc

T = TypeVar("T", bound=BaseModel)


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
class Collector:
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
                raise ClaimFileError([f"{shown}:1:1: a mapping is expected, found {kind_of(value)}"])
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
                paper = validate(Paper, value, document, ())
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
            validate(Family, value, document, ())
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
            group = validate(Group, value, document, (name,))
            self._new("group", name, self.groups, _Found(group, path, document, (name,)))
        except ClaimFileError as error:
            self.problems.extend(error.problems)

    def _claim(self, value: Any, path: Path, document: Document, loc: Loc) -> None:
        claim = validate(Claim, value, document, loc)
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
                if not any(matches(c, pattern) for c in known.values()) and not fnmatch.filter(broken, pattern):
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
            files={**self.base.files, **files_by_name(places)},
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
        runs: dict[tuple[str, str], str] = {}  # experiment and arm -> scale that runs it
        for scale_name, scale in claim.scales.entries().items():
            if scale.expect is None or scale.experiment is None:
                continue
            at: Loc = (*loc, "scales", scale_name)
            for _, arm in arms_of(scale.expect):
                other = runs.setdefault((scale.experiment, arm), scale_name)
                if other != scale_name:  # or one training would be two verdicts
                    yield (
                        f"{document.where((*at, 'experiment'))}: {dotted(at)}.experiment: scale {other} has the same "
                        f"runs ({scale.experiment}, arm {arm}); keep one of the two scales"
                    )
                    break
            shown = dotted(at)
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
            if isinstance(experiment, TrainExperiment) and isinstance(scale.expect, Conditional):
                yield from check_measures(scale.expect, experiment, document, at)
            if isinstance(experiment, TrainExperiment) and isinstance(scale.expect, EquivalenceExpect):
                for fault in unpaired(scale.expect, experiment):
                    place = document.where((*at, "expect", "paired_by_seed"))
                    yield f"{place}: {shown}.expect.paired_by_seed: {fault}"
            yield from check_cells(claim, scale_name, scale.expect, experiment, document, loc)

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
                    yield f"{document.where(at)}: {dotted(at)}: the file of {paper.paper} has no {name!r}{hint}"

    def _check_formulas(self, found: _Found[Claim], claims: Mapping[str, Claim]) -> Iterable[str]:
        """Every address in a check is a reported cell, and every check can be evaluated."""
        scale = found.item.scales.literal
        if scale is None or not isinstance(scale.expect, LiteralExpect):
            return ()

        def find(address: str) -> Cell:
            for name in addressed(found.item, address):
                if name not in claims and name in self.broken | self.base.broken:
                    raise KeyError(f"{address}: claim {name!r} has faults, see there")
            return find_cell(claims, found.item, address)

        lines: dict[str, None] = {}
        for fault in literal.faults(scale.expect, find):
            at: Loc = (*found.at, "scales", "literal", "expect", *fault.place)
            lines[f"{found.document.where(at)}: {dotted(at)}: {fault}"] = None
        return lines


def _is_experiment(value: Mapping[str, Any], path: Path) -> bool:
    if {"statement", "scales"} & value.keys():
        return False
    return bool({"type", "factors", "arms"} & value.keys()) or path.parent.name == "experiments"


def _experiment(value: dict[str, Any], document: Document) -> TrainExperiment | AnalyticExperiment:
    """An experiment; faults of its own keys and of the recipes of its arms come together."""
    problems: list[str] = []
    experiment: TrainExperiment | AnalyticExperiment | None = None
    try:
        experiment = validate(Experiment, value, document, ())
    except ClaimFileError as error:
        problems.extend(error.problems)
    part = {key: value[key] for key in ("base", "factors", "failed_if") if key in value}
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
    for name, levels, merged in combinations(experiment):
        try:
            recipe = Recipe.model_validate(merged)
        except ValidationError as error:
            for loc, message in faults(error, merged, Recipe):
                places = [(*place, *loc) for place in (*reversed(levels), ("base",))]
                at = next((p for p in places if p in document.marks), None)
                shown = dotted(at or loc)
                where = document.where(at or levels[-1])
                problems[f"{where}: {shown}: {message}" + ("" if at else f" (arm {name})")] = None
        except OverflowError as error:
            problems[f"{document.where(levels[-1])}: a number is too large: {error} (arm {name})"] = None
        else:
            other = first.setdefault(recipe, name)
            if other != name:
                where = f"{document.where(levels[-1])}: {dotted(levels[-1])}"
                problems[f"{where}: arms {other!r} and {name!r} have one recipe: they would be one run, not two"] = None
            metric = experiment.failed_if.metric if experiment.failed_if else TOP1
            if why := unavailable(metric, recipe):
                where = f"{document.where(('failed_if', 'metric'))}: failed_if.metric"
                problems[f"{where}: arm {name!r} does not measure {metric}; {why}"] = None
    return problems


def files_by_name(places: Mapping[tuple[str, str], Place]) -> dict[str, str]:
    """The file of each claim, experiment and source, as messages show it; a claim's where names meet."""
    files = {name: place.shown.rsplit(":", 2)[0] for (what, name), place in places.items() if what != "group"}
    claims = {name: place.shown.rsplit(":", 2)[0] for (what, name), place in places.items() if what == "claim"}
    return {**files, **claims}
