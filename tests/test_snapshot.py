"""What is kept of the claim files between commands: never a reason for another verdict."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from vitrepro import claims, snapshot, yamlfile
from vitrepro.claims import Registry, collect
from vitrepro.claims.files import _kept, _restored
from vitrepro.recipe import Recipe
from vitrepro.spec import TrainExperiment, ValueExpect

EXPERIMENT = """\
id: models
type: train
title: two models on digits
base:
  data: {name: digits}
  train: {steps: 10, batch_size: 8, lr: 1e-3}
factors:
  model:
    vit: {model: {family: vit, patch_size: 4, embed_dim: 16, depth: 2, num_heads: 2}}
    resnet: {model: {family: resnet, layers: [1, 1], block: basic, width: 8}}
seeds: [0, 1]
"""
CLAIM = """\
id: paper/value
source: {paper: "arxiv:1", where: Table 2}
kind: value
statement: The model reaches 90%.
reported: {unit: percent, cells: {vit: 90}}
scales:
  quick: {experiment: models, fidelity: exact, expect: {cells: {vit: {arm: vit, margin: 2}}}}
"""


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A claim and its experiment in the place of those that come with vitrepro, and an empty cache."""
    folder = tmp_path / "claims"
    (folder / "experiments").mkdir(parents=True)
    (folder / "value.yaml").write_text(CLAIM)
    (folder / "experiments" / "models.yaml").write_text(EXPERIMENT)
    monkeypatch.setattr("vitrepro.claims.files.builtin_dir", lambda: folder)
    monkeypatch.setenv("VITREPRO_CACHE", str(tmp_path / "cache"))
    return folder


def kept(folder: Path) -> Path:
    path = snapshot.place(folder)
    assert path is not None
    return path


def loaded_without_reading(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The claims, while nothing can be parsed or validated."""

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a file was read")

    with monkeypatch.context() as patch:
        patch.setattr(yamlfile, "decode", refused)
        patch.setattr(collect, "validate", refused)
        patch.setattr(Recipe, "model_validate", refused)
        registry = claims.load()
        for experiment in registry.experiments.values():
            if isinstance(experiment, TrainExperiment):
                claims.recipes(experiment)
        return registry


def margin(registry: Registry) -> float:
    entry = registry.claims["paper/value"].scales.quick
    assert entry is not None
    assert isinstance(entry.expect, ValueExpect)
    return entry.expect.cells["vit"].margin


def told(model: BaseModel) -> set[str]:
    """What was said of it, but for defaults that its JSON leaves out."""
    return model.model_fields_set & model.model_dump(mode="json").keys()


def same(one: Any, other: Any) -> bool:
    """Equal in type, in value and in what was said, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, BaseModel):
        said = told(one) == told(other) and list(vars(one)) == list(vars(other))
        return said and all(same(vars(one)[k], vars(other)[k]) for k in vars(one))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


# --- the same objects -----------------------------------------------------------------------------


def test_every_built_in_object_is_rebuilt_as_it_was_validated() -> None:
    found = collect.Collector(Registry({}, {}, {}, {}))
    folder = claims.builtin_dir()
    for path in sorted(folder.rglob("*.yaml")):
        found.add(path, f"{folder.name}/{path.relative_to(folder)}")
    validated = found.registry()
    rebuilt = _restored(json.loads(json.dumps(_kept(validated, folder))), folder)
    assert len(validated.claims) > 10
    for section in ("claims", "experiments", "groups", "papers"):
        before, after = dict(getattr(validated, section)), getattr(rebuilt, section)
        assert before == after
        assert same(before, after)
    assert rebuilt.places == validated.places
    assert rebuilt.files == validated.files
    for name, claim in validated.claims.items():
        assert rebuilt.claims[name].hash == claim.hash
        assert rebuilt.claims[name].model_dump_json() == claim.model_dump_json()
    for name, experiment in validated.experiments.items():
        if isinstance(experiment, TrainExperiment):
            assert same(claims.recipes(experiment), claims.recipes(rebuilt.experiments[name]))


def test_the_second_loading_parses_and_validates_nothing(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = claims.load()
    assert kept(shipped).is_file()
    again = loaded_without_reading(monkeypatch)
    assert again == first
    assert again.files == {"paper/value": "claims/value.yaml", "models": "claims/experiments/models.yaml"}


def test_what_is_kept_is_plain_json(shipped: Path) -> None:
    claims.load()
    head, body = kept(shipped).read_bytes().split(b"\n", 1)
    assert len(head.split()) == 2
    assert json.loads(body)["claims"][0][:2] == ["paper/value", "value.yaml:1:1"]


def test_an_experiment_that_cannot_be_rebuilt_as_it_was_is_never_kept(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = snapshot.build
    steps = {"train": {"steps": 10.0, "batch_size": 8, "lr": 1e-3}}  # 10 == 10.0
    for change in ({"base": {"data": {"name": "digits"}, **steps}}, {"notes": "new"}, {"seeds": [0, 1]}):

        def careless(model: Any, value: Any, change: dict[str, Any] = change) -> Any:
            made = build(model, value)
            return made.model_copy(update=change) if isinstance(made, TrainExperiment) else made

        monkeypatch.setattr(snapshot, "build", careless)
        found = claims.load().experiments["models"]
        assert found.notes == ""
        assert not kept(shipped).exists()


# --- never stale ----------------------------------------------------------------------------------


def test_an_edited_margin_shows_at_once_even_with_the_size_and_time_of_before(shipped: Path) -> None:
    before = claims.load()
    file = shipped / "value.yaml"
    stamps = file.stat()
    file.write_text(CLAIM.replace("margin: 2", "margin: 3"))
    os.utime(file, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stamps.st_size, stamps.st_mtime_ns)
    for _ in range(2):
        after = claims.load()
        assert (margin(before), margin(after)) == (2.0, 3.0)
        assert after.claims["paper/value"].hash != before.claims["paper/value"].hash
    file.write_text(CLAIM)
    assert claims.load() == before


def test_files_that_come_go_or_move_are_noticed(shipped: Path) -> None:
    claims.load()
    (shipped / "more.yaml").write_text(CLAIM.replace("paper/value", "paper/more"))
    assert set(claims.load().claims) == {"paper/value", "paper/more"}
    (shipped / "more.yaml").rename(shipped / "moved.yaml")
    assert claims.load().files["paper/more"] == "claims/moved.yaml"
    (shipped / "moved.yaml").unlink()
    assert set(claims.load().claims) == {"paper/value"}


def test_files_with_faults_are_read_every_time(shipped: Path) -> None:
    claims.load()
    (shipped / "bad.yaml").write_text("id: paper/bad")
    for _ in range(2):
        registry = claims.load()
        assert registry.problems
        assert set(registry.claims) == {"paper/value"}
    (shipped / "bad.yaml").unlink()
    assert claims.load().problems == ()


@pytest.mark.parametrize("module", ["spec.py", "recipe.py", "catalog.py", "yamlfile.py", "claims/collect.py"])
def test_another_byte_in_the_program_counts_as_another_program(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "vitrepro"
    shutil.copytree(
        Path(snapshot.__file__).parent, copied, ignore=lambda _, names: {n for n in names if "." not in n} - {"claims"}
    )
    monkeypatch.setattr(snapshot, "__file__", str(copied / "snapshot.py"))
    before = snapshot.key_of({"a.yaml": b"x"})
    assert snapshot.key_of({"a.yaml": b"x"}) == before
    (copied / module).write_bytes((copied / module).read_bytes().replace(b"a", b"b", 1))
    assert snapshot.key_of({"a.yaml": b"x"}) != before


def test_a_key_holds_names_contents_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"a.yaml": b"x", "b.yaml": b"y"}
    keys = {snapshot.key_of(f) for f in (files, {"a.yaml": b"xb", "yaml": b"y"}, {"a.yaml": b"y", "b.yaml": b"x"}, {})}
    for name in ("VERSION", "__version__"):
        with monkeypatch.context() as patch:
            patch.setattr(snapshot, name, "another")
            keys.add(snapshot.key_of(files))
    assert len(keys) == 6
    assert snapshot.key_of(dict(reversed(files.items()))) in keys


# --- damage, and no place to write ----------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"\0" * len(content),
        lambda content: content.replace(b'"margin": 2', b'"margin": 9'),
        lambda content: content.split(b"\n")[1],
        lambda _: b"\xff\n{}",
        lambda content: content.split(b"\n")[0] + b"\n{}",
        lambda _: b"\x80\x04\x95 no pickle is read",
    ],
)
def test_a_damaged_snapshot_is_made_again(shipped: Path, monkeypatch: pytest.MonkeyPatch, damage: Any) -> None:
    first = claims.load()
    content = kept(shipped).read_bytes()
    assert damage(content) != content
    kept(shipped).write_bytes(damage(content))
    assert claims.load() == first
    assert kept(shipped).read_bytes() == content
    assert loaded_without_reading(monkeypatch) == first


def test_a_folder_in_place_of_the_snapshot_is_left_alone(shipped: Path) -> None:
    kept(shipped).mkdir(parents=True)
    assert margin(claims.load()) == 2.0
    assert kept(shipped).is_dir()


@pytest.mark.usefixtures("shipped")
def test_without_a_place_for_caches_claims_are_read_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = claims.load()
    (tmp_path / "file").write_text("not a folder")
    for cache in (str(tmp_path / "file"), str(tmp_path / "file" / "below"), "/proc/nowhere", "relative/folder"):
        monkeypatch.setenv("VITREPRO_CACHE", cache)
        monkeypatch.chdir(tmp_path)
        assert claims.load() == first
    assert not (tmp_path / "relative").exists()


def test_directories_of_claims_do_not_share_a_snapshot(shipped: Path, tmp_path: Path) -> None:
    assert kept(shipped) != kept(tmp_path / "other")
