"""What the README tells people to write works."""

from __future__ import annotations

import re
from pathlib import Path

from vitrepro import claims

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_of_a_claim_and_its_experiment_has_no_faults(tmp_path: Path) -> None:
    claim, experiment = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "no-position.yaml").write_text(claim)
    (tmp_path / "experiments" / "my-digits.yaml").write_text(experiment)
    registry = claims.load([tmp_path])
    assert registry.problems == ()
    assert "my-paper/position-matters" in registry.claims


def test_every_group_and_claim_it_names_exists() -> None:
    registry = claims.load()
    for pattern in re.findall(r"vitrepro (?:verify|show|plan) ('?[a-z][^\s`|]*)", README):
        if not pattern.startswith("my-paper/"):
            claims.select(registry, [pattern.strip("'")])
