from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from fake_store import Lab, claim, counting, learning_curve, position_embeddings

from vitrepro.judge.rejudge import Judged, rejudge
from vitrepro.report.plots import _apart, curves_figure, numbers, points, write_plots
from vitrepro.report.sizes import by_experiment
from vitrepro.report.words import because
from vitrepro.store import thin

ID = "vit/t8-none-worse"
NUMBERS = {"none": [640, 650, 645], "learned-1d": [740, 745, 738]}


def only(lab: Lab) -> Judged:
    (judged,) = rejudge(lab.registry, lab.store)
    return judged


def words(svg: bytes) -> str:
    """All text of a figure, in one line."""
    return " ".join(t.text or "" for t in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))


def counted(lab: Lab, checks: dict, reported: dict[str, float], values: dict[str, float]) -> Judged:
    lab.design(counting())
    cells = {"unit": "x", "cells": reported}
    lab.say(claim("vit/t1", "exact", {"cells": checks}, experiment="model-sizes", reported=cells))
    lab.verify("vit/t1", counted={"b16": values})
    return only(lab)


def test_an_ordering_is_accepted_above_its_gap(verified: Lab):
    (point,) = points(only(verified))
    assert (point.accept_low, point.accept_high) == (1.0, math.inf)
    assert point.low < point.x < point.high


def test_an_equivalence_is_accepted_within_its_margin(lab: Lab):
    lab.say(claim("vit/equal", "equivalence", {"equal": ["none", "learned-1d"], "within": 1.5}))
    lab.verify("vit/equal", NUMBERS)
    (point,) = points(only(lab))
    assert (point.accept_low, point.accept_high) == (-1.5, 1.5)


def test_a_value_shows_the_interval_that_decides(lab: Lab):
    cells = {"none": {"arm": "none", "margin": 1.0}}
    lab.say(claim("vit/value", "value", {"cells": cells}, reported={"unit": "%", "cells": {"none": 80.5}}))
    lab.verify("vit/value", {"none": NUMBERS["none"]})
    judged = only(lab)
    (point,) = points(judged)
    assert judged.verdict is not None
    assert f"{point.low:+.2f} to {point.high:+.2f}" in because(judged.verdict.findings[0])
    assert (point.accept_low, point.accept_high) == (-1.0, 1.0)


def test_a_value_that_may_exceed_is_accepted_without_end(lab: Lab):
    cells = {"none": {"arm": "none", "margin": 1.0, "direction": "at_least"}}
    lab.say(claim("vit/value", "value", {"cells": cells}, reported={"unit": "%", "cells": {"none": 80.5}}))
    lab.verify("vit/value", {"none": NUMBERS["none"]})
    assert points(only(lab))[0].accept_high == math.inf


def test_a_counted_quantity_is_shown_relative_to_the_reported_and_zero_is_left_out(lab: Lab):
    checks = {
        "params": {"arm": "b16", "quantity": "parameters_m", "tolerance": 1.0},
        "depth": {"arm": "b16", "quantity": "depth", "tolerance": 20, "direction": "at_most"},
    }
    judged = counted(lab, checks, {"params": 100.0, "depth": 0}, {"parameters_m": 102.0, "depth": 12})
    (point,) = points(judged)
    assert point.label == "params"
    assert (point.x, point.accept_low, point.accept_high) == pytest.approx((2.0, -1.0, 1.0))


def test_a_counted_quantity_with_one_bound_is_open_on_the_other_side(lab: Lab):
    check = {"arm": "b16", "quantity": "depth", "tolerance": 3, "direction": "at_most"}
    (point,) = points(counted(lab, {"depth": check}, {"depth": 12}, {"depth": 12, "parameters_m": 1}))
    assert (point.accept_low, point.accept_high) == (-math.inf, 25.0)


def test_each_trained_claim_gets_findings_and_curves(verified: Lab, tmp_path: Path):
    written = write_plots([only(verified)], verified.store, tmp_path)
    assert [p.name for p in written[f"{ID}@cpu"]] == [
        "vit--t8-none-worse--cpu--findings.svg",
        "vit--t8-none-worse--cpu--curves.svg",
    ]
    assert all(p.stat().st_size < 60_000 for p in written[f"{ID}@cpu"])


def test_a_counted_claim_gets_no_curves(lab: Lab, tmp_path: Path):
    check = {"arm": "b16", "quantity": "depth", "tolerance": 0}
    judged = counted(lab, {"depth": check}, {"depth": 12}, {"depth": 12, "parameters_m": 1})
    written = write_plots([judged], lab.store, tmp_path)
    assert [p.name for p in written["vit/t1@any"]] == ["vit--t1--any--findings.svg"]


def test_nothing_is_drawn_of_a_claim_that_was_not_run(lab: Lab, tmp_path: Path):
    lab.verify(ID, NUMBERS, skip=6)
    assert write_plots([only(lab)], lab.store, tmp_path / "plots") == {}
    assert not (tmp_path / "plots").exists()


def test_a_stored_id_cannot_leave_the_folder(verified: Lab, tmp_path: Path):
    (entry,), _ = verified.store.verdicts()
    forged = entry.model_copy(update={"claim_id": "../../etc/x"}).model_dump_json()
    (verified.store.root / "verdicts" / "forged.json").write_text(forged)
    entries, (fault,) = verified.store.verdicts()
    assert [e.claim_id for e in entries] == [ID]
    assert "forged.json: damaged: claim_id" in fault
    written = write_plots(rejudge(verified.registry, verified.store), verified.store, tmp_path / "plots")
    assert {p.parent for paths in written.values() for p in paths} == {tmp_path / "plots"}


def test_a_figure_names_the_findings_outcomes_and_arms(verified: Lab, tmp_path: Path):
    findings, curves = write_plots([only(verified)], verified.store, tmp_path)[f"{ID}@cpu"]
    text = words(findings.read_bytes())
    assert "learned-1d - none" in text
    assert "PASS" in text
    text = words(curves.read_bytes())
    assert "none" in text
    assert "learned-1d" in text


def test_a_run_trained_with_mixup_has_a_loss_and_no_training_accuracy(verified: Lab):
    for run in verified.plan(ID).runs:
        rows = [learning_curve(step, 100, 50.0, 0) for step in (10, 20)]
        lines = [f'{{"step": {r["step"]}, "loss": {r["loss"]}}}\n' for r in rows]
        (verified.store.run_dir(run.id) / "metrics.jsonl").write_text("".join(lines))
    svg = curves_figure(only(verified), verified.store)
    assert svg is not None
    assert "training accuracy" not in words(svg)


def test_many_findings_and_long_names_stay_small_enough_to_look_at(lab: Lab, tmp_path: Path):
    levels = {f"a-very-long-name-of-an-arm-number-{i}": {"model": {"dropout": i / 100}} for i in range(12)}
    lab.design(position_embeddings(factors={"arm": levels}, seeds=[0]))
    lab.say(claim("vit/many", "equivalence", {"equal": list(levels), "within": 1.0}))
    lab.verify("vit/many", {name: [600 + 5 * i] for i, name in enumerate(levels)})
    findings, curves = write_plots([only(lab)], lab.store, tmp_path)["vit/many@cpu"]
    assert "40 of 66 findings" in words(findings.read_bytes())
    assert findings.stat().st_size < 120_000
    assert curves.stat().st_size < 60_000


def test_a_thinned_curve_keeps_both_ends():
    rows = [{"step": float(i)} for i in range(1000)]
    kept = thin(rows, 50)
    assert len(kept) == 50
    assert (kept[0], kept[-1]) == (rows[0], rows[-1])


def test_labels_of_sizes_do_not_touch():
    assert _apart([100, 101, 1000]) == [100, 1000]


def test_reported_numbers_stand_beside_ours_with_what_is_printed_and_measured(lab: Lab, tmp_path: Path):
    cells = {arm: {"arm": arm, "margin": 2.0} for arm in NUMBERS}
    printed = {"none": {"value": 80.5, "sd": 0.0, "runs": 3, "decimals": 1}, "learned-1d": 92.5}
    lab.say(claim("vit/t8-value", "value", {"cells": cells}, reported={"unit": "%", "cells": printed}))
    lab.verify("vit/t8-value", NUMBERS)
    judged = only(lab)
    none, learned = numbers([judged], "arxiv:2010.11929v2")
    assert (none.label, none.reported, none.sd) == ("t8-value at cpu / none", 80.5, 0.05)  # half of the last digit
    assert none.measured == pytest.approx(100 * (640 + 650 + 645) / 3 / 797)
    assert none.interval is not None
    assert none.interval.low < none.measured < none.interval.high
    assert (learned.reported, learned.sd) == (92.5, None)
    (figure,) = write_plots([judged], lab.store, tmp_path)["source arxiv:2010.11929v2"]
    assert f"80.5 / {none.measured:.2f}" in words(figure.read_bytes())


def test_a_figure_is_as_wide_as_a_phone_and_names_the_matplotlib_that_drew_it(verified: Lab, tmp_path: Path):
    import matplotlib

    judged = only(verified)
    files = write_plots([judged], verified.store, tmp_path, by_experiment([judged]))
    for path in (p for paths in files.values() for p in paths):
        svg = path.read_bytes()
        assert float(ElementTree.fromstring(svg).get("width", "").removesuffix("pt")) == pytest.approx(330)  # 440 px
        assert f"matplotlib {matplotlib.__version__}".encode() in svg
        assert b"<dc:date>" not in svg
