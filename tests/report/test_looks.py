"""The log of judgings: every retry leaves words in the table, the report and the export, and no PASS is unqualified."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_store import Lab, ordering, position_embeddings

from vitrepro import export, session
from vitrepro.errors import StoreError
from vitrepro.judge.finding import ALPHA
from vitrepro.judge.looks import LATER, Log, Look, distinct, history, level
from vitrepro.judge.rejudge import rejudge
from vitrepro.judge.verdict import Verdict
from vitrepro.report import markdown, words
from vitrepro.report.rows import rows

ID = "vit/t8-none-worse"
UNCLEAR = {"none": [640, 668, 610], "learned-1d": [650, 680, 700]}  # no gap to be sure of
CLEAR = {"none": [640, 650, 645], "learned-1d": [740, 745, 738]}


def look(lab: Lab, correct: Mapping[str, Sequence[int]], settings: Sequence[str] = (), **design: Any) -> Verdict:
    """Run what is missing with these numbers of correct images by seed, and judge as `verify` does."""
    if design:
        lab.design(position_embeddings(**design))
    count = len(next(iter(correct.values()))) if "seeds" not in design else None
    plan = lab.plan(ID, settings, count)
    for run in plan.runs:
        if lab.store.state(run.id) != "finished":
            lab.finish(run, correct[run.arm][run.seed])
    return session.judge_all([plan], lab.store)[0]


def best_triple(lab: Lab) -> Verdict:
    """Ten seeds are run and judged; then the file names the three that please."""
    ten = {"none": [640 + s % 3 for s in range(10)], "learned-1d": [645 + 20 * (s in (2, 5, 8)) for s in range(10)]}
    look(lab, ten)
    return look(lab, ten, seeds=[2, 5, 8])


def unseen_triple(lab: Lab) -> Verdict:
    """The other seven were never judged, but they are stored."""
    ten = {"none": [640] * 10, "learned-1d": [645 + 90 * (s in (2, 5, 8)) + s for s in range(10)]}
    for run in lab.plan(ID, seeds=10).runs:
        lab.finish(run, ten[run.arm][run.seed] + (run.seed if run.arm == "none" else 0))
    return look(lab, ten, seeds=[2, 5, 8])


def another_precision(lab: Lab) -> Verdict:
    look(lab, UNCLEAR)
    plan = session.plan.plan_claim(lab.registry, lab.plan(ID).choice, resolve=lambda _: "bf16")
    for run in plan.runs:
        lab.finish(run, CLEAR[run.arm][run.seed])
    return session.judge_all([plan], lab.store)[0]


def growing_seeds(lab: Lab) -> Verdict:
    look(lab, {arm: values[:3] for arm, values in UNCLEAR.items()})
    more = {arm: [*UNCLEAR[arm], *CLEAR[arm], *CLEAR[arm]] for arm in UNCLEAR}
    return look(lab, {arm: [v + i for i, v in enumerate(values)] for arm, values in more.items()})


def made_anew(lab: Lab) -> Verdict:
    look(lab, UNCLEAR)
    for run in lab.plan(ID).runs:
        lab.store.archive(run.id)
    return look(lab, CLEAR)


def changed_claim(lab: Lab) -> Verdict:
    lab.say(ordering(by=18.0))
    look(lab, CLEAR)
    lab.say(ordering(by=1.0))
    return look(lab, CLEAR)


RETRIES: dict[Callable[[Lab], Verdict], tuple[str, ...]] = {
    best_triple: ("look 2 at this claim", "seeds 2, 5, 8, first judged with 0, 1, 2, 3", "7 stored runs of the recipe"),
    unseen_triple: ("7 stored runs of the recipe not used (seeds 0, 1, 3, 4, 6, 7, 9)",),
    another_precision: ("look 2 at this claim, judged before: INCONCLUSIVE", "judged before in fp32"),
    growing_seeds: ("look 2 at this claim, judged before: INCONCLUSIVE", "first judged with 0, 1, 2"),
    made_anew: ("look 2 at this claim, judged before: INCONCLUSIVE", "the same runs were made anew"),
    changed_claim: ("look 2 at this claim, judged before: FAIL", "the claim read otherwise when it was judged before"),
}


@pytest.mark.parametrize(("retry", "said"), RETRIES.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_a_retry_leaves_words_in_verdict_table_report_and_export(
    lab: Lab, tmp_path: Path, retry: Callable[[Lab], Verdict], said: tuple[str, ...]
) -> None:
    verdict = retry(lab)
    claim = lab.claims[ID]
    folder = tmp_path / "export"
    report, _ = markdown.write(lab.registry, lab.store, None)
    export.write(lab.store, folder, (ID,), lambda name: name == ID)
    exported, _ = markdown.write(lab.registry, export.read(folder)[0], None)
    for text in ("; ".join(words.qualifiers(verdict)), rows([(claim, verdict)])[0].qualifiers, report, exported):
        for part in said:
            assert part in text, text
    if verdict.history.earlier:
        assert words.history(verdict) in report
        assert verdict.history.alpha == LATER / 2


def test_a_first_look_says_nothing_of_looks_and_the_same_inputs_are_one(lab: Lab) -> None:
    first, again = look(lab, CLEAR), look(lab, CLEAR)
    assert first.history.alpha == again.history.alpha == ALPHA
    assert words.qualifiers(first) == words.qualifiers(again) == ()
    assert len(logged(lab)) == 1
    assert [j.verdict.outcome for j in rejudge(lab.registry, lab.store) if j.verdict] == [first.outcome]


def test_later_looks_spend_one_percent_in_all_and_raise_the_bar(lab: Lab) -> None:
    assert level(1) == ALPHA
    assert sum(level(i) for i in range(2, 60)) == pytest.approx(LATER)
    before = look(lab, CLEAR)
    lab.say(ordering(by=1.5))
    after = look(lab, CLEAR)
    (a,), (b,) = before.findings, after.findings
    assert b.deciding is not None
    assert a.deciding is not None
    assert b.deciding.high - b.deciding.low > 1.5 * (a.deciding.high - a.deciding.low)
    assert b.p == pytest.approx(min(1.0, 10 * float(b.estimate.p_above(1.5)) * 2))


def test_seeds_of_the_first_look_are_the_registration(lab: Lab) -> None:
    """Five seeds were judged first, so the file's three are fewer than registered."""
    five = {arm: [*values, values[0] + 2, values[1] + 3] for arm, values in CLEAR.items()}
    look(lab, five)
    fewer = look(lab, CLEAR, seeds=[0, 1, 2])
    assert "fewer seeds than registered decide nothing; it would have been" in words.reason(fewer)


def test_a_run_that_is_missing_or_failed_is_no_look(lab: Lab) -> None:
    plan = lab.plan(ID)
    lab.finish(plan.runs[0], 640)
    assert session.judge_all([plan], lab.store)[0].outcome.value == "NOT_RUN"
    assert lab.store.looks() == ({}, [])


def test_a_shortened_or_missing_log_is_named(lab: Lab) -> None:
    look(lab, UNCLEAR)
    lab.say(ordering(by=2.0))
    look(lab, UNCLEAR)
    log = lab.store.root / "looks.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[1])
    (judged,) = rejudge(lab.registry, lab.store)
    assert judged.verdict is not None
    assert "the log of judgings is missing or shortened: 1 looks of 2" in words.qualifiers(judged.verdict)
    log.unlink()
    (judged,) = rejudge(lab.registry, lab.store)
    assert judged.verdict is not None
    assert "the log of judgings is missing or shortened: 0 looks of 2" in words.qualifiers(judged.verdict)


def logged(lab: Lab) -> list[dict[str, Any]]:
    """Every line of the log that is whole."""
    return [json.loads(line) for lines in lab.store.looks()[0].values() for line in lines]


def read(line: dict[str, Any]) -> Look:
    return Look.read(json.dumps(line))


def test_a_line_damaged_inside_is_named_for_its_claim(lab: Lab) -> None:
    look(lab, UNCLEAR)
    log = lab.store.root / "looks.jsonl"
    log.write_text(log.read_text().replace('"said":', '"said"'))
    (judged,) = rejudge(lab.registry, lab.store)
    assert judged.verdict is not None
    assert "the log of judgings is damaged" in "; ".join(words.qualifiers(judged.verdict))


def test_a_torn_line_leaves_the_other_claims_and_the_next_line_whole(lab: Lab) -> None:
    look(lab, UNCLEAR)
    log = lab.store.root / "looks.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + whole[: len(whole) // 2])
    assert lab.store.looks()[1] == [f"{log}:2: a torn line, left out"]
    lab.say(ordering(by=2.0))
    second = look(lab, UNCLEAR)
    assert second.history.number == 2
    assert (len(logged(lab)), len(lab.store.looks()[1])) == (2, 1)


def test_a_newer_version_a_doubled_line_and_a_clock_that_went_back(lab: Lab) -> None:
    look(lab, UNCLEAR)
    log = lab.store.root / "looks.jsonl"
    line = json.loads(log.read_text())
    log.write_text("".join(json.dumps(entry) + "\n" for entry in (line, line, {**line, "at": "1999-01-01T00:00:00"})))
    assert look(lab, UNCLEAR).history.number == 1
    with log.open("a") as file:
        file.write(json.dumps({**line, "v": 2}) + "\n")
    named = words.qualifiers(look(lab, UNCLEAR))
    assert "the log of judgings is damaged: version 2, this vitrepro reads 1" in named
    with pytest.raises(ValueError, match="version 2"):
        read({**line, "v": 2})


def test_looks_count_by_their_place_in_the_log(lab: Lab) -> None:
    look(lab, UNCLEAR)
    (line,) = logged(lab)
    first = read(line)
    later = read({**line, "runs": "others", "at": "1999-01-01T00:00:00"})
    lost = read({**line, "runs": "third", "outcome": "ERROR"})
    assert distinct([first, later, first, lost]) == [first, later]
    assert history([first, later], later).number == 2
    assert history([first, later], first).number == 1


def test_ten_thousand_entries_take_a_tenth_of_a_second(lab: Lab) -> None:
    look(lab, UNCLEAR)
    (line,) = logged(lab)
    with (lab.store.root / "looks.jsonl").open("a") as file:
        file.writelines(json.dumps({**line, "claim_id": f"vit/other-{i}"}) + "\n" for i in range(10_000))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        log = Log.of(lab.store, ())
        seconds.append(time.perf_counter() - start)
    assert len(log.lines) == 10_001
    assert min(seconds) < 0.1


def test_a_damaged_log_is_not_exported(lab: Lab, tmp_path: Path) -> None:
    look(lab, UNCLEAR)
    (lab.store.root / "looks.jsonl").write_text("{")
    with pytest.raises(StoreError, match="a damaged log is not exported"):
        export.write(lab.store, tmp_path / "export")


def test_a_verdict_older_than_the_log_is_a_look_that_the_log_lacks(lab: Lab) -> None:
    look(lab, UNCLEAR)
    (entry,), _ = lab.store.verdicts()
    (lab.store.root / "looks.jsonl").unlink()
    (path,) = (lab.store.root / "verdicts").glob("*.json")
    path.write_text(entry.model_copy(update={"looks": None}).model_dump_json())
    (judged,) = rejudge(lab.registry, lab.store)
    assert judged.verdict is not None
    assert "the log of judgings is missing or shortened: 0 looks of 1" in words.qualifiers(judged.verdict)
