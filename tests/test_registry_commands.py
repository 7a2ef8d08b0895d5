"""The commands that look at claims before anything runs, and verify where nothing has to: by output and exit code."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from vitrepro import claims, distributed, session
from vitrepro.cli import app
from vitrepro.report.questions import QUESTIONS
from vitrepro.report.terminal import all_digits
from vitrepro.store import Store

CLAIMS = """
claims:
  - id: made/agrees
    source: {paper: "journal:12", where: Table 1}
    kind: ordering
    statement: The first is better.
    reported: {unit: "% top-1", decimals: 1, cells: {first: 90.0, second: 80.0}}
    scales:
      paper: {infeasible: the data is private}
      literal: {expect: {checks: {better: {that: "@first > @second"}}}}
    needs: {work: [training], data: [flowers], recipe: Table 3}
    tags: [printed]
  - id: made/disagrees
    source: {paper: "journal:12", where: Table 1}
    kind: ordering
    statement: The first is twice as good.
    scales:
      literal: {expect: {checks: {double: {that: "agrees/first == 2 * agrees/second"}}}}
    tags: [printed, bold]
  - id: made/curve
    source: {paper: "journal:12", where: Table 1}
    kind: cost
    statement: The same accuracy costs at most twice as much.
    reported: {unit: exaFLOPs, cells: {x1: 10, x2: 30}}
    scales:
      literal:
        expect:
          let: {ratio: {value: "cost_to_reach(90, @x1, 80, @x2, 88) / 10"}}
          checks:
            at-most: {that: "@ratio <= 2", otherwise: EXCEEDS}
            turned: {that: "2 >= @ratio", otherwise: EXCEEDS}
  - id: made/copied
    source: {paper: Handbook, where: Chapter 3}
    kind: value
    statement: These accuracies are reached.
    reported:
      unit: "% top-1"
      n: {"*": 3669}
      cells: {one: 83.12619902412345, two: 83.12619902412345, three: {value: 12.5, sd: 0.5, runs: 3}}
    scales:
      paper: {infeasible: it takes a hundred years}
  - id: made/trained
    source: {paper: Handbook, where: Chapter 3}
    kind: ordering
    statement: The larger one is better.
    scales:
      cpu:
        experiment: made-short
        fidelity: proxy
        deviations: [it is tiny]
        expect: {all: [{greater: large, than: small}]}
  - id: made/long
    source: {paper: Handbook, where: Chapter 3}
    kind: ordering
    statement: The larger one is better after a long time.
    scales:
      cpu:
        experiment: made-long
        fidelity: proxy
        deviations: [it is tiny]
        expect: {all: [{greater: large, than: small}]}
"""
EXPERIMENT = """
id: made-short
type: train
title: two tiny models on digits
base:
  data: {name: digits, train_images: 200}
  train: {steps: 12, batch_size: 32, lr: 2e-3, precision: fp32}
  model: {family: vit, patch_size: 4, depth: 1, num_heads: 2}
factors:
  width:
    small: {model: {embed_dim: 8}}
    large: {model: {embed_dim: 16}}
seeds: [0, 1, 2]
"""
SOURCE = """
paper: "journal:12"
title: A paper
code: [{repository: lab/code, by: authors, covers: [training], framework: JAX}]
data: {flowers: {title: Flowers-102, access: public}}
"""

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """A command with the claims above and a store of its own, on a machine of a known rate where nothing may run."""
    folder = tmp_path / "claims"
    (folder / "experiments").mkdir(parents=True)
    (folder / "made.yaml").write_text(CLAIMS)
    (folder / "source.yaml").write_text(SOURCE)
    (folder / "experiments" / "short.yaml").write_text(EXPERIMENT)
    long = EXPERIMENT.replace("id: made-short", "id: made-long").replace("steps: 12", "steps: 900000000")
    (folder / "experiments" / "long.yaml").write_text(long)
    monkeypatch.setenv("VITREPRO_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(distributed, "product_rate", lambda _: 1e11)
    monkeypatch.setattr(session, "_execute", lambda *_: pytest.fail("a run was started"))

    def invoke(*arguments: str) -> Result:
        done = CliRunner().invoke(app, [*arguments, "--claims-dir", str(folder)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


def lines(done: Result) -> list[str]:
    return [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]


def listed(done: Result) -> list[str]:
    """Ids in the first column of the first table."""
    return [line.split()[0] for line in lines(done) if line.startswith("made/")]


def document(done: Result) -> Any:
    """The one JSON document on stdout, which holds no infinities."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    return json.loads(done.stdout, parse_constant=refuse)


# --- list-claims --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--tag", "bold"], ["made/disagrees"]),
        (["--kind", "cost"], ["made/curve"]),
        (["--source", "chapter 3"], ["made/copied", "made/trained", "made/long"]),
        (["--scale", "cpu"], ["made/trained", "made/long"]),
        (["--scale", "literal", "--tag", "printed"], ["made/agrees", "made/disagrees"]),
    ],
)
def test_list_claims_keeps_what_passes_the_filters(call: Call, options: list[str], ids: list[str]) -> None:
    done = call("list-claims", "made/*", *options)
    assert done.exit_code == 0
    assert listed(done) == ids
    found = document(call("list-claims", "made/*", *options, "--json"))
    assert [c["id"] for c in found["claims"]] == ids


def test_filters_that_nothing_passes_say_so(call: Call) -> None:
    done = call("list-claims", "made/*", "--outcome", "FAIL")
    assert done.exit_code == 0
    assert lines(done) == ["No claim passes these filters."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tag", "prnted"], "--tag 'prnted': no claim has it; did you mean 'printed'"),
        (["--source", "magazine"], "--source 'magazine': in no source or place of a claim (sources: Handbook, "),
        (["--scale", "litteral"], "did you mean 'literal'"),
    ],
)
def test_a_filter_that_no_claim_can_pass_exits_2_with_what_there_is(
    call: Call, options: list[str], message: str
) -> None:
    done = call("list-claims", *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_list_claims_lists_cells_and_sums_up_by_source(call: Call) -> None:
    done = call("list-claims", "made/copied", "made/agrees", "--cells")
    assert [line for line in lines(done) if line.startswith("made/")] == [
        "made/agrees/first 90.0 % top-1",
        "made/agrees/second 80.0 % top-1",
        "made/copied/one 83.12619902412345 3,669 % top-1",
        "made/copied/two 83.12619902412345 3,669 % top-1",
        "made/copied/three 12.5 0.5 3 3,669 % top-1",
    ]
    assert "journal:12 1 2 1 (1 literal) 1 NOT_RUN" in lines(done)
    assert "Handbook 1 3 0 1 NOT_RUN" in lines(done)


def test_list_claims_tells_what_is_feasible_and_why_the_rest_is_not(call: Call) -> None:
    done = call("list-claims", "made/agrees", "made/copied", "made/trained", "--feasible")
    assert listed(done) == ["made/agrees", "made/trained", "made/copied"]
    assert "made/copied paper: it takes a hundred years" in lines(done)
    found = document(call("list-claims", "made/agrees", "made/copied", "--feasible", "--json"))
    assert [(c["id"], c["feasible_scale"]) for c in found["claims"]] == [("made/agrees", "literal")]


def test_list_claims_shows_the_last_outcome_with_its_fidelity(call: Call) -> None:
    call("verify", "made/agrees", "made/disagrees")
    done = call("list-claims", "made/*", "--tag", "printed")
    rows = [line for line in lines(done) if line.startswith("made/")]
    assert rows[0].endswith("literal PASS (literal)")
    assert rows[1].endswith("literal FAIL (literal)")
    assert listed(call("list-claims", "made/*", "--outcome", "FAIL")) == ["made/disagrees"]
    (found,) = document(call("list-claims", "made/agrees", "--json"))["claims"]
    assert [found[key] for key in ("last_outcome", "last_scale", "last_fidelity")] == ["PASS", "literal", "literal"]


# --- show ---------------------------------------------------------------------------------------


def test_show_answers_all_eight_questions(call: Call) -> None:
    told = lines(call("show", "made/agrees"))
    for number, question in enumerate(QUESTIONS, 1):
        assert told[told.index(f"{number}. {question}") + 1].endswith(".")
    assert "training: yes, by the authors." in told
    (found,) = document(call("show", "made/agrees", "--json"))["claims"]
    assert list(found["questions"]) == list(QUESTIONS)
    assert all(found["questions"].values())


def test_show_puts_the_protocol_of_the_source_beside_ours_and_prints_the_checks_of_printed_cells(call: Call) -> None:
    told = lines(call("show", "made/agrees"))
    assert "optimisation Table 3" in told
    assert "PASS: better: 90 > 80 holds (first 90, second 80)" in told
    trained = lines(call("show", "made/trained"))
    assert "setting as reported cpu (proxy)" in trained
    assert any(line.startswith("length 12 steps of 32") for line in trained)


def test_show_of_a_cell_shows_that_cell_only_and_an_unknown_one_exits_2(call: Call) -> None:
    told = lines(call("show", "made/agrees/second"))
    assert "second 80.0" in told
    assert "first 90.0" not in told
    assert "first 90.0" in lines(call("show", "made/agrees"))
    done = call("show", "made/agrees/secnd")
    assert done.exit_code == 2
    assert "did you mean 'made/agrees/second'" in done.stderr


# --- plan ---------------------------------------------------------------------------------------

PLANNED = ("made/long", "made/trained", "made/agrees", "made/copied")


def test_plan_with_a_budget_orders_what_fits_and_names_what_does_not(call: Call) -> None:
    done = call("plan", *PLANNED, "--budget", "2m", "--devices", "cpu:1")
    assert done.exit_code == 0
    told = lines(done)
    assert "made/agrees literal none, printed cells none" in told
    assert "made/copied INFEASIBLE paper: it takes a hundred years" in told
    fits = told[told.index("Within 2 min 0 s, the cheapest verdict first") : told.index("Does not fit")]
    assert [line.split()[:3] for line in fits if line[0].isdigit()] == [
        ["1", "made/agrees", "literal"],
        ["2", "made/trained", "cpu"],
    ]
    left = told[told.index("Does not fit") :]
    assert next(line for line in left if line.startswith("made/long cpu")).split()[2].startswith("~")
    assert "To run them, with the other options as here: vitrepro verify made/trained --scale cpu --budget 2m" in told


def test_plan_marks_times_of_models_that_were_never_timed_as_rough(call: Call) -> None:
    told = lines(call("plan", "made/trained", "--devices", "cpu:1"))
    assert " ~12 s" in next(line for line in told if line.startswith("made/trained"))
    assert "Time: ~12 s." in told
    assert not any(line.startswith("Within") for line in told)


def test_plan_notes_where_no_pass_is_possible(call: Call) -> None:
    for options, note in (
        (["--seeds", "1"], "cannot PASS: 1 of 3 registered seeds decide nothing"),
        (["--set", "data.test_images=32"], "cannot PASS: 32 test images are part of the test set"),
        (["--set", "train.lr=0.5"], "cannot PASS: the recipe is changed by hand"),
    ):
        told = lines(call("plan", "made/trained", *options, "--budget", "2m"))
        assert any(line.startswith("made/trained cpu") and line.endswith(note) for line in told), note
        assert any(line.startswith("No PASS is possible as planned: made/trained; see the notes.") for line in told)
        assert any(line.startswith("1 made/trained cpu") and line.endswith("cannot PASS") for line in told)
    assert not any("cannot PASS" in line for line in lines(call("plan", "made/trained", "--budget", "2m")))


def test_the_plan_is_json_too(call: Call) -> None:
    found = document(call("plan", *PLANNED, "--budget", "2m", "--devices", "cpu:1", "--json"))
    assert [f["claim"] for f in found["fits"]] == ["made/agrees", "made/trained"]
    assert [f["claim"] for f in found["left_out"]] == ["made/long"]
    assert found["budget_seconds"] == 120
    assert {p["claim"]: p["to_run"] for p in found["plans"]} == {
        "made/agrees": 0,
        "made/copied": 0,
        "made/trained": 6,
        "made/long": 6,
    }
    assert "fits" not in document(call("plan", "made/trained", "--json"))
    assert "fits" not in document(call("plan", "made/trained", "--budget", "none", "--json"))


# --- audit --------------------------------------------------------------------------------------


def test_audit_finds_the_four_means_of_batches_of_re_vit_and_exits_0(call: Call) -> None:
    done = call("audit", "re-vit/vit-l16-i21k", "--json")
    assert done.exit_code == 0
    statuses = {a["number"]["name"].rpartition("/")[2]: a["status"] for a in document(done)["numbers"]}
    assert statuses.pop("imagenet") == "possible as k/n"
    assert statuses == dict.fromkeys(("cifar10", "cifar100", "pets", "flowers"), "only as a mean of batch accuracies")


def test_audit_finds_rows_that_stand_in_two_tables(call: Call) -> None:
    found = document(call("audit", "vit/t5-jft", "vit/t6-vit", "--json"))
    assert ["vit/t5-jft/vit-b16", "vit/t6-vit/b16-7ep"] in [c["rows"] for c in found["copies"]]


def test_audit_finds_a_copied_number_lists_all_on_request_and_exits_0_whatever_it_finds(call: Call) -> None:
    done, everything = call("audit", "made/*"), call("audit", "made/*", "--all")
    assert done.exit_code == everything.exit_code == 0
    copied = [line for line in lines(done) if line.startswith("made/copied/two made/copied/one 1 ")]
    assert len(copied) == 1
    shown = [line for line in lines(done) if line.startswith("made/copied/one 83.12619902412345 3,669 ")]
    assert len(shown) == 1
    assert "not possible as any of these" in shown[0]
    assert len(lines(everything)) >= len(lines(done))
    assert "no verdict depends on it" in lines(done)[-1]


@pytest.fixture
def restated(tmp_path: Path) -> tuple[Path, str, float]:
    """A table that restates a claim with one digit changed; with the cell and its value in the source."""
    reported = claims.load().claims["vit/t5-i21k"].reported
    assert reported is not None
    rows: dict[str, dict[str, str]] = {}
    for name, cell in reported.cells.items():
        row, _, column = name.rpartition("-")
        rows.setdefault(row, {})[column] = f"{cell.value:.2f}"
    name, cell = next(iter(reported.cells.items()))
    row, _, column = name.rpartition("-")
    text = rows[row][column]
    rows[row][column] = text[:-1] + str((int(text[-1]) + 5) % 10 or 4)
    columns = list(dict.fromkeys(c for cells in rows.values() for c in cells))
    path = tmp_path / "theirs.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", *columns])
        writer.writerows([row, *(cells.get(c, "-") for c in columns)] for row, cells in rows.items())
    return path, name, cell.value


def test_audit_finds_a_wrong_digit_in_a_table_given_as_a_file(call: Call, restated: tuple[Path, str, float]) -> None:
    path, name, value = restated
    found = document(call("audit", "--table", str(path), "--json"))["tables"][str(path)]
    assert found["candidate"] == "vit/t5-i21k"
    (difference,) = found["differences"]
    assert (difference["cell"], difference["source"], difference["kind"]) == (name, value, "one digit")
    done = call("audit", "vit/t5-i21k", "--table", str(path))
    assert done.exit_code == 0
    assert any(f" {name} " in line and f" {all_digits(value)} " in line for line in lines(done))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,cifar\nB16,many\n", "theirs.csv:2: row 'B16', column 'cifar': 'many' is not a number"),
        ("model,cifar\nB16,90,91\n", "theirs.csv:2: 3 fields, but 2 in the first line"),
        (None, "theirs.csv: cannot be read: No such file or directory"),
    ],
)
def test_a_table_that_is_none_exits_2_with_its_place(
    call: Call, tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "theirs.csv"
    if content is not None:
        path.write_text(content)
    done = call("audit", "made/*", "--table", str(path))
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_audit_of_nothing_is_a_usage_error(call: Call) -> None:
    assert call("audit", "zzz/*").exit_code == 2


# --- verify where nothing is run ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim_id", "outcome", "code"),
    [("made/agrees", "PASS", 0), ("made/disagrees", "FAIL", 1), ("made/curve", "EXCEEDS", 3)],
)
def test_a_statement_about_printed_cells_is_judged_without_data_or_a_run(
    call: Call, tmp_path: Path, claim_id: str, outcome: str, code: int
) -> None:
    done = call("verify", claim_id, "--json", "--data-dir", str(tmp_path / "no-data"), "--offline")
    assert done.exit_code == code
    found = document(done)
    (verdict,) = found["verdicts"]
    assert found["exit_code"] == code
    assert (verdict["outcome"], verdict["scale"], verdict["fidelity"]) == (outcome, "literal", "literal")
    assert verdict["run_ids"] == []
    assert "printed numbers" in verdict["support"]
    assert verdict["qualifiers"] == ["printed numbers, nothing measured"]
    store = Store(tmp_path / "store")
    assert store.run_ids() == []
    ((entry,), faults) = store.verdicts()
    assert (entry.claim_id, entry.outcome, entry.runs, faults) == (claim_id, outcome, (), [])


def test_the_worst_outcome_of_several_gives_the_exit_code(call: Call) -> None:
    done = call("verify", "made/agrees", "made/disagrees", "made/curve", "made/copied")
    assert done.exit_code == 1
    assert "1 PASS, 1 FAIL, 1 EXCEEDS, 1 INFEASIBLE." in lines(done)
    assert any(
        line.startswith("made/disagrees: FAIL: 1 of 1 do not hold: double: 90 == 160 does not hold")
        for line in lines(done)
    )
    assert call("verify", "made/agrees", "made/copied").exit_code == 3


def test_a_value_beyond_a_curve_is_more_than_a_number_in_the_table_in_json_and_in_the_report(call: Call) -> None:
    done = call("verify", "made/curve")
    assert "at-most: more than 3 (2 of 2 EXCEEDS)" in " ".join(lines(done))
    (verdict,) = document(call("verify", "made/curve", "--json"))["verdicts"]
    at_most, turned = verdict["findings"]
    assert (at_most["measured"], at_most["measured_open"], at_most["reported_open"]) == (3, True, False)
    assert (turned["reported"], turned["measured_open"], turned["reported_open"]) == (3, False, True)
    report = call("report")
    assert report.exit_code == 0
    assert "| more than 3 |" in report.stdout


def test_report_of_a_store_with_nothing_but_printed_cells_says_that_nothing_was_measured(call: Call) -> None:
    call("verify", "made/agrees", "made/disagrees")
    done = call("report")
    assert done.exit_code == 0
    assert "**1 of 2 claims: PASS** (1 × the statement agrees with the printed numbers)" in done.stdout
    assert "nothing was measured" in done.stdout
    assert "## Where the runs were made" not in done.stdout
