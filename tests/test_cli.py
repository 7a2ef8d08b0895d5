"""The commands, by what they print and their exit code."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vitrepro.cli import app
from vitrepro.cli.verdicts import parse_budget
from vitrepro.errors import UsageError
from vitrepro.report.rows import HEADINGS
from vitrepro.store import Store

ANYWAY = ("--allow-inconclusive",)  # what cannot PASS is not run without it


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def tiny(tiny_claims: Path, tmp_path: Path) -> list[str]:
    """Options that point a command at the tiny claims and a store of its own."""
    return ["--claims-dir", str(tiny_claims), "--store", str(tmp_path / "store")]


def verify(tiny: list[str], *arguments: str) -> tuple[int, dict[str, object]]:
    done = call("verify", *arguments, *tiny, "--scale", "quick", "--devices", "cpu:2", "--json")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def test_verify_trains_judges_and_prints_one_json_document(tiny: list[str], tmp_path: Path) -> None:
    code, document = verify(tiny, "tiny/ordering", "tiny/value")
    ordering, value = document["verdicts"]  # type: ignore[misc]
    assert document["schema_version"] == 1
    assert document["exit_code"] == code
    assert ordering["claim_id"] == "tiny/ordering"
    assert ordering["n"] == value["n"] == 797
    assert ordering["seeds"] == 3
    assert ordering["fidelity"] == "proxy"
    assert ordering["qualifiers"] == ["2 of 3 runs failed: resnet"]  # so short a training
    assert {f["label"] for f in ordering["findings"]} == {"resnet - vit"}
    store = Store(tmp_path / "store")
    records = [store.record(r) for r in store.run_ids()]
    assert len(records) == 6  # two claims share the runs of the ResNet
    for record in records:
        assert record is not None
        assert record.environment.device == "cpu"
        assert record.result.correct == int(store.predictions(record.run_id).correct.sum())  # type: ignore[union-attr]


def test_stored_runs_are_used_again_and_fresh_sets_them_aside(tiny: list[str], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    _, first = verify(tiny, "tiny/ordering")
    stamps = {r: (store.run_dir(r) / "record.json").stat().st_mtime_ns for r in store.run_ids()}
    _, second = verify(tiny, "tiny/ordering")
    assert second == first
    assert {r: (store.run_dir(r) / "record.json").stat().st_mtime_ns for r in store.run_ids()} == stamps
    _, third = verify(tiny, "tiny/ordering", "--fresh")
    assert third == first  # the same seeds on the same machine
    assert len(list((store.root / "archive").iterdir())) == 6


def test_runs_made_on_a_gpu_elsewhere_are_judged_without_one(tiny: list[str], tiny_claims: Path) -> None:
    file = tiny_claims / "tiny.yaml"
    quick = file.read_text()
    gpu = quick.replace("quick:", "gpu:", 1)
    file.write_text(gpu)
    asked = ("verify", "tiny/ordering", *tiny, "--scale", "gpu", "--devices", "cpu:2", "--json")
    before = call(*asked)
    assert json.loads(before.stdout)["verdicts"][0]["outcome"] == "INFEASIBLE"
    file.write_text(quick)
    _, document = verify(tiny, "tiny/ordering")
    (quickly,) = document["verdicts"]  # type: ignore[misc]
    file.write_text(gpu)
    (verdict,) = json.loads(call(*asked).stdout)["verdicts"]
    assert (verdict["scale"], verdict["outcome"]) == ("gpu", quickly["outcome"])
    assert verdict["findings"] == quickly["findings"]
    anew = json.loads(call(*asked, "--fresh").stdout)
    assert anew["verdicts"][0]["outcome"] == "INFEASIBLE"


def test_a_diverging_arm_is_an_error_and_the_other_arm_finishes(tiny: list[str], tmp_path: Path) -> None:
    code, document = verify(tiny, "tiny/diverging", *ANYWAY)
    (verdict,) = document["verdicts"]  # type: ignore[misc]
    assert code == 4
    assert verdict["outcome"] == "ERROR"
    assert "absurd seed 0: the loss is" in verdict["reason"]
    store = Store(tmp_path / "store")
    assert sorted(store.state(r) for r in store.run_ids()) == ["failed", "finished"]


def test_missing_data_is_infeasible_before_any_compute(tiny: list[str], tmp_path: Path) -> None:
    empty = tmp_path / "data"
    empty.mkdir()
    code, document = verify(tiny, "tiny/cifar", "--data-dir", str(empty), "--offline")
    (verdict,) = document["verdicts"]  # type: ignore[misc]
    assert code == 3
    assert verdict["outcome"] == "INFEASIBLE"
    assert str(empty / "cifar10") in verdict["reason"]
    assert "vitrepro data fetch cifar10" in verdict["reason"]
    assert Store(tmp_path / "store").run_ids() == []


def test_32_test_images_never_pass(tiny: list[str]) -> None:
    code, document = verify(tiny, "tiny/ordering", "tiny/value", *ANYWAY, "--set", "data.test_images=32")
    assert code == 3
    for verdict in document["verdicts"]:  # type: ignore[attr-defined]
        assert verdict["outcome"] == "INCONCLUSIVE"
        assert "partial test set: 32 of 797" in verdict["qualifiers"]


@pytest.mark.parametrize("trial", [["--seeds", "1"], ["--set", "train.lr=0.004"], ["--set", "data.test_images=32"]])
def test_nothing_is_run_for_what_cannot_pass_unless_it_is_allowed(
    tiny: list[str], tmp_path: Path, trial: list[str]
) -> None:
    code, document = verify(tiny, "tiny/ordering", *trial)
    (verdict,) = document["verdicts"]  # type: ignore[misc]
    assert code == 3
    assert verdict["outcome"] == "NOT_RUN"
    assert verdict["reason"].startswith("cannot PASS: ")
    assert verdict["reason"].endswith("--allow-inconclusive runs it all the same")
    store = Store(tmp_path / "store")
    assert store.run_ids() == []
    assert store.verdicts() == ([], [])


def test_what_cannot_pass_holds_nothing_else_back(tiny: list[str]) -> None:
    _, document = verify(tiny, "vit/t1-variants", "tiny/ordering", "--seeds", "1")
    outcomes = [v["outcome"] for v in document["verdicts"]]  # type: ignore[attr-defined]
    assert outcomes == ["PASS", "NOT_RUN"]


def test_stored_runs_are_judged_though_they_could_not_pass(tiny: list[str]) -> None:
    verify(tiny, "tiny/ordering", *ANYWAY, "--seeds", "1")
    _, document = verify(tiny, "tiny/ordering", "--seeds", "1")
    (verdict,) = document["verdicts"]  # type: ignore[misc]
    assert verdict["outcome"] == "INCONCLUSIVE"


def test_a_changed_recipe_field_is_named_and_caps_the_verdict(tiny: list[str]) -> None:
    _, document = verify(tiny, "tiny/ordering", *ANYWAY, "--set", "train.lr=0.004")
    (verdict,) = document["verdicts"]  # type: ignore[misc]
    assert verdict["outcome"] == "INCONCLUSIVE"
    assert "deviates: train.lr 0.004, registered 0.002" in verdict["qualifiers"]


def test_a_precision_is_a_deviation_only_where_the_recipe_fixes_another(tiny: list[str], tiny_claims: Path) -> None:
    file = tiny_claims / "experiments" / "tiny.yaml"
    for registered, deviates in (("bf16", True), ("auto", False)):
        file.write_text(file.read_text().replace("precision: fp32", f"precision: {registered}"))
        done = call("plan", "tiny/ordering", *tiny, "--scale", "quick", "--precision", "fp32", "--json")
        (document,) = json.loads(done.stdout)["plans"]
        assert bool(document["deviations"]) == deviates
        file.write_text(file.read_text().replace(f"precision: {registered}", "precision: fp32"))


def test_a_trial_with_fewer_seeds_decides_nothing_and_leaves_the_whole_verdict(tiny: list[str], tmp_path: Path) -> None:
    _, whole = verify(tiny, "tiny/ordering")
    for trial in (["--seeds", "1"], ["--set", "train.steps=5"]):
        code, document = verify(tiny, "tiny/ordering", *ANYWAY, *trial)
        (verdict,) = document["verdicts"]  # type: ignore[misc]
        assert code == 3
        assert verdict["outcome"] == "INCONCLUSIVE"
    ((entry,), faults) = Store(tmp_path / "store").verdicts()
    assert not faults
    assert entry.outcome == whole["verdicts"][0]["outcome"]  # type: ignore[index]
    assert len(entry.runs) == 6
    assert entry.deviations == ()


def test_a_fresh_run_that_does_not_fit_the_budget_leaves_the_stored_one(tiny: list[str], tmp_path: Path) -> None:
    _, first = verify(tiny, "tiny/ordering")
    code, again = verify(tiny, "tiny/ordering", "--fresh", "--budget", "1s")
    assert again == first
    assert len(Store(tmp_path / "store").run_ids()) == 6
    assert code == first["exit_code"]


def test_seeds_and_precision_are_refused_where_nothing_is_trained(tiny: list[str]) -> None:
    for more in (["--seeds", "5"], ["--precision", "bf16"]):
        done = call("verify", "vit/t1-variants", *tiny, *more)
        assert done.exit_code == 2
        assert "nothing is trained" in done.stderr


def test_a_budget_too_small_for_every_scale_runs_what_fits(tiny: list[str]) -> None:
    verify(tiny, "tiny/ordering", *ANYWAY, "--seeds", "1")
    done = call("plan", "tiny/ordering", *tiny, "--seeds", "900", "--budget", "20s", "--json", "--devices", "cpu:2")
    (document,) = json.loads(done.stdout)["plans"]
    assert document["scale"] == "quick"
    assert document["to_run"] > 0


def test_a_budget_that_is_used_up_leaves_runs_out_and_says_so(tiny: list[str]) -> None:
    verify(tiny, "tiny/ordering", *ANYWAY, "--seeds", "1")  # now the models' speed is known
    done = call("verify", "tiny/ordering", *tiny, "--scale", "quick", "--devices", "cpu:2", "--budget", "1s")
    assert done.exit_code == 3
    assert "NOT_RUN" in done.stdout
    assert "2 of 6 runs are stored" in done.stdout
    assert "not started" in done.stderr


def test_the_table_names_outcome_value_interval_margin_seeds_scale_and_fidelity(tiny: list[str]) -> None:
    done = call("verify", "tiny/value", *tiny, "--scale", "quick", "--devices", "cpu:2", "-q")
    head = next(line for line in done.stdout.splitlines() if "outcome" in line)
    assert head.split() == " ".join(HEADINGS).split()
    row = next(line for line in done.stdout.splitlines() if line.strip().startswith("tiny/value"))
    for part in ("resnet:", "[", "45", "± 17", "quick", "exact"):
        assert part in row
    assert "\x1b[" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "tiny/ordring"], "did you mean 'tiny/ordering'"),
        (["verify", "zzz*"], "no claim matches 'zzz*'"),
        (["verify", "tiny/ordering", "--set", "train.stpes=3"], "did you mean 'train.steps'"),
        (["verify", "tiny/ordering", "--set", "train.lr"], "expected key.path=value"),
        (["verify", "tiny/ordering", "--set", "train.lr=-1"], "greater than 0"),
        (["verify", "tiny/ordering", "--set", "data.name=cifar11"], "'digits', 'cifar10'"),
        (["verify", "tiny/ordering", "--devices", "cuda:77"], "is not visible"),
        (["verify", "tiny/ordering", "--scale", "huge"], "paper, gpu, cpu, quick"),
        (["verify", "tiny/ordering", "--precision", "fp8"], "auto, fp32, tf32, bf16, fp16"),
        (["verify", "tiny/ordering", "--budget", "soon"], "90s, 20m or 2h"),
        (["verify", "tiny/ordering", "--seeds", "0"], "--seeds"),
        (["plan", "nothing/here"], "no claim matches"),
        (["plan", "tiny/ordering", "--peak-tflops", "10", "--devices", "cpu"], "give one"),
        (["plan", "tiny/ordering", "--peak-tflops", "0"], "--peak-tflops"),
        (["show", "tiny/ordring"], "did you mean 'tiny/ordering'"),
        (["list-claims", "--kind", "valeu"], "did you mean 'value'"),
        (["list-claims", "--outcome", "GOOD"], "--outcome"),
    ],
)
def test_a_command_that_cannot_be_carried_out_exits_2_with_what_is_allowed(
    tiny: list[str], arguments: list[str], message: str
) -> None:
    done = call(*arguments, *tiny)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_gpu_that_is_not_here_is_planned_for_by_its_peak(tmp_path: Path) -> None:
    claim_id = "student-cifar10/if-paper-patch-4"  # whose data is looked for nowhere
    arguments = ("plan", claim_id, "--scale", "gpu", "--store", str(tmp_path / "runs"), "--peak-tflops", "10")
    found = json.loads(call(*arguments, "--json").stdout)
    (plan,) = found["plans"]
    assert (plan["claim"], plan["scale"], plan["seconds_are_rough"]) == (claim_id, "gpu", True)
    assert plan["seconds"] == pytest.approx(2.0 * plan["to_run"] + plan["flops"] / 3e12)
    assert found["devices"] == ["a GPU of 10 TFLOP/s"]
    basis = "nothing was timed there; by operations, at 30% of the peak; small models reach far less."
    assert basis in call(*arguments).stdout


def test_verify_without_a_claim_is_a_usage_error() -> None:
    assert call("verify").exit_code == 2


def test_an_unknown_data_set_is_named_with_the_nearest() -> None:
    done = call("data", "fetch", "cifr10")
    assert done.exit_code == 2
    assert "did you mean 'cifar10'" in done.stderr


def test_fetching_digits_needs_no_network() -> None:
    done = call("data", "fetch", "digits", "--offline")
    assert done.exit_code == 0, done.stderr
    assert "1,000 training and 797 test images" in done.stdout


def test_fetching_what_is_not_here_offline_names_the_places(tmp_path: Path) -> None:
    done = call("data", "fetch", "cifar10", "--offline", "--data-dir", str(tmp_path))
    assert done.exit_code == 3
    assert str(tmp_path / "cifar10") in done.stderr


def test_truncated_parquet_is_an_error_that_names_the_file(tiny: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        (folder / name).write_bytes(b"PAR1 and then nothing")
    done = call("verify", "tiny/cifar", *tiny, "--scale", "quick", "--data-dir", str(tmp_path / "data"))
    assert done.exit_code == 4
    assert "train-00000-of-00001.parquet" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_written_exits_4_and_names_the_place(tiny_claims: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for place in (blocked, blocked / "below"):
        done = call("verify", "tiny/ordering", "--claims-dir", str(tiny_claims), "--store", str(place), "-q")
        assert done.exit_code == 4
        assert str(blocked) in done.stderr
        assert "Traceback" not in done.stderr
    assert blocked.read_text() == "not a folder"


def test_a_broken_record_is_named_and_the_other_runs_are_shown(tiny: list[str], tmp_path: Path) -> None:
    verify(tiny, "tiny/ordering")
    store = Store(tmp_path / "store")
    victim = store.run_dir(store.run_ids()[0]) / "record.json"
    victim.write_text('{"broken": ')
    done = call("runs", "--store", str(store.root), "--json")
    assert done.exit_code == 4
    states = [r["state"] for r in json.loads(done.stdout)["runs"]]
    assert sorted(states) == ["damaged", *["finished"] * 5]
    code, document = verify(tiny, "tiny/ordering")
    assert code == 4
    assert "damaged record" in document["verdicts"][0]["reason"]  # type: ignore[index]
    assert victim.read_text() == '{"broken": '  # nothing stored is touched
    out = tmp_path / "report.md"
    assert call("report", "-o", str(out), *tiny).exit_code == 0
    assert "damaged" in out.read_text()


def test_one_broken_claim_file_leaves_the_others_usable(tiny: list[str], tiny_claims: Path) -> None:
    (tiny_claims / "broken.yaml").write_text("id: tiny/broken\nkind: ordring\nstpes: 3\n")
    done = call("list-claims", "tiny/*", *tiny)
    assert done.exit_code == 0
    assert "tiny/ordering" in done.stdout
    assert "broken.yaml:2:1: kind: 'ordring' is not one of" in done.stderr
    assert call("validate", "--claims-dir", str(tiny_claims)).exit_code == 2


def test_report_needs_nothing_but_the_store(tiny: list[str], tmp_path: Path) -> None:
    verify(tiny, "tiny/ordering", "tiny/value")
    out = tmp_path / "report.md"
    done = call("report", "-o", str(out), *tiny)
    assert done.exit_code == 0, done.stderr
    text = out.read_text()
    assert "tiny/ordering" in text
    assert "tiny/value" in text
    assert list((tmp_path / "report_files").glob("*.svg"))
    assert call("report", *tiny).stdout.startswith("# ")


def test_report_without_a_store_says_what_makes_one(tmp_path: Path) -> None:
    done = call("report", "--store", str(tmp_path / "none"))
    assert done.exit_code == 2
    assert "vitrepro verify" in done.stderr


def test_list_claims_holds_the_last_outcome(tiny: list[str]) -> None:
    def outcomes() -> dict[str, str]:
        done = call("list-claims", "tiny/*", *tiny, "--json")
        return {c["id"]: c["last_outcome"] for c in json.loads(done.stdout)["claims"]}

    assert set(outcomes().values()) == {"NOT_RUN"}
    _, document = verify(tiny, "tiny/ordering")
    assert outcomes()["tiny/ordering"] == document["verdicts"][0]["outcome"]  # type: ignore[index]


def test_plan_knows_the_time_once_a_model_was_timed_here(tiny: list[str]) -> None:
    def document() -> dict[str, object]:
        done = call("plan", "tiny/ordering", *tiny, "--scale", "quick", "--devices", "cpu:2", "--json")
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)["plans"][0]  # type: ignore[no-any-return]

    before = document()
    assert before["to_run"] == 6
    assert before["seconds_are_rough"] is True
    assert before["train_images"] == 6 * 12 * 32
    verify(tiny, "tiny/ordering", *ANYWAY, "--seeds", "1")
    after = document()
    assert after["to_run"] == 4
    assert after["seconds"] > 0  # type: ignore[operator]
    assert after["seconds_are_rough"] is False


def test_a_scale_known_to_take_longer_than_the_budget_gives_way_to_a_cheaper_one(
    tiny: list[str], tiny_claims: Path
) -> None:
    experiments = tiny_claims / "experiments"
    tiny_text = (experiments / "tiny.yaml").read_text()
    (experiments / "large.yaml").write_text(
        tiny_text.replace("id: tiny", "id: large").replace("steps: 12", "steps: 900000")
    )
    scale = "{{experiment: {}, fidelity: proxy, deviations: [x], expect: {{all: [{{greater: resnet, than: vit}}]}}}}"
    (tiny_claims / "scales.yaml").write_text(
        "id: tiny/scales\nsource: {paper: none, where: tests}\nkind: ordering\nstatement: The ResNet is better.\n"
        f"scales:\n  cpu: {scale.format('large')}\n  quick: {scale.format('tiny')}\n"
    )

    def chosen(*more: str) -> dict[str, object]:
        done = call("plan", "tiny/scales", *tiny, "--devices", "cpu:2", "--json", *more)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)["plans"][0]  # type: ignore[no-any-return]

    assert chosen()["scale"] == "cpu"  # nothing was timed yet
    verify(tiny, "tiny/scales", *ANYWAY, "--seeds", "1")
    assert chosen()["scale"] == "quick"
    assert "over the budget of 15 min" in str(chosen()["why_not"])
    assert chosen("--budget", "none")["scale"] == "cpu"
    assert chosen("--scale", "cpu")["scale"] == "cpu"


def test_plan_says_when_no_pass_is_possible(tiny_claims: Path, tiny: list[str]) -> None:
    file = tiny_claims / "tiny.yaml"
    file.write_text(file.read_text().replace("sd: 0.1, runs: 3", "sd: 20, runs: 3"))
    done = call("plan", "tiny/value", *tiny, "--scale", "quick")
    assert "cannot PASS" in done.stdout


def test_every_command_has_help_and_show_tells_what_is_expected(tiny: list[str]) -> None:
    for name in ("list-claims", "show", "plan", "verify", "report", "runs", "validate", "doctor", "data"):
        assert call(name, "--help").exit_code == 0
    done = call("show", "tiny/value", *tiny)
    assert "margin 17.0" in done.stdout
    assert "The ResNet reaches 45%." in done.stdout


def test_validate_prints_a_json_schema_for_editors() -> None:
    schema = json.loads(call("validate", "--schema").stdout)
    assert "Claim" in schema["$defs"]


def test_doctor_tells_devices_and_data(tmp_path: Path) -> None:
    facts = json.loads(call("doctor", "--json", "--store", str(tmp_path)).stdout)
    assert "cpu" in facts["devices"] or "cuda:0" in facts["devices"]
    assert facts["data sets"]["digits"] == "bundled"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("none", None)])
def test_budgets_are_times_with_a_unit(text: str, seconds: float | None) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "0s", "-1m", "1d", "m", "nan"])
def test_a_budget_without_unit_or_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_budget(text)


def test_a_margin_moved_after_a_run_shows_in_verify_show_and_report(tiny: list[str], tiny_claims: Path) -> None:
    verify(tiny, "tiny/ordering")
    (file,) = [p for p in tiny_claims.rglob("*.yaml") if "tiny/ordering" in p.read_text()]
    file.write_text(file.read_text().replace("than: vit, by: 0}", "than: vit, by: 3.5}"))
    change = "expect.all.0.by changed from 0 to 3.5"
    assert change in call("show", "tiny/ordering", *tiny).stdout
    done = call("verify", "tiny/ordering", *tiny, "--scale", "quick")
    assert change in done.stdout
    assert "since it was judged" in done.stdout
    assert change in call("show", "tiny/ordering", *tiny).stdout  # after it was judged by the new margin, too
    store = tiny[tiny.index("--store") + 1]
    folder = tiny[tiny.index("--claims-dir") + 1]
    assert change in call("report", "--store", store, "--claims-dir", folder).stdout


PRINTED = """
claims:
  - id: printed/table
    source: {paper: none, where: tests}
    kind: exact
    statement: Two numbers.
    reported: {unit: "% top-1", decimals: 1, cells: {ours: 85.3, theirs: 84.0}}
    scales: {any: {infeasible: quoted numbers}}
  - id: printed/better
    source: {paper: none, where: tests}
    kind: ordering
    statement: Ours is better.
    scales:
      any: {infeasible: nothing to count}
      literal: {expect: {checks: {better: {that: "table/ours > table/theirs"}}}}
"""


@pytest.fixture
def printed(tmp_path: Path) -> list[str]:
    folder = tmp_path / "printed"
    folder.mkdir()
    (folder / "table.yaml").write_text(PRINTED)
    return ["--claims-dir", str(folder), "--store", str(tmp_path / "store")]


def test_where_nothing_can_be_measured_the_printed_numbers_are_still_held_against_the_statement(
    printed: list[str],
) -> None:
    done = call("verify", "printed/better", *printed, "--json")
    assert done.exit_code == 0
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (verdict["outcome"], verdict["fidelity"]) == ("PASS", "literal")
    assert verdict["support"] == "the statement agrees with the printed numbers"


@pytest.mark.parametrize("option", [("--seeds", "1"), ("--precision", "fp32"), ("--set", "train.lr=1")])
def test_printed_numbers_take_no_setting_of_a_training(printed: list[str], option: tuple[str, str]) -> None:
    done = call("verify", "printed/better", *printed, *option)
    assert done.exit_code == 2
    assert "nothing is trained" in done.stderr


def test_a_cell_of_another_claim_edited_after_a_literal_verdict_shows_in_the_report(
    printed: list[str], tmp_path: Path
) -> None:
    assert call("verify", "printed/better", *printed).exit_code == 0
    file = tmp_path / "printed" / "table.yaml"
    file.write_text(file.read_text().replace("theirs: 84.0", "theirs: 84.9"))
    text = call("report", "--store", printed[3], "--claims-dir", printed[1]).stdout
    assert "table/theirs.value changed from 84 to 84.9" in text


def test_help_and_list_claims_do_not_load_torch_or_scipy() -> None:
    code = (
        "import sys\n"
        "from vitrepro.cli import app\n"
        "for arguments in (['--help'], ['list-claims'], ['show', 'vit/t1-variants']):\n"
        "    try: app(arguments)\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'scipy', 'timm', 'datasets', 'matplotlib', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_list_claims_takes_at_most_three_times_the_bare_imports(tmp_path: Path) -> None:
    """In CPU time, with modules compiled once as an installed package has them; the least is the least disturbed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(tmp_path)

    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, *arguments]
        subprocess.run(command, capture_output=True, check=True, timeout=60, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = ("-c", "import typer, rich, pydantic, yaml")
    for command in (["--help"], ["list-claims"]):
        for once in (("-m", "vitrepro", *command), bare):
            seconds(*once)
        ratios = [seconds("-m", "vitrepro", *command) / seconds(*bare) for _ in range(7)]
        assert min(ratios) <= 3.0, (command, ratios)
