from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest
from fake_store import Lab, claim, counting, learning_curve, ordering, position_embeddings, sizes
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from vitrepro import session
from vitrepro.claims import Registry
from vitrepro.errors import StoreError
from vitrepro.judge.verdict import Verdict
from vitrepro.recipe import MeasureName
from vitrepro.record import TrainResult
from vitrepro.report import section, words
from vitrepro.report.markdown import HEADINGS, NO_PLOTS, write
from vitrepro.report.text import plain

ID = "vit/t8-none-worse"
MEASURE = next(name for name in get_args(MeasureName) if name.startswith("attention"))
NASTY = "a | b\n\n| c <script>alert(1)</script> `x` ![i](http://e.vil/p.png) \u202e *b* & 5 < 6 $x$ 👩‍🔬"


def text_of(lab: Lab) -> str:
    return write(lab.registry, lab.store, None)[0]


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every table of a document, rows by columns, split where GitHub splits them."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif found[-1]:
            found.append([])
    return [t for t in found if t]


def table(text: str, heading: str) -> list[dict[str, str]]:
    """The first table with this column, each row by column."""
    rows = next(t for t in tables(text) if heading in t[0])
    assert {len(r) for r in rows} == {len(rows[0])}
    return [dict(zip(rows[0], r, strict=True)) for r in rows[2:]]


def everything(lab: Lab) -> None:
    """One verdict of each kind of claim, and two outcomes beside PASS."""
    lab.design(counting(), sizes())
    numbers = {"none": [640, 650, 645], "learned-1d": [740, 745, 738]}
    cells = {"none": {"arm": "none", "margin": 1.0}, "learned-1d": {"arm": "learned-1d", "margin": 2.0}}
    reported = {"unit": "%", "cells": {"none": {"value": 80.5, "sd": 0.3, "runs": 3}, "learned-1d": 92.5}}
    lab.say(claim("vit/t8-value", "value", {"cells": cells}, reported=reported))
    lab.say(claim("vit/t8-equal", "equivalence", {"equal": ["none", "learned-1d"], "within": 1.0}))
    for claim_id in (ID, "vit/t8-value", "vit/t8-equal"):
        lab.verify(claim_id, numbers)
    gain = {"larger_gain": ["vit-n100", "vit-n1000"], "than": ["resnet-n100", "resnet-n1000"]}
    lab.say(claim("vit/f4-data", "trend", gain, experiment="training-sizes"))
    starts = {"vit-n100": 300, "vit-n1000": 700, "resnet-n100": 380, "resnet-n1000": 690}
    lab.verify("vit/f4-data", {arm: [k, k + 3, k + 5] for arm, k in starts.items()})
    checks = {"b16": {"arm": "b16", "quantity": "parameters_m", "relative_tolerance": 0.01}}
    layers = {"unit": "millions", "cells": {"b16": 86}}
    lab.say(claim("vit/t1-sizes", "exact", {"cells": checks}, experiment="model-sizes", reported=layers))
    lab.verify("vit/t1-sizes", counted={"b16": {"parameters_m": 86.57, "depth": 12}})


# --- what it says -------------------------------------------------------------------------------


def test_an_empty_store_says_so(lab: Lab):
    assert "The store holds no verdicts" in text_of(lab)
    assert text_of(lab).count("\n") < 6


def test_outcomes_are_counted_apart_and_a_proxy_is_not_called_a_reproduction(lab: Lab):
    everything(lab)
    summary = text_of(lab).split("\n\n")[1]
    assert "**3 of 5 claims: PASS** (1 × reproduced, 2 × supports (proxy))" in summary
    assert "**1 of 5 claims: FAIL** (1 × speaks against (proxy))" in summary
    assert "**1 of 5 claims: INCONCLUSIVE**" in summary
    opening = text_of(lab).partition("## Verdicts")[0]
    assert "What did not stand: [vit/t8-equal at cpu](#vitt8-equal-at-cpu)." in opening
    assert "a PASS supports the claim, it does not reproduce the paper's number" in opening
    assert "| source |" not in opening
    assert "The 5 verdicts on runs rest on 3 sets of runs; verdicts on the same set are not independent." in opening
    assert "(#vitt8-equal-at-cpu). Its runs could not have confirmed the claim." in opening


def test_what_we_ask_of_a_source_is_no_verdict_on_it(lab: Lab):
    """It has a table, words and counts of its own, and stands in no summary of the source."""
    everything(lab)
    equal = {"equal": ["none", "learned-1d"], "within": 1.0}
    lab.say(claim("vit/asked", "equivalence", equal, by="us"))
    lab.verify("vit/asked", {"none": [640, 643, 646], "learned-1d": [737, 740, 741]})
    text = text_of(lab)
    assert "This report is about 5 claims of arxiv:2010.11929v2 and 1 question of ours about it." in text
    assert "**1 of 5 claims: FAIL** (1 × speaks against (proxy))" in text
    assert "Of our own questions: **1 of 1 claim: does not fit**." in text
    assert "What did not stand: [vit/t8-equal at cpu](#vitt8-equal-at-cpu)." in text
    (row,) = (r for r in tables(text) if "our questions about it" in r[0])
    assert row[0] == ["source", "our questions about it", "does not fit", "no verdict"]
    assert row[2][1:] == ["1", "1", "0"]
    _, ours = text.split("### Our questions about arxiv:2010.11929v2")
    (line,) = (line for line in ours.splitlines() if line.startswith("| [vit/asked]"))
    assert "**does not fit**" in line
    asked = ours.partition("### vit/asked at cpu")[2]
    assert "does not fit**, speaks against what we ask (proxy), no verdict on the source" in asked
    assert "Our question, about [arXiv:2010.11929v2]" in asked
    assert not {"PASS", "FAIL", "EXCEEDS"} & set(re.findall(r"[A-Z]{4,}", line + asked.partition("#### Runs")[0]))


def test_of_several_sources_each_has_its_own_count(lab: Lab):
    everything(lab)
    other = {"source": {"paper": "another", "where": "Table 1"}}
    equal = {"equal": ["none", "learned-1d"], "within": 1.0}
    lab.say(claim("other/equal", "equivalence", equal, **other))
    lab.verify("other/equal", {"none": [640, 643, 646], "learned-1d": [737, 740, 741]})
    lab.say(claim("other/unchecked", "equivalence", equal, **other))
    text = text_of(lab)
    assert "This report is about 7 claims of 2 sources." in text
    assert "With chance in them are 2, of which 2 stay after Holm's correction for the number of verdicts" in text
    first, second = table(text, "no verdict")
    assert first == {"source": "[arxiv:2010.11929v2](#arxiv201011929v2)", "claims": "5"} | dict(
        zip(("PASS", "FAIL", "INCONCLUSIVE", "no verdict"), "3110", strict=True)
    )
    assert second == {"source": "[another](#another)", "claims": "2"} | dict(
        zip(("PASS", "FAIL", "INCONCLUSIVE", "no verdict"), "0101", strict=True)
    )


def test_the_verdict_table_tells_what_was_measured_against_what_and_how(lab: Lab):
    everything(lab)
    rows = table(text_of(lab), "evidence")
    assert tuple(rows[0]) == HEADINGS
    assert rows[0]["claim"].startswith("[vit/f4-data](#vitf4-data-at-cpu): Without position embeddings a ViT")
    assert re.match(r"proxy at cpu, 3 seeds; p (&lt;)?0\.\d+ \(Holm (&lt;)?0\.\d+\)$", rows[0]["evidence"])
    assert [r["outcome"] for r in rows] == ["**PASS**", "**PASS**", "**FAIL**", "**PASS**", "**INCONCLUSIVE**"]
    assert rows[4]["reported"] == "92.5"


def test_a_run_shows_its_count_accuracy_and_interval(verified: Lab):
    row = next(r for r in table(text_of(verified), "k/n") if r["arm"] == "none" and r["seed"] == "0")
    assert row["k/n"] == "640/797"
    assert row["accuracy, %"] == "80.30"
    assert row["Wilson 95%"] == "77.40 to 82.91"
    assert "device" not in row
    assert "Every run: 100 steps, fp32, on A CPU, 2 cores." in text_of(verified)


def test_what_is_true_of_several_runs_is_said_once(verified: Lab):
    records = [verified.store.record(run_id) for run_id in verified.store.run_ids()][:3]
    changes = ({"resumed_at": (7,)}, {"resumed_at": (7,)}, {})
    looked = [
        r.model_copy(update={"result": r.result.model_copy(update={"test_looks": 4} | change)})
        for r, change in zip(records, changes, strict=True)
        if r is not None
    ]
    a, b, _ = (r.run_id for r in looked)
    assert list(section.remarks(looked)) == [
        f"Runs {a}, {b} stopped and went on at step 7.",
        "Every run looked at the test images 4 times.",
    ]
    assert list(section.remarks(looked[:1]))[1] == f"Run {a} looked at the test images 4 times."


def test_findings_name_their_level_and_method(verified: Lab):
    (row,) = table(text_of(verified), "finding")
    assert row["measured"] == "+12.05"
    assert re.fullmatch(r"\d\.\d\d to 15\.\d\d \(95%, seeds and images\)", row["interval"])
    assert row["bound"] == "1"


def test_the_deviations_from_the_paper_are_listed(verified: Lab):
    assert "- digits instead of ImageNet\n- 100 steps instead of 100,000" in text_of(verified)


def test_many_reported_cells_are_shortened(verified: Lab):
    cells = {f"c{i}": float(i) for i in range(40)}
    verified.say(ordering(reported={"unit": "%", "cells": cells}))
    assert "c11 11, and 28 more." in text_of(verified)


def test_a_margin_edited_after_the_run_shows(verified: Lab):
    verified.say(ordering(by=2.5))
    text = text_of(verified)
    assert "Changed since the runs were made:\n\n- expect.all.0.by changed from 1 to 2.5" in text
    assert "Something has changed since the runs were made, see there: [vit/t8-none-worse at cpu]" in text


def test_a_claim_that_is_gone_stays_in_the_table_and_is_not_counted_as_an_outcome(verified: Lab):
    verified.claims.clear()
    text = text_of(verified)
    (row,) = table(text, "evidence")
    assert row["outcome"] == "not judged"
    assert row["evidence"] == "at cpu"
    assert row["measured"] == "the claim is no longer in the claim files"
    assert "**1 of 1 claim: not judged**" in text
    assert "It was PASS when last judged" in text


def test_the_command_repeats_what_was_set_by_hand(lab: Lab):
    settings = ["train.steps=50", "model.pool=gap"]
    lab.verify(ID, {"none": [640, 640], "learned-1d": [740, 740]}, settings=settings)
    settings_text = "--set train.steps=50 --set model.pool=gap"
    command = f"vitrepro verify {ID} --scale cpu --seeds 2 --precision fp32 {settings_text} --allow-inconclusive"
    assert f"```sh\n{command}\n```" in text_of(lab)
    assert "- train.steps 50, registered 100" in text_of(lab)


def test_a_refutation_that_could_not_have_been_a_pass_is_counted_apart_and_its_command_runs_all_the_same(lab: Lab):
    """Three seeds from scratch against one printed run are no equivalence at a margin of a point."""
    reported = {"unit": "%", "cells": {"none": 99.0}}
    lab.say(claim("vit/t8-far", "value", {"cells": {"none": {"arm": "none", "margin": 1.0}}}, reported=reported))
    lab.say(claim("vit/t8-equal", "equivalence", {"equal": ["none", "learned-1d"], "within": 4.0}))
    for claim_id in (ID, "vit/t8-far", "vit/t8-equal"):
        lab.verify(claim_id, {"none": [640, 650, 645], "learned-1d": [740, 745, 738]})
    text = text_of(lab)
    names = "[vit/t8-equal at cpu](#vitt8-equal-at-cpu), [vit/t8-far at cpu](#vitt8-far-at-cpu)"
    only = "Of these, 1 rests on runs that could not have confirmed the claim."
    assert f"What did not stand: {names}. {only}" in text
    assert "so FAIL. Such runs could not have confirmed it." in text
    assert "vitrepro verify vit/t8-far --scale cpu --precision fp32 --allow-inconclusive\n" in text
    assert f"vitrepro verify {ID} --scale cpu --precision fp32\n" in text


def test_earlier_judgings_are_told_with_their_level_and_of_an_error_too(verified: Lab):
    for by in (1.0, 2.0):
        verified.say(ordering(by=by))
        session.judge_all([verified.plan(ID)], verified.store)
    assert "\n\njudged 2 times: PASS, PASS. Level of this look: 0.5%.\n\n" in text_of(verified)
    (verified.store.run_dir(verified.plan(ID).runs[0].id) / "record.json").write_text("{")
    assert "\n\njudged 3 times: PASS, PASS, ERROR.\n\n" in text_of(verified)


def test_what_could_not_have_been_told_is_left_out_of_the_table_of_findings(lab: Lab):
    lab.verify(ID, {"none": [640, 650, 645], "learned-1d": [740, 745, 80]})  # a run failed
    (row,) = table(text_of(lab), "finding")
    assert (row["told with 80%"], row["outcome"]) == ("", "INCONCLUSIVE")


def test_a_claim_checked_at_any_scale_is_verified_without_naming_one(lab: Lab):
    everything(lab)
    assert "```sh\nvitrepro verify vit/t1-sizes\n```" in text_of(lab)
    assert table(text_of(lab), "counted")[0]["counted"] == "parameters_m 86.57, depth 12"


def test_the_machine_and_versions_are_told_once_for_runs_that_share_them(lab: Lab):
    everything(lab)
    where = text_of(lab).partition("## Where the runs were made")[2]
    assert where.count("- ") == 1
    assert "19 runs, started 2026-01-02T03:00:00+00:00: A CPU, 2 cores; vitrepro 0.1.0 (git 62db793aaaaa)" in where
    assert "torch 2.7.0" in where


def test_two_scales_of_a_claim_are_two_verdicts_about_one_claim(verified: Lab):
    (entry,), _ = verified.store.verdicts()
    verified.store.write_verdict(entry.model_copy(update={"scale": "gpu"}))
    text = text_of(verified)
    assert "of 2 verdicts" in text
    assert "1 of them was checked in 2 verdicts, some at several scales" in text


def test_faults_of_claim_files_are_mentioned(verified: Lab):
    registry = Registry(verified.claims, verified.experiments, {}, {}, problems=("x.yaml:1:1: bad",))
    assert "The claim files have 1 fault; `vitrepro validate` lists them." in write(registry, verified.store, None)[0]


# --- printed cells and measures -----------------------------------------------------------------


def judge(lab: Lab, claim_id: str) -> Verdict:
    """The verdict on what is stored, and stored in turn, as `vitrepro verify` ends."""
    plan = lab.plan(claim_id)
    decided, _ = session.judge(plan, lab.store)
    lab.store.write_verdict(session.entry_of(plan, decided))
    return decided


def printed(claim_id: str, that: dict[str, str], **cells: float) -> dict[str, Any]:
    """A claim that holds statements against its own printed cells."""
    scales = {"literal": {"expect": {"checks": {name: {"that": text} for name, text in that.items()}}}}
    reported = {"unit": "% top-1", "cells": cells}
    return claim(claim_id, "ordering", {}, scales=scales, reported=reported, experiment="none")


def test_a_check_of_printed_cells_is_reported_and_is_not_called_a_reproduction(lab: Lab, tmp_path: Path):
    lab.say(printed("vit/agrees", {"above": "@a > @b"}, a=90, b=80))
    lab.say(printed("vit/disagrees", {"above": "@a > @b", "double": "@a == 2 * @b"}, a=90, b=80))
    for claim_id in ("vit/agrees", "vit/disagrees"):
        judge(lab, claim_id)
    text, _ = write(lab.registry, lab.store, tmp_path / "report.md")
    assert "**1 of 2 claims: PASS** (1 × the statement agrees with the printed numbers)" in text
    assert "**1 of 2 claims: FAIL** (1 × the statement disagrees with the printed numbers)" in text
    assert (
        "nothing was measured, and a PASS says that the statement agrees with printed numbers, not that it is right"
        in text
    )
    assert "does not reproduce" not in text
    rows = table(text, "evidence")
    assert [(r["measured"], r["margin"]) for r in rows] == [("above: 90", "&gt;"), ("double: 90 (1 of 2 FAIL)", r"\==")]
    assert [r["evidence"] for r in rows] == ["literal at literal; printed numbers, nothing measured"] * 2
    findings = table(text.partition("## vit/disagrees")[2], "finding")
    assert [list(f.values()) for f in findings] == [
        ["above", "90", "", "80", "&gt;", "", "", "PASS"],
        ["**double**", "90", "", "160", r"\==", "", "", "FAIL"],
    ]
    assert "vitrepro verify vit/disagrees --scale literal" in text
    assert "### Runs" not in text
    assert list(tmp_path.glob("report_files/*")) == []


def test_a_value_beyond_the_end_of_a_curve_is_reported_as_more_than_its_low_end(lab: Lab):
    """A curve that ends at 30 with 88% tells of 90% only that it costs more than 30."""
    ratio = "cost_to_reach(90, @x1, @y1, @x2, @y2) / 10"
    cells = {"x1": 10.0, "y1": 80.0, "x2": 30.0, "y2": 88.0}
    lab.say(printed("vit/curve", {"at-most": f"{ratio} <= 2", "turned": f"2 >= {ratio}"}, **cells))
    decided = judge(lab, "vit/curve")
    assert [(f.measured, f.reported, words.opened(f)) for f in decided.findings] == [
        (3.0, 2.0, (True, False)),
        (2.0, 3.0, (False, True)),
    ]
    text = text_of(lab)
    assert table(text, "evidence")[0]["measured"] == "at-most: more than 3 (2 of 2 FAIL)"
    findings = [(f["measured"], f["reported"]) for f in table(text, "finding")]
    assert findings == [("more than 3", "2"), ("2", "more than 3")]
    assert "inf" not in text.replace("information", "")


def test_a_printed_cell_that_was_edited_since_shows_with_what_it_does_to_the_outcome(lab: Lab):
    lab.say(printed("vit/agrees", {"above": "@a > @b"}, a=90, b=80))
    judge(lab, "vit/agrees")
    lab.say(printed("vit/agrees", {"above": "@a > @b"}, a=70, b=80))
    text = text_of(lab)
    assert "- reported.cells.a.value changed from 90 to 70" in text
    assert "- the outcome was PASS when last judged, 20" in text
    assert table(text, "evidence")[0]["outcome"] == "**FAIL**"


def measured(lab: Lab, values: dict[str, list[float]]) -> None:
    """Store, of every arm and seed of a claim, this value of one measure."""
    base = position_embeddings()["base"] | {"measures": [MEASURE]}
    lab.design(position_embeddings(base=base))
    bound = {"arm": "learned-1d", "metric": MEASURE, "above": 0.25}
    lab.say(
        claim(
            "vit/measure", "ordering", {"all": [bound, {"greater": "learned-1d", "than": "none"} | {"metric": MEASURE}]}
        )
    )
    numbers = {arm: [700 + 3 * i for i, _ in enumerate(seeds)] for arm, seeds in values.items()}
    lab.verify("vit/measure", numbers)
    for run in lab.plan("vit/measure").runs:
        record = lab.store.record(run.id)
        assert record is not None
        assert isinstance(record.result, TrainResult)
        result = record.result.model_copy(update={"measures": {MEASURE: values[run.arm][run.seed]}})
        lab.store.finish(record.model_copy(update={"result": result}), lab.store.predictions(run.id))


def test_a_measure_of_trained_models_is_reported_in_its_own_unit_with_its_interval(lab: Lab, tmp_path: Path):
    measured(lab, {"none": [0.1, 0.12, 0.11], "learned-1d": [0.5, 0.52, 0.51]})
    judge(lab, "vit/measure")
    text, _ = write(lab.registry, lab.store, tmp_path / "report.md")
    bound, gap = table(text, "finding")
    assert bound["finding"].strip("*") == f"learned-1d {MEASURE}"
    assert (bound["measured"], bound["bound"], bound["outcome"]) == ("+0.510", "&gt; 0.25", "PASS")
    assert re.match(r"0\.4\d\d to 0\.5\d\d \(95%, ", bound["interval"])
    assert gap["finding"].strip("*") == f"learned-1d - none {MEASURE}"
    assert (gap["measured"], gap["bound"], gap["outcome"]) == ("+0.400", "&gt; 0", "PASS")
    (row,) = table(text, "evidence")
    assert row["outcome"] == "**PASS**"
    assert row["margin"] == "&gt; 0.25"
    assert not any("findings" in p.name for p in tmp_path.glob("report_files/*"))  # points of top-1 are another axis


def test_runs_that_lack_a_measure_which_the_claim_needs_are_not_run(lab: Lab):
    measured(lab, {"none": [0.1, 0.12, 0.11], "learned-1d": [0.5, 0.52, 0.51]})
    judge(lab, "vit/measure")
    run = lab.plan("vit/measure").runs[0]
    record = lab.store.record(run.id)
    assert record is not None
    bare = record.result.model_copy(update={"measures": {}})
    lab.store.finish(record.model_copy(update={"result": bare}), lab.store.predictions(run.id))
    text = text_of(lab)
    assert table(text, "evidence")[0]["outcome"] == "**NOT_RUN**"
    assert "the stored runs did not measure" in text
    assert "the outcome was PASS when last judged" in text


# --- faults -------------------------------------------------------------------------------------


def test_a_damaged_record_is_an_error_in_its_row_and_the_others_still_show(verified: Lab):
    run = verified.plan(ID).runs[0]
    (verified.store.run_dir(run.id) / "record.json").write_text("{")
    text = text_of(verified)
    rows = table(text, "k/n")
    assert [r["run"] for r in rows if r["k/n"] == "**ERROR**"] == [run.id]
    assert sum("/797" in r["k/n"] for r in rows) == 5
    assert table(text, "evidence")[0]["outcome"] == "**ERROR**"
    assert "record.json: damaged record" in text.partition("## Stored but damaged")[2]


def test_a_damaged_verdict_is_listed(verified: Lab):
    (verified.store.root / "verdicts" / "a--b@cpu.json").write_text("[]")
    assert "a--b@cpu.json: damaged" in text_of(verified).partition("## Stored but damaged")[2]


def test_runs_not_made_yet_are_not_run(lab: Lab):
    numbers = {"none": [640, 650, 645], "learned-1d": [740, 745, 738]}
    lab.verify(ID, numbers, skip=1)
    text = text_of(lab)
    assert table(text, "evidence")[0]["outcome"] == "**NOT_RUN**"
    assert [r["k/n"] for r in table(text, "k/n")].count("NOT_RUN (absent)") == 1


def test_runs_without_a_verdict_are_listed(verified: Lab):
    (verified.store.root / "verdicts" / "vit--t8-none-worse@cpu.json").unlink()
    rows = table(text_of(verified), "state")
    assert len(rows) == 6
    assert {(r["experiment"], r["state"]) for r in rows} == {("position-embeddings", "finished")}


# --- text from elsewhere ------------------------------------------------------------------------


def test_text_of_a_claim_can_neither_break_a_table_nor_bring_html_in(verified: Lab):
    scale = ordering()["scales"]["cpu"] | {"deviations": [NASTY, "# not a heading", "- not a list"]}
    source = {"paper": NASTY, "where": NASTY}
    reported = {"unit": NASTY, "cells": {"none": 61.382, "learned-1d": 64.206}}
    edited = ordering(statement=NASTY, source=source, scales={"cpu": scale}, reported=reported)
    verified.say(edited)
    verified.verify(ID, {"none": [640] * 3, "learned-1d": [740] * 3})
    text = text_of(verified)
    for rows in tables(text):
        assert {len(r) for r in rows} == {len(rows[0])}
    assert "<" not in text
    assert "](http://e.vil" not in re.sub(r"\\.", "", text)
    assert "\u202e" not in text
    assert "👩‍🔬" in text
    assert "\n# not" not in text
    assert "- \\# not a heading\n- \\- not a list" in text


def test_an_error_with_bars_and_lines_keeps_the_columns(lab: Lab):
    lab.verify(ID, {"none": [640] * 3, "learned-1d": [740] * 3}, skip=1)
    lab.store.write_error(lab.plan(ID).runs[-1].id, NASTY)
    rows = table(text_of(lab), "k/n")
    assert [r["k/n"] for r in rows].count("**ERROR**") == 1
    assert "<script" not in text_of(lab)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("80.5", "80.5"),
        ("1. one", "1\\. one"),
        ("-3.2 to 1", "-3.2 to 1"),
        ("---", "\\---"),
        ("learned_1d and _em_", "learned_1d and \\_em\\_"),
        ("two\n lines", "two lines"),
        ("\x1b[31m\ud800", "\ufffd\\[31m\ufffd"),
    ],
)
def test_only_what_markdown_would_read_is_escaped(text: str, escaped: str):
    assert plain(text) == escaped


@given(st.text(st.sampled_from("ab1 .)#+-=_*`~[]()!<>&;|\\\\$:\n\t\"'/é👩") | st.characters(), max_size=30))
@example("[a](b)")
@example("&lt;b&gt; &#35;")
@example("+\n1) a")
@example("<!-- x --> <a@b.c>")
def test_any_text_reads_as_itself_in_a_paragraph_and_in_a_table(text: str):
    line = " ".join(text.split())
    wanted = "".join(c if c.isprintable() or c == "\u200d" else "\ufffd" for c in line)
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    if wanted:
        paragraph = parser.parse(plain(text))
        assert [t.type for t in paragraph] == ["paragraph_open", "inline", "paragraph_close"]
        assert {t.type for t in paragraph[1].children or ()} == {"text"}
        assert "".join(t.content for t in paragraph[1].children or ()) == wanted
    cells = [t for t in parser.parse(f"| x | y |\n| --- | --- |\n| {plain(text)} | b |") if t.type == "inline"]
    assert len(cells) == 4
    assert "".join(t.content for t in cells[2].children or ()) == wanted
    assert cells[3].content == "b"


# --- files --------------------------------------------------------------------------------------


def test_the_same_store_gives_the_same_bytes(lab: Lab, tmp_path: Path):
    everything(lab)
    made = []
    for name in ("a", "b"):
        out = tmp_path / name / "report.md"
        text, _ = write(lab.registry, lab.store, out)
        assert out.read_text() == text
        made.append({p.relative_to(out.parent): p.read_bytes() for p in out.parent.rglob("*") if p.is_file()})
    assert made[0] == made[1]
    assert len(made[0]) > 5


def test_links_to_figures_lead_to_files_that_exist(lab: Lab, tmp_path: Path):
    everything(lab)
    out = tmp_path / "my report (final).md"
    text, judged = write(lab.registry, lab.store, out)
    links = re.findall(r"^!\[.*\]\((\S+)\)$", text, re.MULTILINE)
    files = [out.parent / unquote(link) for link in links]
    assert all(f.is_file() for f in files)
    assert sorted(files) == sorted((tmp_path / "my report (final)_files").iterdir())
    assert len(judged) == 5


def test_links_inside_the_document_lead_to_its_headings(lab: Lab):
    everything(lab)
    text = text_of(lab)
    headings = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall("^##+ (.*)$", text, re.M)}
    targets = set(re.findall(r"\]\(#(.*?)\)", text))
    assert len(targets) == 11
    assert targets <= headings


def test_without_a_file_there_are_no_figures(verified: Lab):
    before = sorted(verified.store.root.rglob("*"))
    assert "![" not in text_of(verified)
    assert sorted(verified.store.root.rglob("*")) == before


def test_without_matplotlib_the_report_is_made_and_one_line_says_how_to_get_figures(
    verified: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text, _ = write(verified.registry, verified.store, tmp_path / "report.md")
    assert text.splitlines().count(NO_PLOTS) == 1
    assert "![" not in text
    assert (tmp_path / "report.md").read_text() == text


def test_a_place_that_cannot_be_written_is_named(verified: Lab, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        write(verified.registry, verified.store, tmp_path / "file" / "report.md")


def test_a_torn_learning_curve_does_not_stop_the_report(verified: Lab, tmp_path: Path):
    folder = verified.store.run_dir(verified.plan(ID).runs[0].id)
    row = str(learning_curve(2, 100, 50.0, 0)).replace("'", '"')
    (folder / "metrics.jsonl").write_bytes(f'{row}\n{{"step": "x", "loss": 1}}\n'.encode() + b"\xff\xfe\n")
    text, _ = write(verified.registry, verified.store, tmp_path / "report.md")
    assert "**PASS**" in text


def test_a_report_names_how_all_arms_of_an_experiment_differ_from_the_source(verified: Lab):
    verified.design(position_embeddings(deviations=["AdamW instead of Adam"]))
    _, _, listed = text_of(verified).partition("How this differs from the source's own protocol:")
    assert listed.strip().splitlines()[:3] == [
        "- digits instead of ImageNet",
        "- 100 steps instead of 100,000",
        "- AdamW instead of Adam",
    ]


def test_what_a_claim_notes_stands_in_its_section(verified: Lab):
    verified.say(ordering(notes="The source says so of one model; 5 < 6."))
    assert "\n\nNote: The source says so of one model; 5 &lt; 6.\n\n" in text_of(verified)
