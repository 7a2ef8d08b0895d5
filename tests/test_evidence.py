"""What lies under docs/evidence can be made again from its exports, number by number, without data or weights."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from vitrepro import claims, export
from vitrepro.judge.finding import Outcome
from vitrepro.judge.looks import Look, look_at
from vitrepro.judge.rejudge import rejudge
from vitrepro.report import sensitive
from vitrepro.report.markdown import write
from vitrepro.report.words import reason
from vitrepro.store import portable

ROOT = Path(__file__).parent.parent
EVIDENCE = ROOT / "docs" / "evidence"
FOLDERS = sorted(p.parent for p in EVIDENCE.rglob(export.MANIFEST))
MOST_BYTES = 5_000_000

pytestmark = pytest.mark.skipif(not FOLDERS, reason="docs/evidence holds no export")
each = pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.relative_to(EVIDENCE).as_posix())


@each
def test_the_report_is_made_again_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    store, about = export.read(folder)
    text, _ = write(claims.load(), store, tmp_path / "report.md", about)
    assert text == (folder / "report.md").read_text(), f"make it again: vitrepro report --from {folder} -o report.md"
    figures = {p.name: p for p in sorted((folder / "report_files").glob("*"))}
    assert {p.name for p in (tmp_path / "report_files").glob("*")} == set(figures)
    for name, path in figures.items():
        again = tmp_path / "report_files" / name
        if drawn_by(path) == drawn_by(again):
            assert path.read_bytes() == again.read_bytes(), name
        else:  # another matplotlib draws otherwise, and writes the same
            assert sorted(words(path)) == sorted(words(again)), name


def drawn_by(svg: Path) -> str:
    found = re.search(r"matplotlib [\d.]+\w*", svg.read_text())
    return found[0] if found else ""


def words(svg: Path) -> list[str]:
    root = ElementTree.fromstring(svg.read_bytes())
    return [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}text")]


@each
def test_every_verdict_comes_out_as_it_did(folder: Path) -> None:
    store, _ = export.read(folder)
    registry = claims.load()
    judged = rejudge(registry, store)
    assert judged
    for j in judged:
        assert j.verdict is not None, (j.name, j.changes)
        assert (j.name, j.verdict.outcome.value) == (j.name, j.entry.outcome), j.changes
        assert j.verdict.outcome is not Outcome.ERROR, reason(j.verdict)


@each
def test_the_log_of_each_verdict_holds_its_judging_and_ends_with_it(folder: Path) -> None:
    """A later version that hashes a wording otherwise would take every judging again for another try."""
    store, _ = export.read(folder)
    lines, faults = store.looks()
    assert not faults
    for j in rejudge(claims.load(), store):
        if j.claim is None or j.scale is None or j.verdict is None or not j.stands:
            continue
        used = [m for m in j.measured if m.run_id in j.verdict.run_ids]
        now = look_at(j.claim, j.entry.scale, j.scale, used, j.entry.deviations, "")
        if lines.get((j.claim.id, j.entry.scale)):
            assert Look.read(lines[j.claim.id, j.entry.scale][-1]).inputs == now.inputs, j.name


@each
def test_no_verdict_could_only_have_come_out_so(folder: Path) -> None:
    found = sensitive.audited(claims.load(), export.read(folder)[0])
    assert [a.name for a in found if a.fixed] == []


@each
def test_nothing_tells_of_the_machine_it_was_made_on(folder: Path) -> None:
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".md")):
        text = re.sub(r'"packed": ?"[^"]*"', "", path.read_text())
        assert portable(text) == text, path


def test_all_of_it_is_small() -> None:
    assert sum(p.stat().st_size for p in EVIDENCE.rglob("*") if p.is_file()) < MOST_BYTES


def test_the_readme_has_the_answer_of_the_evidence_and_no_other() -> None:
    """Tables by source and what did not stand, line by line as the report has them, with links into it."""
    answers = {f.relative_to(ROOT).as_posix(): answer((f / "report.md").read_text()) for f in FOLDERS}
    expected = [line.replace("](#", f"]({f}/report.md#") for f, lines in answers.items() for line in lines]
    links = tuple(f"]({f}/report.md#" for f in answers)
    readme = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in readme if line in expected or any(link in line for link in links)] == expected
    assert expected


def answer(report: str) -> list[str]:
    head = report.partition("\n## ")[0].splitlines()
    return [line for line in head if line.startswith(("|", "What did not stand"))]


def test_every_run_that_the_readme_names_is_there_with_the_count_that_stands_beside_it() -> None:
    """A line of a table of README that names a run by its id has the run's k/n, or its accuracy, in it."""
    records = {r: store.record(r) for store in (export.read(f)[0] for f in FOLDERS) for r in store.run_ids()}
    for line in (ROOT / "README.md").read_text().splitlines():
        for run_id in re.findall(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])", line) if line.startswith("|") else ():
            assert run_id in records, f"README names run {run_id}, which no export holds"
            record = records[run_id]
            assert record is not None
            result = record.result.model_dump()
            if "correct" in result:
                shown = f"{result['correct']}/{result['n']}", f"{100 * result['correct'] / result['n']:.2f}"
                assert any(text in line.replace(",", "") for text in shown), line
            else:
                numbers = [float(x.replace(",", "")) for x in re.findall(r"(?<![\w.])-?\d[\d,]*\.?\d*(?![\w])", line)]
                assert any(f"{v:.6g}" in {f"{x:.6g}" for x in numbers} for v in result["quantities"].values()), line
