from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import save

from vitrepro.errors import StoreError
from vitrepro.record import ENGINE, AnalyticResult, Environment, Predictions, Record, TrainResult, run_identity
from vitrepro.spec import Reported, Scale
from vitrepro.store import Places, RunRef, Store, VerdictEntry, atomic_file, explain, write_atomic

CONFIG = {"data": {"name": "digits"}}
RUN, OTHER = run_identity(ENGINE, "train", CONFIG, 3), "fedcba9876543210"
REF = RunRef(run_id=RUN, arm="a", seed=3)
PREDICTIONS = Predictions(np.array([0, 1, 2, 5]), np.array([1, 0, 9, 9]), np.array([1, 0, 9, 8]))


def record(run_id: str = RUN, **change: Any) -> Record:
    hashes = dict.fromkeys(("ids_sha256", "train_sha256", "test_sha256", "data_sha256", "weights_sha256"), "0")
    result = TrainResult(
        n=4,
        correct=3,
        complete_n=4,
        num_classes=10,
        parameters=10,
        train_images=20,
        steps=5,
        skipped_steps=0,
        effective_batch=8,
        micro_batch=8,
        precision="fp32",
        final_loss=0.5,
        dev_correct=None,
        dev_n=None,
        train_seconds=1.0,
        eval_seconds=0.5,
        **hashes,
    )
    environment = Environment(
        vitrepro="0",
        git_revision=None,
        python="3",
        packages={"torch": "2"},
        platform="p",
        device="cpu",
        device_name="here",
        threads=1,
    )
    values: dict[str, Any] = {
        "run_id": run_id,
        "type": "train",
        "experiment": "models",
        "arm": "a",
        "seed": 3,
        "config": CONFIG,
        "config_hash": "c",
        "claims": {"t/order": "h"},
        "result": result,
        "environment": environment,
        "started_at": "2026-01-01T00:00:00+00:00",
        "wall_seconds": 2.0,
    }
    return Record(**{**values, **change})


def entry(claim_id: str = "t/order", judged_at: str = "2026-01-01", **change: Any) -> VerdictEntry:
    expect = {"kind": "ordering", "all": [{"greater": "a", "than": "b"}]}
    values: dict[str, Any] = {
        "claim_id": claim_id,
        "claim_hash": "h",
        "scale": "cpu",
        "entry": Scale.model_validate({"experiment": "models", "fidelity": "exact", "expect": expect}),
        "reported": Reported.model_validate({"unit": "percent", "cells": {"a": 3, "b": {"value": 2, "sd": 0.1}}}),
        "runs": (REF,),
        "registered_seeds": 3,
        "deviations": (),
        "outcome": "PASS",
        "reason": "because",
        "judged_at": judged_at,
    }
    return VerdictEntry(**{**values, **change})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "a store")
    made.prepare()
    return made


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- files that appear whole or not at all --------------------------------------------------------


def test_a_file_keeps_its_old_content_when_writing_the_new_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail_halfway() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            file.flush()
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert tree(tmp_path) == {"file": b"old"}


def test_a_file_shows_its_new_content_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert tree(tmp_path) == {"file": b"new"}


@pytest.mark.skipif(os.name != "posix", reason="file modes of POSIX")
def test_a_file_has_the_mode_of_one_opened_by_name(tmp_path: Path) -> None:
    write_atomic(tmp_path / "ours", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_told_with_its_place_and_what_was_stored_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store.finish(record(), PREDICTIONS)
    store.write_verdict(entry())
    store.write_error(OTHER, "before")
    before = tree(store.root)

    def fails(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fails)
    writes = {
        "runs/" + RUN: lambda: store.finish(record(wall_seconds=9.0), PREDICTIONS),
        "verdicts/t--order@cpu.json": lambda: store.write_verdict(entry(reason="another")),
        f"runs/{OTHER}/error.json": lambda: store.write_error(OTHER, "after"),
        f"runs/{OTHER}/config.json": lambda: store.write_config(OTHER, {"a": 1}),
        "a store": store.prepare,
    }
    for place, write in writes.items():
        with pytest.raises(StoreError) as caught:
            write()
        assert place in str(caught.value)
        advice = "bytes free); make room or use --store" if number == errno.ENOSPC else "choose another place"
        assert advice in str(caught.value)
        assert caught.value.exit_code == 4
    assert tree(store.root) == before


def test_a_store_that_is_a_file_or_lies_below_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        store = Store(root)
        for write in (
            store.prepare,
            lambda s=store: s.write_verdict(entry()),
            lambda s=store: s.finish(record(), None),
        ):
            with pytest.raises(StoreError, match=r"file.*: (File exists|Not a directory); choose another place"):
                write()
        assert store.run_ids() == []
        assert store.state(RUN) == "absent"
        assert store.verdicts() == ([], [])
    assert tree(tmp_path) == {"file": b"mine"}


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), explain(tmp_path):
        raise ValueError("mine")


# --- the state of a run ---------------------------------------------------------------------------


def test_the_state_is_read_off_the_files(store: Store) -> None:
    assert store.state(RUN) == "absent"
    store.write_config(RUN, {"run": "r"})
    assert store.state(RUN) == "interrupted"
    store.write_error(RUN, "no memory")
    assert store.state(RUN) == "failed"
    assert store.error(RUN) == "no memory"
    store.clear_error(RUN)
    store.clear_error(RUN)
    assert (store.state(RUN), store.error(RUN)) == ("interrupted", None)
    store.finish(record(), PREDICTIONS)
    assert store.state(RUN) == "finished"
    assert store.run_ids() == [RUN]


def test_a_record_that_exists_is_finished_even_if_it_is_damaged_or_an_error_stands_beside_it(store: Store) -> None:
    store.write_error(RUN, "earlier")
    (store.run_dir(RUN) / "record.json").write_text("{")
    assert store.state(RUN) == "finished"


def test_finishing_removes_checkpoints_and_the_error_and_nothing_else(store: Store) -> None:
    store.write_config(RUN, {"run": "r"})
    store.write_error(RUN, "earlier")
    for name in ("checkpoint-5.pt", "checkpoint-9.pt", "metrics.jsonl"):
        (store.run_dir(RUN) / name).write_text("")
    store.finish(record(), PREDICTIONS)
    files = {p.name for p in store.run_dir(RUN).iterdir()}
    assert files == {"config.json", "metrics.jsonl", "predictions.safetensors", "record.json"}


def test_the_record_is_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, order = os.replace, []
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b)))
    store.finish(record(), PREDICTIONS)
    assert order == ["predictions.safetensors", "record.json"]


def test_a_held_lock_is_a_running_run_and_a_killed_holder_frees_it_at_once(store: Store) -> None:
    store.write_config(RUN, {"run": "r"})
    store.write_error(RUN, "of an earlier attempt")
    code = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire();"
        "print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(store.lock_path(RUN))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert store.state(RUN) == "running"
            assert store.state(OTHER) == "absent"
        finally:
            holder.send_signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            holder.wait()
        assert store.state(RUN) == "failed"
    store.clear_error(RUN)
    assert store.state(RUN) == "interrupted"
    with FileLock(store.lock_path(RUN), timeout=0):
        pass


# --- records and predictions ----------------------------------------------------------------------


def test_what_is_stored_is_read_back(store: Store) -> None:
    store.finish(record(), PREDICTIONS)
    measured = store.measured(REF)
    assert without_hash(measured.record) == record()
    assert (measured.run_id, measured.arm, measured.seed, measured.error) == (RUN, "a", 3, None)
    assert measured.predictions is not None
    for name in ("ids", "predicted", "labels"):
        np.testing.assert_array_equal(getattr(measured.predictions, name), getattr(PREDICTIONS, name))
    assert measured.predictions.correct.sum() == 3


def test_a_counted_run_has_no_predictions(store: Store) -> None:
    own = run_identity(ENGINE, "analytic", CONFIG, 3)
    counted = record(own, type="analytic", result=AnalyticResult(quantities={"depth": 12.0}))
    store.finish(counted, None)
    measured = store.measured(RunRef(run_id=own, arm="a", seed=3))
    assert (measured.record, measured.predictions, measured.error) == (counted, None, None)


def test_a_run_that_is_not_there_is_measured_as_nothing_and_a_failed_one_as_its_error(store: Store) -> None:
    assert store.record(RUN) is None
    assert (store.measured(REF).record, store.measured(REF).error) == (None, None)
    store.write_error(RUN, "diverged at step 3")
    assert store.measured(REF).error == "diverged at step 3"


def damaged(change: Any) -> str:
    values = json.loads(record().model_dump_json())
    change(values)
    return json.dumps(values)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        (record().model_dump_json()[:-40], "Invalid JSON"),
        ("\x00" * 500, "Invalid JSON"),
        ("[]", "damaged record"),
        ("{}", "Field required"),
        (damaged(lambda v: v["result"].update(n=-4)), "n: Input should be greater than 0"),
        (damaged(lambda v: v["result"].update(correct=5)), "correct 5, n 4 and complete_n 4 cannot all be"),
        (damaged(lambda v: v["result"].update(correct=-1)), "correct: Input should be greater than or equal to 0"),
        (damaged(lambda v: v["result"].update(n=5, correct=5)), "cannot all be"),
        (damaged(lambda v: v["result"].update(final_loss=float("nan"))), "final_loss: Input should be a finite number"),
        (damaged(lambda v: v["result"].update(train_seconds=float("inf"))), "train_seconds"),
        (damaged(lambda v: v["result"].update(n=3.5)), "n: Input should be a valid integer"),
        (damaged(lambda v: v["result"].pop("correct")), "correct: Field required"),
        (damaged(lambda v: v.update(result={"quantities": {"depth": 1.0}})), "of type train with another's result"),
        (damaged(lambda v: v.update(type="analytic")), "of type analytic with another's result"),
        (damaged(lambda v: v.update(result={"quantities": {"depth": float("nan")}})), "damaged record: result"),
        (damaged(lambda v: v.update(schema_version=2)), "schema_version: Input should be 1"),
        (damaged(lambda v: v.update(accuracy=173)), "accuracy: Extra inputs"),
        (damaged(lambda v: v.update(run_id="../../etc")), "run_id: String should match pattern"),
        (damaged(lambda v: v.update(run_id=OTHER)), f"holds the record of run {OTHER}"),
    ],
)
def test_a_damaged_record_is_named_with_its_fault_and_becomes_the_error_of_its_run(
    store: Store, content: str, words: str
) -> None:
    store.finish(record(), PREDICTIONS)
    path = store.run_dir(RUN) / "record.json"
    path.write_text(content)
    before = tree(store.root)
    with pytest.raises(StoreError) as caught:
        store.record(RUN)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert message.endswith(f"move {store.run_dir(RUN)} away and run `vitrepro verify` again")
    measured = store.measured(REF)
    assert (measured.record, measured.predictions, measured.error) == (None, None, message)
    assert tree(store.root) == before


def without_hash(found: Record | None) -> Record:
    """A record as it was given to the store, which adds the hash of the predictions."""
    assert found is not None
    assert found.predictions_sha256
    return found.model_copy(update={"predictions_sha256": None})


def old(**arrays: Any) -> Any:
    """The predictions of an earlier version, whose record had no hash of them."""

    def damage(path: Path) -> Path:
        path.unlink()
        np.savez(path.with_suffix(".npz"), **arrays)
        recorded = path.with_name("record.json")
        recorded.write_text(record().model_dump_json())
        return path.with_suffix(".npz")

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(b"\x00" * 300),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
        old(ids=np.arange(4), predicted=np.arange(4)),
        old(ids=np.arange(4), predicted=np.arange(3), labels=np.arange(4)),
        old(ids=np.zeros((2, 2)), predicted=np.zeros((2, 2)), labels=np.zeros((2, 2))),
        old(ids=np.array(["a"]), predicted=np.array([1]), labels=np.array([1])),
        old(ids=np.array([{}], dtype=object), predicted=np.array([1]), labels=np.array([1])),
    ],
    ids=["missing", "empty", "cut", "zeros", "flipped", "field", "lengths", "shape", "text", "pickle"],
)
def test_damaged_predictions_are_named_and_become_the_error_of_their_run(store: Store, damage: Any) -> None:
    store.finish(record(), PREDICTIONS)
    path = store.run_dir(RUN) / "predictions.safetensors"
    found = damage(path)
    path = found if isinstance(found, Path) else path if path.exists() else path.with_suffix(".npz")
    with pytest.raises(StoreError) as caught:
        store.predictions(RUN)
    assert str(caught.value).startswith(f"{path}: ")
    assert f"move {store.run_dir(RUN)} away" in str(caught.value)
    assert store.measured(REF).error == str(caught.value)


def test_predictions_that_are_not_those_of_the_record_are_refused_though_they_can_be_read(store: Store) -> None:
    store.finish(record(), PREDICTIONS)
    path = store.run_dir(RUN) / "predictions.safetensors"
    path.write_bytes(save({"ids": PREDICTIONS.ids, "predicted": PREDICTIONS.labels, "labels": PREDICTIONS.labels}))
    assert "not what the run's record says was written" in str(store.measured(REF).error)


def test_predictions_stored_by_an_earlier_version_are_read(store: Store) -> None:
    store.finish(record(), PREDICTIONS)
    arrays = {"ids": PREDICTIONS.ids, "predicted": PREDICTIONS.predicted, "labels": PREDICTIONS.labels}
    old(**arrays)(store.run_dir(RUN) / "predictions.safetensors")
    found = store.measured(REF).predictions
    assert found is not None
    assert all(np.array_equal(getattr(found, name), array) for name, array in arrays.items())


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"text": 1}', "\xff"])
def test_a_damaged_error_file_is_still_an_error(store: Store, content: str) -> None:
    store.write_error(RUN, "x")
    (store.run_dir(RUN) / "error.json").write_bytes(content.encode("latin-1"))
    assert store.error(RUN) == f"{store.run_dir(RUN) / 'error.json'}: damaged"


def test_predictions_that_make_a_reader_run_code_are_not_run(store: Store, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    store.finish(record(), PREDICTIONS)
    harm = np.array([Harm()], dtype=object)
    old(ids=harm, predicted=harm, labels=harm)(store.run_dir(RUN) / "predictions.safetensors")
    assert "cannot be read" in str(store.measured(REF).error)
    assert not (tmp_path / "executed").exists()


# --- learning curves ------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"{", b"\xc3", b"\x00" * 20, b"", b"12", b"[1]", b'{"loss": 1}'])
def test_a_torn_last_line_of_a_curve_is_left_out(store: Store, torn: bytes) -> None:
    store.write_config(RUN, {})
    path = store.run_dir(RUN) / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.5}\n' + torn)
    assert store.curve(RUN) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]


def test_a_step_logged_again_after_a_resume_counts_once(store: Store) -> None:
    store.write_config(RUN, {})
    lines = [{"step": 1, "loss": 3}, {"step": 10, "loss": 2}, {"step": 5, "loss": 2.5}, {"step": 10, "loss": 2.1}]
    (store.run_dir(RUN) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [(row["step"], row["loss"]) for row in store.curve(RUN)] == [(1, 3), (5, 2.5), (10, 2.1)]
    assert store.curve(OTHER) == []


# --- setting aside --------------------------------------------------------------------------------


def test_archiving_never_deletes(store: Store) -> None:
    kept = {}
    for attempt in range(3):
        store.finish(record(wall_seconds=float(attempt)), PREDICTIONS)
        kept[attempt] = tree(store.run_dir(RUN))
        store.archive(RUN)
        assert store.state(RUN) == "absent"
    for attempt, files in kept.items():
        assert tree(store.root / "archive" / f"{RUN}-{attempt}") == files
    store.archive(OTHER)
    assert store.run_ids() == []


def test_archiving_takes_a_free_name_when_an_earlier_one_was_removed(store: Store) -> None:
    aside = store.root / "archive"
    for _ in range(2):
        store.finish(record(), PREDICTIONS)
        store.archive(RUN)
    (aside / f"{RUN}-0").rename(store.root / "taken away")
    store.finish(record(), PREDICTIONS)
    store.archive(RUN)
    assert {p.name for p in aside.iterdir()} == {f"{RUN}-0", f"{RUN}-1"}
    assert all((folder / "record.json").is_file() for folder in aside.iterdir())
    assert not (aside / f"{RUN}-1" / RUN).exists()


# --- verdicts -------------------------------------------------------------------------------------


def test_verdicts_are_read_back_and_the_latest_of_a_scale_replaces_the_earlier(store: Store) -> None:
    store.write_verdict(entry(reason="first"))
    store.write_verdict(entry(reason="second"))
    store.write_verdict(entry(scale="gpu"))
    store.write_verdict(entry("t/a/order"))
    entries, faults = store.verdicts()
    assert faults == []
    assert [(e.claim_id, e.scale, e.reason) for e in entries] == [
        ("t/a/order", "cpu", "because"),
        ("t/order", "cpu", "second"),
        ("t/order", "gpu", "because"),
    ]
    assert entries[1] == entry(reason="second")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", entry().model_dump_json()[:-30], "\x00" * 10, '{"claim_id": "a/b", "outcome": "PASS"}']
)
def test_a_broken_verdict_is_listed_and_the_others_are_read(store: Store, content: str) -> None:
    store.write_verdict(entry("t/a"))
    store.write_verdict(entry("t/b"))
    broken = store.root / "verdicts" / "t--a@cpu.json"
    broken.write_text(content)
    entries, (fault,) = store.verdicts()
    assert [e.claim_id for e in entries] == ["t/b"]
    assert fault.startswith(f"{broken}: damaged: ")
    assert {claim: last.outcome for claim, last in store.last_outcomes().items()} == {"t/b": "PASS"}


def test_the_last_outcome_of_a_claim_is_its_newest(store: Store) -> None:
    assert store.last_outcomes() == {}
    store.write_verdict(entry(scale="gpu", outcome="FAIL", judged_at="2026-01-02T00:00:00+00:00"))
    store.write_verdict(entry(scale="cpu", outcome="PASS", judged_at="2026-01-01T00:00:00+00:00"))
    assert {claim: last.outcome for claim, last in store.last_outcomes().items()} == {"t/order": "FAIL"}


def test_a_margin_moved_after_a_verdict_is_kept_with_what_came_of_it(store: Store) -> None:
    first = entry(outcome="FAIL", judged_at="2026-01-01T00:00:00+00:00")
    assert first.entry.expect is not None
    moved = first.entry.model_copy(update={"deviations": ("it says something else now",)})
    store.write_verdict(first)
    store.write_verdict(first.model_copy(update={"judged_at": "2026-01-02T00:00:00+00:00"}))
    second = first.model_copy(update={"entry": moved, "outcome": "PASS", "judged_at": "2026-01-03T00:00:00+00:00"})
    store.write_verdict(second)
    store.write_verdict(second.model_copy(update={"judged_at": "2026-01-04T00:00:00+00:00"}))
    ((kept,), _) = store.verdicts()
    assert kept.outcome == "PASS"
    assert [(e.outcome, e.judged_at, e.entry) for e in kept.earlier] == [
        ("FAIL", "2026-01-02T00:00:00+00:00", first.entry)
    ]


# --- places ---------------------------------------------------------------------------------------


def test_a_store_is_made_where_names_have_spaces_and_letters_of_any_language(tmp_path: Path) -> None:
    store = Store(tmp_path / "Ergebnisse für „Müller“" / ("数" * 60))
    store.prepare()
    store.prepare()
    store.finish(record(), PREDICTIONS)
    store.write_verdict(entry())
    assert without_hash(store.measured(REF).record) == record()
    assert len(store.verdicts()[0]) == 1


def test_the_cache_is_the_one_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREPRO_CACHE", str(tmp_path / "cache"))
    assert Places.of(tmp_path, None).cache_dir == tmp_path / "cache"
    monkeypatch.setenv("VITREPRO_CACHE", "")
    assert "vitrepro" in str(Places.of(tmp_path, None).cache_dir)


def test_what_a_killed_writer_left_half_done_is_swept(store: Store) -> None:
    folder = store.run_dir("0" * 16)
    folder.mkdir(parents=True)
    (folder / ".config.json.abc.tmp").write_text("{")
    (folder / "config.json").write_text("{}")
    store.sweep("0" * 16)
    assert [p.name for p in folder.iterdir()] == ["config.json"]


def test_a_record_of_another_recipe_or_seed_is_damage(store: Store) -> None:
    store.finish(record(seed=4), PREDICTIONS)
    with pytest.raises(StoreError, match="its recipe and seed are not those of this run"):
        store.record(RUN)
