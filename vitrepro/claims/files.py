"""Where claims are: those that come with vitrepro, those of installed packages, and any directory."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vitrepro import snapshot, yamlfile
from vitrepro.claims.arms import keep_recipes, recipes
from vitrepro.claims.collect import Collector, files_by_name
from vitrepro.claims.registry import Place, Registry
from vitrepro.errors import UsageError
from vitrepro.recipe import Recipe
from vitrepro.spec import AnalyticExperiment, Claim, Experiment, Family, Group, Paper, TrainExperiment

ENTRY_POINTS = "vitrepro.claims"


def builtin_dir() -> Path:
    """The claims that come with vitrepro: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "_claims"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "claims"


def load(extra: Sequence[Path] = ()) -> Registry:
    """The built-in claims, those of installed packages and of further directories; faults are collected, not raised.

    Raises:
        UsageError: a directory does not exist or holds no claim file.
    """
    builtin = _builtin()
    warnings: list[str] = []
    further = (*_installed(warnings), *extra)
    found = Collector(replace(builtin, warnings=tuple(warnings)))
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
    found = Collector(Registry({}, {}, {}, {}))
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
        keep_recipes(sections["experiments"][name], {arm: snapshot.build(Recipe, r) for arm, r in arms.items()})
    return Registry(**sections, files=files_by_name(places), places=places)


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
    found = Collector(base)
    for path in unique.values():
        found.add(path, str(path))
    return tuple(p for p in found.registry().problems if p not in registry.problems)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a claim file, a family file, an experiment file or a file about a source, for editors."""
    return TypeAdapter(Claim | Family | Experiment | Paper).json_schema()
