"""Every claim to start from is whole: it validates, plans and, where that takes seconds, runs as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from vitrepro import claims, template, yamlfile
from vitrepro.cli import app
from vitrepro.errors import UsageError
from vitrepro.plan import Choice, plan_claim
from vitrepro.recipe import Recipe
from vitrepro.spec import SCALES, Kind
from vitrepro.template import KINDS, new_claim

COUNTED = ("exact", "cost")


def named(kind: str) -> str:
    return f"my-paper/{kind}"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A directory with a claim of every kind."""
    for kind in KINDS:
        new_claim(tmp_path / "mine", named(kind), kind)
    return tmp_path / "mine"


def test_there_is_a_template_for_every_kind_of_claim_and_for_printed_numbers() -> None:
    assert set(KINDS) == {*get_args(Kind), "literal"}
    assert {p.stem for p in template.FOLDER.glob("*.yaml")} == set(KINDS)
    assert {p.stem for p in (template.FOLDER / "experiments").glob("*.yaml")} == set(KINDS) - {"literal"}


def test_the_templates_of_all_kinds_validate_together(made: Path) -> None:
    registry = claims.load([made])
    assert registry.problems == ()
    for kind in KINDS:
        claim = registry.claims[named(kind)]
        assert claim.kind == ("ordering" if kind == "literal" else kind)
        entries = [e for e in claim.scales.entries().values() if e.expect is not None]
        assert [e.expect.kind for e in entries if e.expect] == [
            {"cost": "exact", "qualitative": "ordering"}.get(kind, kind)
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_template_of_each_kind_validates_alone_and_can_be_planned(kind: str, tmp_path: Path) -> None:
    files = new_claim(tmp_path / "mine", "group.of/my_paper/a-1", kind)
    assert [f.relative_to(tmp_path / "mine").as_posix() for f in files] == [
        "group.of-my_paper-a-1.yaml",
        "experiments/group.of-my_paper-a-1.yaml",
    ][: len(files)]
    assert len(files) == (1 if kind == "literal" else 2)
    registry = claims.load([tmp_path / "mine"])
    assert registry.problems == ()
    claim = registry.claims["group.of/my_paper/a-1"]
    assert "example" not in "".join(f.read_text() for f in files)
    scale = {"literal": "literal"}.get(kind, "any" if kind in COUNTED else "quick")
    entry = claim.scales.entries()[scale]
    plan = plan_claim(registry, Choice(claim, scale, entry, {}), resolve=lambda _: "fp32")  # type: ignore[arg-type]
    if kind == "literal":
        assert [c.comparison.holds for c in plan.checked] == [True, True]
    elif kind in COUNTED:
        assert len(plan.runs) == 1
    else:
        assert all(isinstance(r.config, Recipe) and r.config.data.name == "digits" for r in plan.runs)
        assert len({r.id for r in plan.runs}) == len(plan.runs) >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_explains_itself(kind: str) -> None:
    lines = (template.FOLDER / f"{kind}.yaml").read_text().splitlines()
    assert lines[0].startswith("# A claim: ")
    assert sum("#" in line for line in lines) >= 5
    assert max(map(len, lines)) <= 120
    value = yamlfile.parse("\n".join(lines)).value
    assert set(value["scales"]) <= {*SCALES, "any", "literal"}


@pytest.mark.parametrize("kind", [*COUNTED, "literal"])
def test_what_needs_no_training_passes_as_it_is(kind: str, made: Path, tmp_path: Path) -> None:
    arguments = [
        "verify",
        named(kind),
        "--claims-dir",
        str(made),
        "--store",
        str(tmp_path / "store"),
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "1 PASS" in done.stdout


def test_what_trains_runs_as_it_is(made: Path, tmp_path: Path) -> None:
    """With fewer steps and seeds, so that it takes seconds; the verdict is capped for that."""
    for kind in ("value", "qualitative"):
        arguments = ["verify", named(kind), "--claims-dir", str(made), "--store", str(tmp_path / "store")]
        few = [
            "--set",
            "train.steps=25",
            "--seeds",
            "2",
            "--device",
            "cpu:2",
            "--scale",
            "quick",
            "-q",
            "--allow-inconclusive",
        ]
        done = CliRunner().invoke(app, [*arguments, *few])
        assert done.exit_code == 3, done.output
        assert "1 INCONCLUSIVE" in done.stdout
        assert "Traceback" not in done.stderr


# --- what is refused ------------------------------------------------------------------------------


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    first = new_claim(tmp_path, "my-paper/a", "ordering")
    before = [f.read_text() for f in first]
    with pytest.raises(UsageError, match=r"my-paper-a\.yaml: exists already, and nothing is overwritten"):
        new_claim(tmp_path, "my-paper/a", "value")
    first[0].unlink()
    with pytest.raises(UsageError, match=r"experiments/my-paper-a\.yaml: exists already"):
        new_claim(tmp_path, "my-paper/a", "value")
    assert not first[0].exists()
    assert first[1].read_text() == before[1]


def test_an_id_that_is_taken_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"claim 'vit/t1-variants' exists already, at claims/vit/t1-variants.yaml:1"):
        new_claim(tmp_path / "mine", "vit/t1-variants", "exact")
    new_claim(tmp_path, "my-paper/a", "literal")
    (tmp_path / "my-paper-a.yaml").rename(tmp_path / "moved.yaml")
    with pytest.raises(UsageError, match=r"claim 'my-paper/a' exists already, at .*moved\.yaml:2:1"):
        new_claim(tmp_path, "my-paper/a", "value")
    with pytest.raises(UsageError, match="experiment 'small-data-digits' exists already"):
        new_claim(tmp_path, "small/data-digits", "value")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    "claim_id",
    ["", "a", "A/b", "a/", "/a", "a//b", "a/b--c", "../a", "a/../../b", "a b/c", "é/a", "a/" + "b" * 120, "a/-b"],
)
def test_what_is_no_id_is_refused_and_nothing_is_written(claim_id: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no id of a claim: my-paper/my-claim"):
        new_claim(tmp_path / "mine", claim_id, "ordering")
    assert list(tmp_path.rglob("*")) == []


def test_a_long_id_leaves_room_for_the_name_of_its_experiment(tmp_path: Path) -> None:
    new_claim(tmp_path, "paper/" + "x" * 110, "ordering")
    assert claims.load([tmp_path]).problems == ()


@pytest.mark.parametrize(("kind", "hint"), [("ordring", "did you mean 'ordering'"), ("", "ordering, value, trend")])
def test_a_kind_that_does_not_exist_is_refused_with_those_that_do(kind: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=hint):
        new_claim(tmp_path, "my-paper/a", kind)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match=r"file/my-paper-a\.yaml: cannot be written: "):
        new_claim(tmp_path / "file", "my-paper/a", "literal")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="Permission denied"):
            new_claim(tmp_path / "closed", "my-paper/a", "literal")
