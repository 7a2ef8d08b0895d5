from __future__ import annotations

from typing import Any

from fake_store import Lab, ordering, position_embeddings
from fake_store import claim as checked
from paper_cases import claim, entry, lines, literal, printed, registry, value

from vitrepro.claims import Registry
from vitrepro.plan import choose_scale
from vitrepro.report.protocol import SETTINGS
from vitrepro.report.questions import QUESTIONS
from vitrepro.report.show import describe
from vitrepro.spec import Claim
from vitrepro.store import VerdictEntry

ID = "vit/t8-none-worse"


def shown(of: Claim, known: Registry | None = None, *stored: VerdictEntry, only_cell: str | None = None) -> list[str]:
    known = known or registry(of)
    choice = choose_scale(of, None, why_not=lambda *_: None)
    return lines(printed(lambda out: describe(out, of, known, choice, stored, only_cell)))


def of_lab(lab: Lab, claim_id: str = ID) -> list[str]:
    stored = [e for e in lab.store.verdicts()[0] if e.claim_id == claim_id]
    return shown(lab.claims[claim_id], lab.registry, *stored)


# --- the claim ----------------------------------------------------------------------------------


def test_the_claim_comes_first_with_its_place_its_file_and_its_notes():
    of = claim(version=2, notes="Read with care.")
    told = shown(of, registry(of, files={of.id: "j/claims.yaml"}))
    assert told[:4] == [
        "j/one (ordering, version 2, j/claims.yaml)",
        "One is better than the other.",
        "Source: journal:12, Table 1",
        "Note: Read with care.",
    ]


def test_reported_cells_and_those_of_others_stand_under_their_names_with_all_their_digits():
    cells = {"a": {"value": 90.2, "sd": 0.5, "decimals": 2, "runs": 3, "n": 10_000}, "b": 99.05151757188499}
    others = [{"by": "lab/again", "note": "other seeds", "cells": {"a": [90.0, 91.0], "b": [99.0515175718]}}]
    told = shown(value("j/v", cells, elsewhere=others))
    assert "a 90.20 0.50 3 10,000" in told
    assert "b 99.05151757188499" in told
    assert "Elsewhere: lab/again: a 90 / 91, b 99.0515175718. other seeds" in told


def test_a_cell_that_was_asked_for_is_the_only_one_shown():
    others = [
        {"by": "lab/again", "cells": {"a": [91.0], "b": [81.0]}},
        {"by": "lab/twice", "cells": {"b": [82.0]}},
    ]
    told = shown(value("j/v", {"a": 90, "b": 80}, elsewhere=others), only_cell="a")
    assert "a 90" in told
    assert "b 80" not in told
    assert "Elsewhere: lab/again: a 91" in told
    assert not any("lab/twice" in line for line in told if line.startswith("Elsewhere"))


# --- the eight questions ------------------------------------------------------------------------


def test_all_eight_questions_are_asked_in_order_and_answered():
    told = shown(claim(needs={"work": ["training"], "data": ["flowers"], "recipe": "Table 3"}))
    start = told.index("The eight questions of a reproducibility checklist")
    asked = told[start + 1 : start + 17]
    assert asked[::2] == [f"{i}. {question}" for i, question in enumerate(QUESTIONS, 1)]
    assert all(answer.endswith(".") for answer in asked[1::2])
    assert asked[1] == "training: yes, by the authors."
    assert asked[9] == "Given in Table 3."
    assert asked[13] == "Flowers-102: public (All are resized)."


def test_the_last_question_knows_the_stored_verdicts(verified: Lab):
    told = of_lab(verified)
    assert told[told.index(f"8. {QUESTIONS[7]}") + 1] == "here at scale cpu: PASS."


# --- how it is checked --------------------------------------------------------------------------


def test_the_protocol_of_the_source_stands_beside_ours(lab: Lab):
    lab.say(ordering(needs={"work": ["pre-training"], "recipe": "Table 3"}))
    told = of_lab(lab)
    assert "Protocol, as reported and as run here" in told
    start = told.index("setting as reported cpu (proxy)")
    assert "work pre-training training" in told[start:]
    assert any(line.startswith("optimisation Table 3 adamw, lr 0.001") for line in told[start:])
    names = [line.split()[0] for line in told[start + 2 :]]
    assert [n for n in names if n in SETTINGS] == [s for s in SETTINGS if s in names]


def test_a_scale_names_its_experiment_what_it_expects_arms_seeds_and_deviations(lab: Lab):
    levels = {name: {"model": {"pos_embed": "none"}} for name in ("none", "learned-1d", "unused")}
    lab.design(position_embeddings(factors={"posemb": levels}, deviations=["AdamW instead of Adam"]))
    told = of_lab(lab)
    start = told.index("Scale cpu: proxy, experiment position-embeddings: Position embeddings on digits")
    assert told[start + 1 : start + 7] == [
        "expect all:",
        "greater learned-1d, than none, metric top1, by 1.0",
        "arms: none, learned-1d, seeds 0, 1, 2",
        "differs from the source: digits instead of ImageNet",
        "differs from the source: 100 steps instead of 100,000",
        "differs from the source: AdamW instead of Adam",
    ]
    assert told[start + 7] == "Feasible here: at scale cpu"


def test_every_form_of_an_expectation_is_shown_with_its_numbers(lab: Lab):
    numbers = {"reported": {"unit": "%", "cells": {"none": 80.5}}}
    lab.say(checked("vit/v", "value", {"cells": {"none": {"arm": "none", "margin": 1.5}}}, **numbers))
    lab.say(checked("vit/e", "equivalence", {"equal": ["none", "learned-1d"], "within": 1.25}))
    assert "none: arm none, metric top1, margin 1.5, direction two_sided, same_weights False" in of_lab(lab, "vit/v")
    told = of_lab(lab, "vit/e")
    assert "expect equal: none, learned-1d" in told
    assert "expect within: 1.25" in told


def test_an_infeasible_scale_has_its_reason_and_the_claim_is_not_feasible():
    told = shown(claim())
    assert "Scale paper: infeasible: the data is private" in told
    assert "Feasible here: no (paper: the data is private)" in told


def test_a_check_of_printed_cells_is_shown_comparison_by_comparison():
    each = {"set": ["c", "d"]}
    expect = {"checks": {"more": {"that": "@a-{set} > @b-{set}", "each": each}, "sum": {"that": "@a-c + @a-d == 150"}}}
    cells = {"a-c": 90.0, "b-c": 80.0, "a-d": 60.0, "b-d": 70.0}
    scales: dict[str, Any] = {"literal": {"expect": expect}}
    told = shown(literal(reported={"unit": "%", "decimals": 1, "cells": cells}, scales=scales))
    start = told.index("Scale literal: the statement against printed numbers: FAIL")
    assert told[start + 1 : start + 4] == [
        "PASS: more-c: 90 > 80 holds (a-c 90, b-c 80)",
        "FAIL: more-d: 60 > 70 does not hold (a-d 60, b-d 70)",
        "PASS: sum: 150 == 150 holds (a-c 90, a-d 60)",
    ]
    assert "Feasible here: at scale literal" in told
    assert not any(line.startswith("Protocol") for line in told)


# --- verdicts -----------------------------------------------------------------------------------


def test_without_a_verdict_the_command_that_makes_one_is_named():
    assert shown(claim())[-1] == "No verdict is stored; run: vitrepro verify j/one"


def test_stored_verdicts_are_shown_with_their_reasons_and_what_changed_since():
    was, now = literal(), literal(reported={"unit": "% top-1", "decimals": 1, "cells": {"a": 91.0, "b": 80.0}})
    told = shown(now, None, entry(was, "literal", "FAIL"))
    at = told.index("Verdict at scale literal, 2026-01-02T03:04:05+00:00: FAIL: so it came out")
    assert told[at + 1 :] == ["changed: reported.cells.a.value changed from 90 to 91"]
    assert not any(line.startswith("No verdict") for line in told)
    same = shown(now, None, entry(now, "literal", "PASS"))
    assert same[-1] == "Verdict at scale literal, 2026-01-02T03:04:05+00:00: PASS: so it came out"


def test_a_verdict_at_a_scale_that_is_gone_is_said_to_be_so():
    was = claim(scales={"gpu": {"infeasible": "x"}, "paper": {"infeasible": "y"}})
    told = shown(claim(), None, entry(was, "gpu", "PASS"))
    assert told[-1] == "changed: the claim has no check at this scale now"
