from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_store import Lab, N, claim, learning_curve, ordering, sizes
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from test_cli import call
from test_markdown import everything, judge, printed, text_of

from vitrepro import claims, export
from vitrepro.errors import StoreError, UsageError
from vitrepro.judge.finding import Outcome
from vitrepro.judge.rejudge import Judged, rejudge
from vitrepro.report import words
from vitrepro.report.markdown import write
from vitrepro.report.selection import names
from vitrepro.store import CURVE_STEPS, Store, portable

ID = "vit/t8-none-worse"
NUMBERS = {"none": [640, 650, 645], "learned-1d": [740, 745, 738]}


@pytest.fixture
def exported(verified: Lab, tmp_path: Path) -> Path:
    export.write(verified.store, tmp_path / "export")
    return tmp_path / "export"


def same_judgements(lab: Lab, store: Store) -> list[Judged]:
    """Every verdict of a store's export, after a check that it is that of the store in every number."""
    ours, theirs = (rejudge(lab.registry, s) for s in (lab.store, store))
    assert [(j.entry, j.verdict, j.changes) for j in ours] == [(j.entry, j.verdict, j.changes) for j in theirs]
    return theirs


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def reported(lab: Lab, store: Store, out: Path, patterns: tuple[str, ...] = ()) -> dict[str, bytes]:
    write(lab.registry, store, out / "report.md", patterns)
    return tree(out)


def mixed(lab: Lab) -> None:
    """Verdicts of every kind, a failed, an unfinished and a missing run, and finished ones without a verdict."""
    everything(lab)
    lab.say(printed("vit/in-print", {"above": "@a > @b"}, a=90, b=80))
    judge(lab, "vit/in-print")
    lab.say(
        ordering(by=2.0, id="vit/not-yet"), ordering(id="vit/infeasible", scales={"gpu": {"infeasible": "private"}})
    )
    lab.verify("vit/not-yet", NUMBERS, settings=["train.steps=60"], skip=3)
    runs = lab.plan("vit/not-yet", ["train.steps=60"]).runs
    lab.store.write_error(runs[-1].id, f"{lab.store.root}/runs/x: no space left; see /home/anna/log.txt")
    lab.store.write_config(runs[-2].id, {"run": "r"})
    lab.say(ordering(id="vit/forgotten"))
    lab.verify("vit/forgotten", NUMBERS, settings=["train.steps=70"])
    (lab.store.root / "verdicts" / "vit--forgotten@cpu.json").unlink()


# --- the same from the export ---------------------------------------------------------------------


def test_a_report_from_the_export_has_the_same_bytes_and_so_have_its_figures(lab: Lab, tmp_path: Path):
    mixed(lab)
    export.write(lab.store, tmp_path / "export")
    store, about = export.read(tmp_path / "export")
    assert about == ()
    from_store = reported(lab, lab.store, tmp_path / "a")
    assert from_store == reported(lab, store, tmp_path / "b")
    assert len(from_store) > 8
    text = from_store["report.md"].decode()
    assert "Runs without a verdict" in text
    assert "NOT_RUN (interrupted)" in text
    assert "runs/x: no space left; see log.txt" in text


def test_every_verdict_comes_out_of_the_export_with_the_same_numbers(lab: Lab, tmp_path: Path):
    mixed(lab)
    export.write(lab.store, tmp_path / "export")
    outcomes = {j.verdict.outcome for j in same_judgements(lab, export.read(tmp_path / "export")[0]) if j.verdict}
    assert {Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.ERROR} <= outcomes


def test_the_same_store_exports_to_the_same_bytes_and_a_second_export_leaves_nothing_of_the_first(
    lab: Lab, tmp_path: Path
):
    mixed(lab)
    for name in ("a", "b"):
        export.write(lab.store, tmp_path / name)
    whole = tree(tmp_path / "a")
    assert whole == tree(tmp_path / "b")
    export.write(lab.store, tmp_path / "a", [ID], names(lab.registry, [ID]))
    assert set(tree(tmp_path / "a")) < set(whole)
    export.write(lab.store, tmp_path / "a")
    assert tree(tmp_path / "a") == whole


def test_an_export_of_some_claims_holds_their_runs_alone_and_reports_what_the_store_does_of_them(
    lab: Lab, tmp_path: Path
):
    mixed(lab)
    patterns = ("vit/t*", "vit/infeasible")
    export.write(lab.store, tmp_path / "export", patterns, names(lab.registry, patterns))
    store, about = export.read(tmp_path / "export")
    assert about == patterns
    asked = {ref.run_id for e in store.verdicts()[0] for ref in e.runs}
    assert set(store.run_ids()) == asked
    made = reported(lab, store, tmp_path / "b", about)
    assert made == reported(lab, lab.store, tmp_path / "a", patterns)
    text = made["report.md"].decode()
    assert "vitrepro report 'vit/t*' vit/infeasible -o report.md" in text
    assert "vit/f4-data" not in text


def test_a_long_learning_curve_is_thinned_alike_in_a_report_and_an_export(verified: Lab, tmp_path: Path):
    for run in verified.plan(ID).runs:
        rows = [json.dumps(learning_curve(step, 9000, 80.0, run.seed)) for step in range(1, 9001)]
        (verified.store.run_dir(run.id) / "metrics.jsonl").write_text("\n".join(rows) + "\ntorn")
    export.write(verified.store, tmp_path / "export")
    store, _ = export.read(tmp_path / "export")
    curve = store.short_curve(store.run_ids()[0])
    assert len(curve) == CURVE_STEPS
    assert (curve[0]["step"], curve[-1]["step"]) == (1, 9000)
    assert reported(verified, verified.store, tmp_path / "a") == reported(verified, store, tmp_path / "b")
    assert max(len(content) for content in tree(tmp_path / "export").values()) < 12_000


def test_ten_thousand_predictions_of_ten_classes_take_four_bits_each_and_labels_are_kept_once():
    labels = np.arange(10_000) % 10
    packed = export._pack(labels)
    assert (packed["bits"], len(packed["packed"])) == (4, 4 * 5000 // 3 + 1 + 1)
    assert export._ranges(np.arange(10_000)) == [[0, 9999]]


@given(st.lists(st.integers(0, 2**31 - 1) | st.integers(0, 9), max_size=40))
def test_numbers_and_ids_come_back_as_they_were(numbers: list[int]):
    values = np.array(numbers, np.int64)
    assert export._unpack(json.loads(json.dumps(export._pack(values)))).tolist() == numbers
    assert export._ids(export._ranges(values)).tolist() == numbers


# --- damage and forgery ---------------------------------------------------------------------------


def test_any_changed_missing_or_added_file_is_named_and_nothing_is_judged(exported: Path):
    for path in sorted(p for p in exported.rglob("*.json") if p.name != export.MANIFEST):
        content = path.read_bytes()
        for bad in (content[:-20], content.replace(b"1", b"2", 1), b""):
            path.write_bytes(bad)
            with pytest.raises(StoreError, match=rf"{path.name}: has changed since it was exported"):
                export.read(exported)
        path.unlink()
        with pytest.raises(StoreError, match=rf"{path.name}: cannot be read \(No such file"):
            export.read(exported)
        path.write_bytes(content)
    (exported / "runs" / "more.json").write_text("{}")
    with pytest.raises(StoreError, match=r"more.json: not of this export"):
        export.read(exported)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"schema_version": 2, "about": [], "files": {}}', b'{"files": {"../x": "0"}}', b"\xff"]
)
def test_a_damaged_list_of_files_is_an_error(exported: Path, content: bytes):
    (exported / export.MANIFEST).write_bytes(content)
    with pytest.raises(StoreError, match=r"export.json: damaged"):
        export.read(exported)


def forge(folder: Path, change: Callable[[dict[str, dict[str, Any]]], None]) -> Store:
    """The export after a change of its runs and images, with all its hashes made anew."""
    files = {p: json.loads(p.read_bytes()) for p in sorted(folder.glob("*/*.json")) if p.parent.name != "verdicts"}
    change({f"{p.parent.name}/{p.stem}": value for p, value in files.items()})
    manifest = json.loads((folder / export.MANIFEST).read_bytes())
    for path, value in files.items():
        path.write_text(json.dumps(value))
        manifest["files"][path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / export.MANIFEST).write_text(json.dumps(manifest))
    return export.read(folder)[0]


def runs_of(files: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [value for name, value in files.items() if name.startswith("runs/")]


def one_more_correct(files: dict[str, dict[str, Any]]) -> None:
    runs_of(files)[0]["record"]["result"]["correct"] += 1


def fewer_images(files: dict[str, dict[str, Any]]) -> None:
    runs_of(files)[0]["record"]["result"]["n"] -= 1


def another_recipe(files: dict[str, dict[str, Any]]) -> None:
    runs_of(files)[0]["record"]["config"]["train"]["lr"] = 0.5


def another_seed(files: dict[str, dict[str, Any]]) -> None:
    runs_of(files)[0]["record"]["seed"] += 7


def swapped_runs(files: dict[str, dict[str, Any]]) -> None:
    a, b, *_ = runs_of(files)
    a["record"], b["record"] = b["record"], a["record"]


def swapped_predictions(files: dict[str, dict[str, Any]]) -> None:
    a, b, *_ = runs_of(files)
    a["predictions"], b["predictions"] = b["predictions"], a["predictions"]


def another_prediction(files: dict[str, dict[str, Any]]) -> None:
    predicted = runs_of(files)[0]["predictions"]["predicted"]
    predicted["packed"] = ("B" if predicted["packed"][0] == "A" else "A") + predicted["packed"][1:]


def other_labels(files: dict[str, dict[str, Any]]) -> None:
    (images,) = (value for name, value in files.items() if name.startswith("images/"))
    images["labels"] = export._pack(np.zeros(N, np.int64))


def other_ids(files: dict[str, dict[str, Any]]) -> None:
    (images,) = (value for name, value in files.items() if name.startswith("images/"))
    images["ids"] = [[1, N]]


def no_predictions(files: dict[str, dict[str, Any]]) -> None:
    del runs_of(files)[0]["predictions"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (one_more_correct, "correct, its predictions"),
        (fewer_images, "incomplete evaluation"),
        (another_recipe, "its recipe and seed are not those of this run"),
        (another_seed, "its recipe and seed are not those of this run"),
        (swapped_runs, "holds the record of run"),
        (swapped_predictions, "not what the run's record says was written"),
        (another_prediction, "not what the run's record says was written"),
        (other_labels, "not what the run's record says was written"),
        (other_ids, "not what the run's record says was written"),
        (no_predictions, "cannot be read (not in the export)"),
    ],
)
def test_what_was_edited_is_an_error_and_no_verdict_even_where_all_hashes_fit(
    verified: Lab, exported: Path, change: Callable[[dict[str, dict[str, Any]]], None], sentence: str
):
    (judged,) = rejudge(verified.registry, forge(exported, change))
    assert judged.verdict is not None
    assert judged.verdict.outcome is Outcome.ERROR
    assert sentence in words.reason(judged.verdict)
    assert str(exported) not in words.reason(judged.verdict)


def test_predictions_of_another_length_than_the_images_are_an_error(exported: Path):
    def shorter(files: dict[str, dict[str, Any]]) -> None:
        runs_of(files)[0]["predictions"]["predicted"] = export._pack(np.zeros(5, np.int64))

    with pytest.raises(StoreError, match="not one prediction and one label for each test image"):
        forge(exported, shorter)


def test_a_run_that_is_gone_from_the_export_leaves_its_claim_not_run(verified: Lab, exported: Path):
    manifest = json.loads((exported / export.MANIFEST).read_bytes())
    name = next(n for n in manifest["files"] if n.startswith("runs/"))
    del manifest["files"][name]
    (exported / name).unlink()
    (exported / export.MANIFEST).write_text(json.dumps(manifest))
    (judged,) = rejudge(verified.registry, export.read(exported)[0])
    assert judged.verdict is not None
    assert judged.verdict.outcome is Outcome.NOT_RUN


# --- what is not exported -------------------------------------------------------------------------


def record_of(lab: Lab) -> tuple[Path, dict[str, Any]]:
    path = lab.store.run_dir(lab.plan(ID).runs[0].id) / "record.json"
    return path, json.loads(path.read_bytes())


def test_a_record_that_tells_of_the_machine_is_refused(verified: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, record = record_of(verified)
    as_it_was = path.read_bytes()
    record["result"]["data_changes"] = ["read from /home/anna/data/x.parquet"]
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="holds a path of the machine it was made on"):
        export.write(verified.store, tmp_path / "export")
    path.write_bytes(as_it_was)
    monkeypatch.setattr(platform, "node", lambda: "annas-laptop")
    record = json.loads(as_it_was)
    record["environment"]["platform"] = "Linux-6 annas-laptop x86_64"
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError, match="holds the name of this machine"):
        export.write(verified.store, tmp_path / "export")
    path.write_bytes(as_it_was)
    export.write(verified.store, tmp_path / "export")


def test_a_damaged_store_a_run_at_work_and_predictions_without_a_hash_are_refused(verified: Lab, tmp_path: Path):
    path, record = record_of(verified)
    as_it_was = path.read_bytes()
    path.write_text(json.dumps(record | {"predictions_sha256": None}))
    with pytest.raises(StoreError, match="not bound to its record by a hash"):
        export.write(verified.store, tmp_path / "export")
    path.write_text("{")
    with pytest.raises(StoreError, match="damaged record"):
        export.write(verified.store, tmp_path / "export")
    path.unlink()
    with FileLock(verified.store.lock_path(path.parent.name)), pytest.raises(StoreError, match="is being made"):
        export.write(verified.store, tmp_path / "export")
    path.write_bytes(as_it_was)
    (verified.store.root / "verdicts" / "x.json").write_text("{")
    with pytest.raises(StoreError, match=r"x.json: damaged"):
        export.write(verified.store, tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_folder_with_other_things_in_it_is_left_alone_and_a_report_beside_the_export_stays(
    verified: Lab, exported: Path, tmp_path: Path
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="neither empty nor an export"):
        export.write(verified.store, tmp_path / "mine")
    assert tree(tmp_path / "mine") == {"thesis.tex": b"x"}
    (exported / "report.md").write_text("mine")
    export.write(verified.store, exported)
    assert (exported / "report.md").read_text() == "mine"
    export.read(exported)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/work/data/cifar10/test.parquet: torn", "test.parquet: torn"),
        ("no file ('/home/anna/x.pt')", "no file ('x.pt')"),
        (r"C:\Users\anna\x.pt is gone", "x.pt is gone"),
        ("see https://arxiv.org/abs/2010.11929 and vit/t8, B/16, k/n", None),
        ("3 of 5/6 and/or 1.0/2", None),
    ],
)
def test_full_paths_are_cut_to_their_last_part_and_nothing_else_is(text: str, shown: str | None):
    assert portable(text) == (text if shown is None else shown)
    assert portable(portable(text)) == portable(text)


# --- commands -------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tiny_claims: Path, tmp_path: Path) -> list[str]:
    """Options for a store with a verdict on claims that lie in files."""
    registry = claims.load([tiny_claims])
    lab = Lab(Store(tmp_path / "store"), dict(registry.claims), dict(registry.experiments))
    lab.store.prepare()
    lab.verify("tiny/ordering", {"resnet": [700, 710], "vit": [600, 603]})
    return ["--claims-dir", str(tiny_claims), "--store", str(lab.store.root)]


def test_the_commands_export_report_and_audit_to_the_same_words(tiny: list[str], tmp_path: Path):
    folder, claims_dir = tmp_path / "x", tiny[:2]
    done = call("export", str(folder), "tiny/*", *tiny)
    assert (done.exit_code, "bytes" in done.stderr) == (0, True), done.output
    assert str(tmp_path) not in "".join(p.read_text() for p in folder.rglob("*.json"))
    from_store = call("report", "tiny/*", *tiny)
    assert from_store.exit_code == 0
    assert call("report", "--from", str(folder), *claims_dir).stdout == from_store.stdout
    assert "tiny/cifar: Needs data that is not there." in from_store.stdout
    audited = [call("audit", "--verdicts", *options) for options in (tiny, [*claims_dir, "--from", str(folder)])]
    assert audited[0].stdout == audited[1].stdout
    assert audited[0].exit_code == audited[1].exit_code == 0


def test_an_export_is_not_taken_for_a_store_nor_a_store_for_an_export(exported: Path, verified: Lab):
    root = str(verified.store.root)
    for arguments, said in (
        (["runs", "--store", str(exported)], "an export, not a store"),
        (["report", "--from", root], "no export (it has no export.json)"),
        (["report", "--from", str(exported), "--store", root], "two places to read"),
        (["audit", "--from", str(exported)], "at which only --verdicts looks"),
        (["report", "no-such/claim", "--from", str(exported)], "no claim matches"),
    ):
        done = call(*arguments)
        assert (done.exit_code, said in done.stderr) == (2, True), (arguments, done.stderr)


def test_claims_of_the_report_without_a_verdict_have_a_row_with_the_reason(lab: Lab):
    mixed(lab)
    scales = {"paper": {"infeasible": "JFT-300M | private"}} | ordering()["scales"]
    lab.say(claim("vit/later", "ordering", {}, scales=scales))
    lab.say(claim("other/claim", "ordering", {}, source={"paper": "another", "where": "p. 1"}, scales=scales))
    text = text_of(lab)
    rows = [line for line in text.partition("## Not checked, and why")[2].splitlines() if line.startswith("| vit/")]
    assert [line.split(":")[0] for line in rows] == ["| vit/infeasible", "| vit/forgotten", "| vit/later"]
    assert "gpu: cannot be checked: private" in rows[0]
    assert r"paper: cannot be checked: JFT-300M \| private; cpu: not run" in rows[2]
    assert "other/claim" not in text
    assert "other/claim" in write(lab.registry, lab.store, None, ["other/*"])[0]


def test_an_experiment_of_the_claims_has_a_row_whether_it_was_run_or_not(lab: Lab):
    lab.verify(ID, NUMBERS)
    lab.verify(ID, NUMBERS, settings=["train.steps=50"])  # runs that are not those of the experiment
    lab.design(sizes())
    lab.say(
        claim(
            "vit/f4", "ordering", {"all": [{"greater": "vit-n100", "than": "resnet-n100"}]}, experiment="training-sizes"
        )
    )
    text = text_of(lab).partition("### Experiments of these claims")[2]
    assert "| position-embeddings | Position embeddings on digits | cpu | 1 | 6 of 6 |" in text
    assert "| training-sizes | Accuracy against training images | cpu | 1 | none of 6 |" in text
