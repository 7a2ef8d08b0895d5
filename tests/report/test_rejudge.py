from __future__ import annotations

import subprocess
import sys
import time

import pytest
from fake_store import Lab, claim, counting, ordering, position_embeddings

from vitrepro.judge.finding import Outcome
from vitrepro.judge.rejudge import Judged, rejudge
from vitrepro.report import words

ID = "vit/t8-none-worse"


def only(lab: Lab) -> Judged:
    (judged,) = rejudge(lab.registry, lab.store)
    return judged


def outcome(judged: Judged) -> Outcome:
    assert judged.verdict is not None
    return judged.verdict.outcome


def test_an_unchanged_claim_is_judged_as_it_was_and_nothing_has_changed(verified: Lab):
    judged = only(verified)
    assert outcome(judged) is Outcome.PASS
    assert judged.changes == ()


def test_a_margin_raised_after_the_runs_is_named_and_judges_anew(verified: Lab):
    verified.say(ordering(by=18.0))
    judged = only(verified)
    assert outcome(judged) is Outcome.FAIL
    assert "expect.all.0.by changed from 1 to 18" in judged.changes
    assert any(c.startswith("the outcome was PASS when last judged") for c in judged.changes)


def test_a_reported_value_edited_after_the_runs_is_named(verified: Lab):
    edited = {"unit": "% top-1, 5-shot linear, ImageNet", "cells": {"none": 60.0, "learned-1d": 64.206}}
    verified.say(ordering(reported=edited))
    assert only(verified).changes == ("reported.cells.none.value changed from 61.382 to 60",)


def test_a_new_wording_is_a_change_of_the_file_only(verified: Lab):
    verified.say(ordering(statement="A ViT needs position embeddings."))
    assert only(verified).changes == (
        "the claim file changed, but neither what is expected at this scale nor what is reported",
    )


def test_a_claim_that_is_gone_is_listed_and_not_judged(verified: Lab):
    verified.claims.clear()
    judged = only(verified)
    assert judged.verdict is None
    assert judged.changes == ("the claim is no longer in the claim files",)


def test_a_scale_that_is_gone_is_listed_and_not_judged(verified: Lab):
    verified.say(ordering(scale="gpu"))
    judged = only(verified)
    assert judged.verdict is None
    assert judged.changes == ("the claim no longer has a check at scale cpu (it has gpu)",)


def test_a_scale_declared_infeasible_since_is_infeasible(verified: Lab):
    verified.say(ordering() | {"scales": {"cpu": {"infeasible": "the data was withdrawn"}}})
    judged = only(verified)
    assert outcome(judged) is Outcome.INFEASIBLE
    assert "infeasible was added: the data was withdrawn" in judged.changes


def test_an_arm_the_claim_needs_now_but_never_ran_is_not_run(verified: Lab):
    levels = {"none": {"pos_embed": "none"}, "learned-1d": {}, "relative": {"pos_embed": "relative"}}
    verified.design(position_embeddings(factors={"posemb": {k: {"model": v} for k, v in levels.items()}}))
    expect = {"all": [{"greater": "relative", "than": "none"}]}
    verified.say(claim(ID, "ordering", expect))
    judged = only(verified)
    assert outcome(judged) is Outcome.NOT_RUN
    assert "none was planned of relative" in words.reason(judged.verdict)


def test_a_quantity_the_claim_needs_now_but_never_counted_is_not_run(lab: Lab):
    lab.design(counting())
    reported = {"unit": "layers", "cells": {"b16": 12}}

    def say(quantity: str) -> None:
        expect = {"cells": {"b16": {"arm": "b16", "quantity": quantity, "tolerance": 0}}}
        lab.say(claim("vit/t1-depth", "exact", expect, experiment="model-sizes", reported=reported))

    say("depth")
    lab.verify("vit/t1-depth", counted={"b16": {"depth": 12}})
    say("parameters_m")
    judged = only(lab)
    assert outcome(judged) is Outcome.NOT_RUN
    assert "parameters_m" in words.reason(judged.verdict)


def test_runs_of_an_edited_recipe_decide_nothing_and_the_setting_is_named(verified: Lab):
    base = {**position_embeddings()["base"], "train": {"steps": 5_000, "batch_size": 32, "lr": 0.001}}
    verified.design(position_embeddings(base=base))
    judged = only(verified)
    assert outcome(judged) is Outcome.INCONCLUSIVE
    assert "it would have been PASS" in words.reason(judged.verdict)
    assert "runs of an earlier recipe" in words.qualifiers(judged.verdict)
    assert "experiment position-embeddings, all arms: train.steps changed from 100 to 5000" in judged.changes


def test_another_title_changes_nothing_and_more_registered_seeds_ask_for_them(verified: Lab):
    verified.design(position_embeddings(title="Another title"))
    assert outcome(only(verified)) is Outcome.PASS
    verified.design(position_embeddings(seeds=[0, 1, 2, 3, 4]))
    judged = only(verified)
    assert outcome(judged) is Outcome.INCONCLUSIVE
    assert judged.changes[0] == "registered seeds changed from 3 to 5"
    assert words.qualifiers(judged.verdict) == ("3 of 5 seeds",)


def test_registering_fewer_seeds_afterwards_does_not_hide_those_left_out(lab: Lab):
    lab.design(position_embeddings(seeds=[0, 1, 2, 3, 4]))
    lab.verify(ID, {"none": [640, 650, 645], "learned-1d": [740, 745, 738]})
    lab.design(position_embeddings())
    assert words.qualifiers(only(lab).verdict) == ("3 of 5 seeds",)


def test_what_was_set_by_hand_is_no_change_of_the_file(lab: Lab):
    lab.verify(ID, {"none": [640] * 3, "learned-1d": [740] * 3}, settings=["train.epochs=2", "model.depth=1"])
    judged = only(lab)
    assert judged.changes == ()
    assert "runs of an earlier recipe" not in words.qualifiers(judged.verdict)


def test_a_damaged_record_is_an_error_of_its_claim_and_no_other(verified: Lab):
    verified.design(counting())
    expect = {"cells": {"b16": {"arm": "b16", "quantity": "depth", "tolerance": 0}}}
    reported = {"unit": "layers", "cells": {"b16": 12}}
    verified.say(claim("vit/t1-depth", "exact", expect, experiment="model-sizes", reported=reported))
    verified.verify("vit/t1-depth", counted={"b16": {"depth": 12}})
    run_id = verified.plan(ID).runs[0].id
    (verified.store.run_dir(run_id) / "record.json").write_text("{")
    exact, damaged = rejudge(verified.registry, verified.store)
    assert outcome(exact) is Outcome.PASS
    assert outcome(damaged) is Outcome.ERROR


def test_verdicts_come_by_claim_and_scale(verified: Lab):
    verified.say(ordering(id="a/first"))
    verified.verify("a/first", {"none": [640] * 3, "learned-1d": [740] * 3})
    assert [j.key for j in rejudge(verified.registry, verified.store)] == ["a/first@cpu", f"{ID}@cpu"]


@pytest.mark.parametrize("module", ["vitrepro.judge.rejudge", "vitrepro.report.markdown", "vitrepro.report.plots"])
def test_reports_need_neither_torch_nor_matplotlib_to_be_imported(module: str):
    code = f"import {module}, sys; print([m for m in ('torch', 'matplotlib', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_three_hundred_stored_runs_are_judged_in_a_fraction_of_a_second_and_without_torch(lab: Lab):
    """Ten thousand take two seconds where nothing else runs; here five times as long is allowed."""
    for i in range(30):
        base = {
            **lab.experiments["position-embeddings"].base,
            "train": {"steps": 100 + i, "batch_size": 32, "lr": 0.001},
        }
        lab.design(position_embeddings(id=f"e{i}", base=base, seeds=list(range(5))))
        entry = lab.claims["vit/t8-none-worse"].model_dump()["scales"]["cpu"] | {"experiment": f"e{i}"}
        lab.say(ordering(id=f"vit/c{i}", scales={"cpu": entry}))
        lab.verify(f"vit/c{i}", {"none": range(640, 645), "learned-1d": range(740, 745)})
    rejudge(lab.registry, lab.store)  # what is imported on the way is not counted
    began = time.process_time()
    judged = rejudge(lab.registry, lab.store)
    assert time.process_time() - began < 300 * 1e-3
    assert {j.verdict.outcome for j in judged if j.verdict} == {Outcome.PASS}
    assert sum(len(j.measured) for j in judged) == 300
