"""What `new-claim` writes has no faults and can be run as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrepro import claims, template
from vitrepro.errors import UsageError
from vitrepro.plan import choose_scale, plan_claim


@pytest.mark.parametrize("kind", template.KINDS)
def test_every_kind_is_a_claim_without_faults_that_can_be_planned(tmp_path: Path, kind: str) -> None:
    written = template.new_claim(tmp_path, f"mine/{kind}", kind)
    assert all(path.is_file() for path in written)
    registry = claims.load([tmp_path])
    assert registry.problems == ()
    claim = registry.claims[f"mine/{kind}"]
    choice = choose_scale(claim, None, why_not=lambda _, __: None)
    made = plan_claim(registry, choice, resolve=lambda _: "fp32")
    assert bool(made.runs) != bool(made.checked)
    assert made.checked if kind == "literal" else made.runs


def test_all_kinds_live_together_in_one_folder(tmp_path: Path) -> None:
    for kind in template.KINDS:
        template.new_claim(tmp_path, f"mine/{kind}", kind)
    registry = claims.load([tmp_path])
    assert registry.problems == ()
    assert {f"mine/{kind}" for kind in template.KINDS} <= registry.claims.keys()


def test_a_file_that_is_there_is_never_overwritten_and_nothing_else_is_written(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    kept = tmp_path / "experiments" / "new.yaml"
    kept.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        template.new_claim(tmp_path, "mine/new", "ordering")
    assert kept.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["experiments"]


@pytest.mark.parametrize("claim_id", ["no-slash", "Mine/Claim", "mine/../../etc", "mine/a--b", "mine/", "/mine/a", ""])
def test_an_id_that_is_none_is_refused_before_anything_is_written(tmp_path: Path, claim_id: str) -> None:
    with pytest.raises(UsageError, match="is no claim id"):
        template.new_claim(tmp_path, claim_id, "ordering")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'ordering'"):
        template.new_claim(tmp_path, "mine/a", "ordring")
