from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_store import Lab, claim, counting, ordering, sizes
from hypothesis import given
from hypothesis import strategies as st
from paper_cases import lines, printed
from typer.testing import CliRunner

from vitrepro import budget, session
from vitrepro.budget import Clock
from vitrepro.cli import app
from vitrepro.cli.verdicts import parse_budget
from vitrepro.cost import Timings
from vitrepro.forecast.outlook import cannot_pass
from vitrepro.memory import Memories, Room, key
from vitrepro.plan import ClaimPlan, Run
from vitrepro.recipe import MeasureName, Recipe
from vitrepro.report import planned
from vitrepro.report.planned import CostedPlans, Picked, as_json, cost_plans, print_plans
from vitrepro.store import Places

ID = "vit/t8-none-worse"
GB = 2**30
MEASURE = get_args(MeasureName)[0]
GAP = {"greater": "learned-1d", "than": "none"}
TREND = {"larger_gain": ["vit-n100", "vit-n1000"], "than": ["resnet-n100", "resnet-n1000"]}


@dataclass
class Told(Clock):
    """A clock that is told how long runs take.

    Attributes:
        known: arm -> seconds, of those that were timed.
        guessed: of all others.
    """

    known: dict[str, float] = field(default_factory=dict)
    guessed: float = 10.0
    timings: Timings = field(default_factory=lambda: Timings([], "", 1))

    def timed(self, run: Run) -> bool:
        return run.arm in self.known or run.type == "analytic"

    def seconds(self, run: Run) -> float:
        return self.known.get(run.arm, self.guessed)


def picked(lab: Lab, plans: Sequence[ClaimPlan], clock: Clock, seconds: float, slots: int = 1) -> Picked:
    def stored(run: Run) -> bool:
        return lab.store.state(run.id) == "finished"

    return budget.pick(plans, clock.seconds, stored=stored, slots=slots, budget_seconds=seconds)


def shown(made: CostedPlans, chosen: Picked | None = None, seconds: float | None = None) -> list[str]:
    return lines(printed(lambda out: print_plans(out, made, chosen, ("cpu", "cpu"), seconds, budget.NEVER_TIMED)))


def with_trend(lab: Lab) -> list[ClaimPlan]:
    """The six runs of an ordering and the twelve of a trend."""
    lab.design(sizes())
    lab.say(claim("vit/f4-data", "trend", TREND, experiment="training-sizes"))
    return [lab.plan(ID), lab.plan("vit/f4-data")]


def with_literal(lab: Lab) -> ClaimPlan:
    expect = {"checks": {"above": {"that": "@b > @a"}}}
    reported = {"unit": "%", "cells": {"a": 1, "b": 2}}
    lab.say(claim("vit/printed", "ordering", {}, scales={"literal": {"expect": expect}}, reported=reported))
    return lab.plan("vit/printed")


def with_none(lab: Lab) -> ClaimPlan:
    lab.say(claim("vit/private", "ordering", {}, scales={"paper": {"infeasible": "private data"}}))
    return lab.plan("vit/private")


# --- what plans cost ----------------------------------------------------------------------------


def test_runs_that_are_stored_cost_nothing_and_those_that_claims_share_are_counted_once(lab: Lab):
    lab.verify(ID, {"none": [640, 650, 645], "learned-1d": [740, 745, 738]}, skip=2)
    lab.say(ordering(by=2.0, id="vit/same-runs"))
    plans = [lab.plan(ID), lab.plan("vit/same-runs")]
    made = cost_plans(plans, lab.store, Told(known={"none": 3.0, "learned-1d": 5.0}), 1)
    assert [c.cost.runs for c in made.plans] == [2, 2]
    assert made.to_run == 2
    assert [c.seconds for c in made.plans] == [8.0, 8.0]
    assert made.seconds == 8.0
    assert sorted(made.plans[0].states.values()) == ["absent"] * 2 + ["finished"] * 4
    rows = shown(made)
    assert sum("6 (4 stored)" in row for row in rows) == 2
    assert "In all 2 runs to do on 2 slots (cpu); runs that claims share are counted once." in rows


def test_slots_share_the_runs_and_one_run_is_never_split(lab: Lab):
    plans = [lab.plan(ID)]
    clock = Told(known={"none": 4.0, "learned-1d": 6.0})
    assert cost_plans(plans, lab.store, clock, 2).seconds == 15.0
    assert cost_plans(plans, lab.store, clock, 100).seconds == 6.0


def test_a_time_is_marked_as_rough_unless_all_of_its_models_were_timed(lab: Lab):
    plans = with_trend(lab)
    clock = Told(known={"none": 4.0, "learned-1d": 6.0})
    made = cost_plans(plans, lab.store, clock, 1)
    assert [c.rough for c in made.plans] == [False, True]
    assert made.rough
    rows = shown(made)
    assert " 30 s" in next(r for r in rows if r.startswith(ID))
    assert " ~2 min 0 s" in next(r for r in rows if r.startswith("vit/f4-data"))
    assert "Time: ~2 min 30 s." in rows
    assert any(r.startswith("~: some of these models were never timed on this machine") for r in rows)
    known = shown(cost_plans(plans[:1], lab.store, clock, 1))
    assert "Time: about 30 s, from throughput measured here." in known
    assert "~" not in "".join(known)


def test_a_time_that_nothing_tells_is_a_question_mark_and_null(lab: Lab):
    plans = [lab.plan(ID)]
    clock = Told(guessed=math.inf)
    made = cost_plans(plans, lab.store, clock, 1)
    chosen = picked(lab, plans, clock, 60)
    rows = shown(made, chosen, 60)
    assert f"{ID} cpu ?" in rows
    document = as_json(made, chosen)
    assert document["plans"][0]["seconds"] is None
    assert document["total"]["seconds"] is None
    assert document["left_out"] == [{"claim": ID, "scale": "cpu", "added_seconds": None}]
    json.dumps(document, allow_nan=False)


# --- what runs take of a slot's memory ----------------------------------------------------------


def with_room(lab: Lab, plan: ClaimPlan, taken: dict[str, float], slot: float = 4.0) -> list[str]:
    """The lines, where runs of these arms take so many GB, and half the micro-batch half of that."""
    pairs = []
    for run in plan.runs:
        if run.arm in taken and isinstance(run.config, Recipe):
            batch = run.config.train.batch_size
            pairs += [(key(run.config, batch // n), int(taken[run.arm] * GB / n)) for n in (1, 2, 4)]
    room = Room(Memories("cpu", pairs), int(slot * GB))
    made = cost_plans([plan], lab.store, Told(), 1, room)
    json.dumps(as_json(made, None))
    return [row for row in shown(made) if "per slot" in row or "not known" in row]


def test_the_largest_run_and_its_slot_are_told(lab: Lab):
    rows = with_room(lab, lab.plan(ID), {"none": 1.0, "learned-1d": 1.25})
    assert rows == ["Memory: up to 1.2 GB of 4.0 GB per slot."]
    assert not any("Memory" in row for row in shown(cost_plans([lab.plan(ID)], lab.store, Told(), 1)))


def test_an_arm_that_does_not_fit_is_named_once_with_the_micro_batch_that_does(lab: Lab):
    rows = with_room(lab, lab.plan(ID, ["train.batch_size=64"]), {"none": 1.0, "learned-1d": 9.0})
    assert rows == [
        "Memory: up to 9.0 GB of 4.0 GB per slot.",
        "position-embeddings/learned-1d does not fit: 9.0 GB of 4.0 GB per slot; micro-batch 16 of 64 fits.",
    ]
    rows = with_room(lab, lab.plan(ID), {"learned-1d": 9.0}, slot=0.01)
    name = "position-embeddings/learned-1d"
    assert rows[1] == f"{name} does not fit: 9.0 GB of 10 MB per slot, not even one image at a time."


def test_batches_of_a_batch_normed_model_are_not_cut(lab: Lab):
    plan = with_trend(lab)[1]
    rows = with_room(lab, plan, dict.fromkeys(("resnet-n100", "vit-n100"), 9.0))
    assert sum("; its batch norm would see other batches if they were cut." in row for row in rows) == 1
    assert sum("micro-batch" in row for row in rows) == 1


def test_batches_across_which_attention_goes_are_not_cut(lab: Lab):
    settings = ["model.attention=batch", "model.pool=gap"]
    rows = with_room(lab, lab.plan(ID, settings), {"none": 1.0, "learned-1d": 9.0})
    assert rows[1].endswith("; its attention would see other batches if they were cut.")


def test_memory_that_nothing_tells_is_said_to_be_unknown_and_null(lab: Lab):
    model = {"family": "timm", "name": "resnet18"}
    plan = lab.plan(ID)
    strange = [
        replace(r, config=Recipe.model_validate({**r.config.model_dump(), "model": model, "measures": ()}))
        for r in plan.runs
    ]
    plan = replace(plan, runs=tuple(strange))
    room = Room(Memories("cpu"), 4 * GB)
    made = cost_plans([plan], lab.store, Told(), 1, room)
    assert "Memory: not known for 1 arm; a stored run of each will tell." in shown(made)
    run = as_json(made, None)["plans"][0]["runs"][0]
    assert (run["memory_bytes"], run["fits"], run["micro_batch_that_fits"]) == (None, None, None)


def test_memory_is_told_of_every_run_to_do_as_json(lab: Lab):
    lab.verify(ID, {"none": [640, 650, 645], "learned-1d": [740, 745, 738]}, skip=2)
    made = cost_plans([lab.plan(ID)], lab.store, Told(), 1, Room(Memories("cpu"), 4 * GB))
    document = as_json(made, None)
    assert document["total"]["slot_memory_bytes"] == 4 * GB
    runs = document["plans"][0]["runs"]
    assert [r["fits"] for r in runs if r["state"] == "finished"] == [None] * 4
    assert [(r["fits"], r["micro_batch_that_fits"]) for r in runs if r["state"] == "absent"] == [(True, None)] * 2
    assert all(0.35 * GB < r["memory_bytes"] < GB for r in runs if r["state"] == "absent")
    without = as_json(cost_plans([lab.plan(ID)], lab.store, Told(), 1), None)
    assert without["total"]["slot_memory_bytes"] is None


# --- other plans --------------------------------------------------------------------------------


def test_printed_cells_need_no_run_and_no_time(lab: Lab):
    made = cost_plans([with_literal(lab)], lab.store, Told(), 1)
    rows = shown(made)
    assert "vit/printed literal none, printed cells none" in rows
    assert "Nothing is left to run; these verdicts cost nothing." in rows


def test_a_claim_that_cannot_be_checked_here_says_why_and_is_no_verdict_for_nothing(lab: Lab):
    rows = shown(cost_plans([with_none(lab)], lab.store, Told(), 1))
    assert "vit/private INFEASIBLE paper: private data" in rows
    assert "None can be checked here." in rows
    assert not any("these verdicts" in row for row in rows)


def test_all_stored_leaves_nothing_to_run(verified: Lab):
    rows = shown(cost_plans([verified.plan(ID)], verified.store, Told(), 1), None, 60)
    assert "Nothing is left to run; these verdicts cost nothing." in rows
    assert any("6 (6 stored)" in row for row in rows)


def test_plans_over_the_budget_are_said_to_be_if_none_were_picked(lab: Lab):
    made = cost_plans([lab.plan(ID)], lab.store, Told(), 1)
    assert "Over the budget of 20 s: verify would run what fits." in shown(made, None, 20)
    assert not any("Over" in row for row in shown(made, None, 60))


# --- which fit into a budget --------------------------------------------------------------------


def test_what_fits_is_listed_cheapest_first_with_what_it_adds_and_what_is_left_out(lab: Lab):
    plans = [*with_trend(lab), with_literal(lab), with_none(lab)]
    clock = Told(known={"none": 4.0, "learned-1d": 6.0})
    made = cost_plans(plans, lab.store, clock, 1)
    chosen = picked(lab, plans, clock, 100)
    rows = shown(made, chosen, 100)
    start = rows.index("Within 1 min 40 s, the cheapest verdict first")
    assert rows[start + 3 : start + 5] == ["1 vit/printed literal nothing at once", f"2 {ID} cpu 30 s 30 s"]
    left = rows[rows.index("Does not fit") :]
    assert "vit/f4-data cpu ~2 min 0 s" in left
    assert not any("vit/private" in row for row in rows[start:])
    document = as_json(made, chosen)
    assert [(f["claim"], f["added_seconds"], f["until_seconds"]) for f in document["fits"]] == [
        ("vit/printed", 0.0, 0.0),
        (ID, 30.0, 30.0),
    ]
    assert document["left_out"] == [{"claim": "vit/f4-data", "scale": "cpu", "added_seconds": 120.0}]
    assert "fits" not in as_json(made, None)


def test_a_rough_time_is_marked_in_what_it_adds_and_in_every_sum_after_it(lab: Lab):
    plans = with_trend(lab)
    clock = Told(known=dict.fromkeys(("none", "learned-1d"), 40.0), guessed=1.0)
    rows = shown(cost_plans(plans, lab.store, clock, 1), picked(lab, plans, clock, 600), 600)
    assert "1 vit/f4-data cpu ~12 s ~12 s" in rows
    assert f"2 {ID} cpu 4 min 0 s ~4 min 12 s" in rows


def test_the_command_names_what_is_left_to_run_at_its_scale_and_within_the_budget(lab: Lab):
    plans = [*with_trend(lab), with_literal(lab)]
    clock = Told()
    made = cost_plans(plans, lab.store, clock, 1)
    rows = shown(made, picked(lab, plans, clock, 7200), 7200)
    command = f"vitrepro verify {ID} vit/f4-data --scale cpu --budget 120m"
    assert rows[-1] == f"To run them, with the other options as here: {command}"


def test_the_command_names_no_scale_where_it_would_be_another_for_some(lab: Lab):
    plans = with_trend(lab)
    lab.say(claim("vit/f4-data", "trend", TREND, experiment="training-sizes", scale="quick"))
    plans[1] = lab.plan("vit/f4-data")
    rows = shown(cost_plans(plans, lab.store, Told(), 1), picked(lab, plans, Told(), 7200), 7200)
    assert rows[-1].endswith(f"verify {ID} vit/f4-data --budget 120m")


def test_a_check_without_a_scale_does_not_keep_the_scale_of_the_others_out_of_the_command(lab: Lab):
    lab.design(counting())
    cells = {"b16": {"arm": "b16", "quantity": "depth", "tolerance": 0}}
    reported = {"unit": "layers", "cells": {"b16": 12}}
    lab.say(claim("vit/t1", "exact", {"cells": cells}, experiment="model-sizes", reported=reported))
    plans = [lab.plan(ID), lab.plan("vit/t1")]
    rows = shown(cost_plans(plans, lab.store, Told(), 1), picked(lab, plans, Told(), 7200), 7200)
    assert rows[-1].endswith(f"verify vit/t1 {ID} --scale cpu --budget 120m")
    rows = shown(cost_plans(plans[1:], lab.store, Told(), 1), picked(lab, plans[1:], Told(), 7200), 7200)
    assert rows[-1].endswith("verify vit/t1 --budget 120m")


@given(st.one_of(st.integers(1, 10**5).map(float), st.integers(1, 5000).map(lambda n: n / 10)))
def test_the_budget_of_the_command_reads_back_as_it_was_given(seconds: float):
    assert parse_budget(planned._option(seconds)) == pytest.approx(seconds)


# --- no PASS to be expected ---------------------------------------------------------------------


def doubt(lab: Lab, *settings: str, seeds: int | None = None, of: str = ID) -> str | None:
    plan = lab.plan(of, settings, seeds)
    return cannot_pass(plan.claim, plan.choice.scale, plan.runs, plan.registered_seeds)


def test_fewer_seeds_than_registered_cannot_pass(lab: Lab):
    assert doubt(lab) is None
    assert doubt(lab, seeds=3) is None
    assert doubt(lab, seeds=5) is None
    assert doubt(lab, seeds=2) == "cannot PASS: 2 of 3 registered seeds decide nothing"


def test_part_of_the_test_set_cannot_pass_but_all_of_it_can(lab: Lab):
    assert doubt(lab, "data.test_images=32") == "cannot PASS: 32 test images are part of the test set"
    experiment = lab.experiments["position-embeddings"]
    for images, found in ((797, None), (796, "cannot PASS: 796 test images are part of the test set")):
        base = {**experiment.base, "data": {"name": "digits", "test_images": images}}
        lab.design(experiment.model_dump() | {"base": base})
        assert doubt(lab) == found


def test_a_recipe_changed_by_hand_cannot_pass(lab: Lab):
    assert doubt(lab, "train.lr=0.5") == "cannot PASS: the recipe is changed by hand"
    assert doubt(lab, "train.lr=0.001") is None  # as it is registered


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"arm": "none", "metric": MEASURE, "above": 0.5}, f"{MEASURE} has no counts, so it needs three seeds"),
        (GAP | {"metric": MEASURE}, f"{MEASURE} has no counts, so it needs three seeds"),
        (GAP, "1 seed from scratch can refute and not confirm; three can"),
    ],
)
def test_one_seed_from_scratch_cannot_pass(lab: Lab, part: dict[str, Any], why: str):
    experiment = lab.experiments["position-embeddings"]
    lab.say(claim("vit/measure", "ordering", {"all": [part]}))
    assert doubt(lab, of="vit/measure") is None
    lab.design(experiment.model_dump() | {"seeds": [0]})
    assert doubt(lab, of="vit/measure") == f"cannot PASS: {why}"


def test_what_cannot_pass_is_noted_beside_the_plan_after_it_and_in_the_choice(lab: Lab):
    plans = [lab.plan(ID, seeds=1)]
    made = cost_plans(plans, lab.store, Told(), 1)
    rows = shown(made, picked(lab, plans, Told(), 60), 60)
    note = "cannot PASS: 1 of 3 registered seeds decide nothing"
    assert next(r for r in rows if r.startswith(ID)).endswith(note)
    assert any(r.startswith(f"No PASS is possible as planned: {ID}; see the notes. verify runs none") for r in rows)
    assert any(r.startswith(f"1 {ID} cpu") and r.endswith("cannot PASS") for r in rows)
    assert as_json(made, None)["plans"][0]["cannot_pass"] == note


def test_a_doubt_is_told_even_if_nothing_is_left_to_run(lab: Lab):
    lab.verify(ID, {"none": [640], "learned-1d": [740]})
    rows = shown(cost_plans([lab.plan(ID, seeds=1)], lab.store, Told(), 1))
    assert "Nothing is left to run; these verdicts cost nothing." in rows
    assert any(r.startswith(f"No PASS is possible as planned: {ID}; see the notes. verify runs none") for r in rows)


def test_a_doubt_at_one_scale_is_not_hidden_by_another_scale_of_the_claim(lab: Lab):
    at_cpu = lab.plan(ID, seeds=1)
    entry = lab.claims[ID].model_dump()["scales"]["cpu"]
    lab.say(ordering(scales={"quick": entry}))
    plans = [at_cpu, lab.plan(ID)]
    rows = shown(cost_plans(plans, lab.store, Told(), 1), picked(lab, plans, Told(), 600), 600)
    assert any(r.startswith(f"1 {ID} cpu") and r.endswith("cannot PASS") for r in rows)
    assert any(r.startswith(f"2 {ID} quick") and not r.endswith("cannot PASS") for r in rows)


def test_what_cannot_pass_does_not(lab: Lab):
    for settings, seeds in (([], 1), (["train.lr=0.5"], 3)):
        assert doubt(lab, *settings, seeds=seeds) is not None
        lab.verify(ID, {"none": [100] * seeds, "learned-1d": [790] * seeds}, settings=settings)
        ((entry,), _) = lab.store.verdicts()
        assert entry.outcome == "INCONCLUSIVE"


def test_as_json_names_every_run_with_its_state_and_what_was_changed(lab: Lab):
    plan = lab.plan(ID, ["train.lr=0.5"])
    (document,) = as_json(cost_plans([plan], lab.store, Told(), 1), None)["plans"]
    assert [r["run_id"] for r in document["runs"]] == [r.id for r in plan.runs]
    assert {r["state"] for r in document["runs"]} == {"absent"}
    assert document["deviations"] == ["train.lr 0.5, registered 0.001"]
    assert document["seconds_are_rough"] is True
    assert document["to_run"] == 6


def test_a_gap_is_given_from_which_on_a_pass_has_a_power_of_80_percent(lab: Lab):
    rows = shown(cost_plans([lab.plan(ID)], lab.store, Told(), 1))
    (power,) = as_json(cost_plans([lab.plan(ID)], lab.store, Told(), 1), None)["plans"][0]["power"]
    assert power["power"] is None
    assert power["assumed"] is True
    steady, unsteady = (power["detectable"][world] for world in ("steady", "unsteady"))
    told = f"80% power to PASS from a gap of {steady:.2f} to {unsteady:.2f} on"
    assert told in next(r for r in rows if r.startswith(ID))
    assert steady < unsteady
    assert any(r.startswith("Gaps are for accuracies near 50%") for r in rows)


def test_stored_runs_tell_how_large_a_gap_must_be(lab: Lab):
    def detectable() -> float:
        (power,) = as_json(cost_plans([lab.plan(ID)], lab.store, Told(), 1), None)["plans"][0]["power"]
        assert power["assumed"] is not known
        return float(power["detectable"]["unsteady"])

    known = False
    before = detectable()
    lab.verify(ID, {"none": [770, 771, 772], "learned-1d": [780, 781, 782]})
    known = True
    assert detectable() < 0.9 * before  # less chance near 100%


def test_an_equality_has_its_power_and_what_it_would_tell_in_both_worlds(lab: Lab):
    lab.say(claim("vit/same", "equivalence", {"equal": ["none", "learned-1d"], "within": 14.0}))
    made = cost_plans([lab.plan("vit/same")], lab.store, Told(), 1)
    (row,) = (r for r in shown(made) if r.startswith("vit/same"))
    (told,) = as_json(made, None)["plans"][0]["power"]
    steady, unsteady = (f"{100 * told['power'][world]:.0f}%" for world in ("steady", "unsteady"))
    least, most = (f"{told['detectable'][world]:.2f}" for world in ("steady", "unsteady"))
    assert (
        f"{unsteady} to {steady} power to PASS if equal, 80% to FAIL from a difference of {least} to {most} on" in row
    )


@pytest.mark.parametrize(("within", "held"), [(2.0, True), (4.2, True), (7.0, False)])
def test_what_unsteady_seeds_cannot_bring_to_pass_is_held_back_by_verify(lab: Lab, within: float, held: bool):
    """Once runs have shown how accurate the arms are; steady seeds would have had some power at 4.2 points."""
    lab.say(claim("vit/same", "equivalence", {"equal": ["none", "learned-1d"], "within": within}))
    places = Places(lab.store, None, lab.store.root)

    def held_back(**change: Any) -> str | None:
        request = session.Request(scales=("cpu",), **{"allow_inconclusive": False, **change})
        how: dict[str, Any] = {"resolve": lambda _: "fp32", "timings": Told().timings}
        (plan,) = session.make_plans(lab.registry, [lab.claims["vit/same"]], places, request, **how)
        return plan.held_back

    assert held_back() is None
    lab.verify("vit/same", {"none": [700, 701, 702], "learned-1d": [700, 703, 704]}, skip=1)
    (told,) = session.outlooks(lab.plan("vit/same"), lab.store)
    assert told.power is not None
    assert (told.power[1] < 0.05) == held
    assert (told.power[0] > 0.2) == (within > 4)
    assert ("has an interval of ±" in str(held_back())) == held
    assert held_back(allow_inconclusive=True) is None
    lab.verify("vit/same", {"none": [700, 701, 702], "learned-1d": [700, 703, 704]})
    assert held_back() is None  # nothing is left to run
    assert (held_back(fresh=True) is not None) == held


@pytest.mark.parametrize(("scale", "cells"), [("paper", 4)])
def test_the_joint_power_of_all_cells_stands_beside_the_hardest(scale: str, cells: int, tmp_path: Path):
    arguments = (
        "plan",
        "re-vit/vit-l16-i21k",
        "--scale",
        scale,
        "--peak-tflops",
        "100",
        "--store",
        str(tmp_path / "store"),
    )
    text, document = (CliRunner().invoke(app, [*arguments, *more]).stdout for more in ((), ("--json",)))
    (plan,) = json.loads(document)["plans"]
    powers = [(o["power"]["unsteady"], o["power"]["steady"], o["label"]) for o in plan["power"]]
    whole = [math.prod(p[i] for p in powers) for i in (0, 1)]
    assert len(powers) == cells
    assert [plan["joint_power"][world] for world in ("unsteady", "steady")] == pytest.approx(whole)
    unsteady, steady = ("<0.1%" if p < 0.001 else f"{100 * p:.0f}%" for p in whole)
    rows = " ".join(text.split())
    assert f"(hardest of {cells}); all {cells} together: {unsteady} to {steady} power to PASS" in rows
    assert f" {min(powers)[2]}: {100 * min(powers)[0]:.0f}% to " in rows
