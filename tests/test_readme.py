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


def test_how_much_faster_it_is_on_a_gpu_is_what_the_benchmark_measured() -> None:
    document = (Path(__file__).parent.parent / "docs" / "performance" / "h200.md").read_text()
    sections = {part.split("\n")[0]: part for part in document.split("\n## ")[1:]}

    def against_timm(workload: str) -> str:
        (line,) = [row for row in sections[workload].splitlines() if row.startswith("| training | timm |")]
        return line.rstrip(" |").rpartition("|")[2].split()[0]

    (told,) = re.findall(r"where ViT-B/16 and ViT-L/16 train ([\d.]+) times and ResNet-50 ([\d.]+) times", _flowing())
    assert told == (against_timm("vit-b16-224"), against_timm("resnet50-224"))
    assert told[0] == against_timm("vit-l16-384")


def _flowing() -> str:
    return " ".join(README.split())
