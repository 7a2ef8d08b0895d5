from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_cases import PAPER, SOURCE, claim, entry, value

from vitrepro import claims
from vitrepro.report.questions import QUESTIONS, answers
from vitrepro.spec import Claim, Paper, Work
from vitrepro.store import VerdictEntry

UNKNOWN = f"Nothing is recorded of it for {SOURCE}."
CODE, WHOSE, FRAMEWORK, BASELINES, SETTINGS, RANDOMNESS, DATA, OBTAINED = range(8)


def answer(number: int, of: Claim, paper: Paper | None = PAPER, *verdicts: VerdictEntry) -> str:
    return answers(of, paper, verdicts)[number][1]


def needing(**needs: Any) -> Claim:
    return claim(needs=needs)


names = st.lists(st.sampled_from(["flowers", "secret", "small", "large", "decay", "unheard-of"]), max_size=3)
any_needs = st.fixed_dictionaries(
    {
        "work": st.lists(st.sampled_from(get_args(Work)), max_size=3, unique=True),
        "data": names,
        "weights": names,
        "baselines": names,
        "recipe": st.sampled_from(["", "Table 3"]),
        "unstated": st.lists(st.just("the seeds"), max_size=2),
        "differences": names,
    }
)


@given(any_needs, st.booleans())
def test_eight_questions_have_eight_answers_whatever_is_recorded(needs: dict[str, Any], known: bool):
    told = answers(needing(**needs), PAPER if known else None, [])
    assert [question for question, _ in told] == list(QUESTIONS)
    assert len(told) == 8
    for _, text in told:
        assert text.endswith(".")
        assert ".." not in text
        assert "\n" not in text


def test_every_claim_that_ships_has_eight_answers_and_a_known_source():
    registry = claims.load()
    assert registry.claims
    for each in registry.claims.values():
        told = answers(each, registry.papers[each.source.paper], [])
        assert len(told) == 8
        for question, text in told:
            assert text.endswith("."), (each.id, question)
            assert ".." not in text, (each.id, question)


def test_nothing_recorded_is_said_to_be_so_and_never_guessed():
    told = [text for _, text in answers(claim(), None, [])]
    assert told[BASELINES] == "Not recorded."
    assert told[OBTAINED] == "No other value is recorded, and nothing was run here yet."
    rest = [text for i, text in enumerate(told) if i not in (BASELINES, OBTAINED)]
    assert rest == [UNKNOWN] * 6


# --- one by one ---------------------------------------------------------------------------------


def test_code_is_told_for_each_kind_of_work_and_by_whom():
    of = needing(work=["training", "evaluation", "timing"])
    assert answer(CODE, of) == "training: yes, by the authors; evaluation: yes, by others only; timing: no."


def test_arithmetic_on_printed_numbers_needs_no_code():
    assert answer(CODE, needing(work=["arithmetic"])) == "None is needed: the statement is checked on printed numbers."
    assert answer(WHOSE, needing(work=["arithmetic"])) == "None is needed."
    assert "training: yes" in answer(CODE, needing(work=["arithmetic", "training"]))


def test_only_implementations_of_the_work_at_hand_are_counted():
    assert answer(WHOSE, needing(work=["training"])) == "2: lab/code (authors), other/port (others)."
    assert answer(WHOSE, needing(work=["analysis"])) == "1: third/probe (others)."
    assert answer(WHOSE, needing(work=["timing"])) == "No public implementation of this part is known."


def test_a_source_whose_code_was_not_published_is_told_from_one_of_which_nothing_is_recorded():
    closed = PAPER.model_copy(update={"code": ()})
    assert answer(CODE, needing(work=["training"]), closed) == "No public code is known."
    assert answer(WHOSE, needing(work=["training"]), closed) == "No public implementation of this part is known."
    assert answer(FRAMEWORK, needing(work=["training"]), closed) == "It was made in JAX."


def test_frameworks_are_those_of_the_source_and_of_the_code_in_use():
    used = "In use: JAX (lab/code), PyTorch (other/port)."
    assert answer(FRAMEWORK, needing(work=["training"])) == f"It was made in JAX. {used}"
    assert answer(FRAMEWORK, needing(work=["timing"])) == "It was made in JAX."


def test_a_baseline_is_released_under_its_names_or_never_was():
    of = needing(baselines=["small", "large", "unheard-of"])
    shown = "the small model: small.v1, small.v2; the large model: never released; unheard-of: not recorded."
    assert answer(BASELINES, of) == shown


def test_hyper_parameters_are_given_somewhere_or_guessed_and_where_the_code_departs_is_named():
    of = needing(work=["training"], recipe="Table 3", unstated=["the seeds", "the crop"], differences=["decay"])
    assert answer(SETTINGS, of) == (
        "Given in Table 3. Not said: the seeds; the crop. "
        "The released code differs or fills in: decay: It is 0.1 / 0.1 times the rate."
    )
    assert answer(SETTINGS, needing(work=["training"])) == "Not recorded where they stand."


def test_what_is_counted_needs_no_hyper_parameters_and_is_not_random():
    of = needing(work=["model", "arithmetic"], recipe="Table 1")
    assert answer(SETTINGS, of) == "Nothing is trained for it (Table 1)."
    assert answer(RANDOMNESS, of) == "Nothing: it is counted or computed."
    assert answer(RANDOMNESS, needing(work=["model", "training"])) == "Nothing is said of seeds."


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (
            {"a": {"value": 90, "sd": 0.1, "runs": 3}, "b": {"value": 80, "runs": 5}},
            "for 3, 5 runs, 1 with a deviation",
        ),
        ({"a": {"value": 90, "runs": 1}}, "The reported values stand for 1 run."),
        ({"a": 90, "b": 80}, "The source does not say how many runs stand behind its values."),
        ({"a": {"value": 90, "sd": 0.1}}, "does not say how many runs stand behind its values, 1 with a deviation."),
    ],
)
def test_the_runs_behind_reported_values_are_told_or_said_to_be_unknown(cells: dict[str, Any], told: str):
    of = value("j/value", cells, needs={"work": ["training"]})
    assert answer(RANDOMNESS, of).startswith("Nothing is said of seeds. ")
    assert told in answer(RANDOMNESS, of)


def test_data_is_told_with_its_access_and_what_is_noted_of_it():
    of = needing(work=["training"], data=["flowers", "secret", "unheard-of"])
    assert answer(DATA, of) == "Flowers-102: public (All are resized); The large set: private; unheard-of."
    assert answer(DATA, needing(work=["model"])) == "It needs no data."


def test_results_of_others_and_stored_verdicts_answer_the_last_question():
    others = [{"by": "lab/again", "cells": {"a": [91.0], "b": [81.0]}}, {"by": "lab/twice", "cells": {"a": [92.0]}}]
    of = value("j/value", {"a": 90, "b": 80}, elsewhere=others)
    told = answer(OBTAINED, of, PAPER, entry(of, "paper", "FAIL"))
    assert told == "2 values of others (lab/again); 1 value of others (lab/twice); here at scale paper: FAIL."
    ours = of.model_copy(update={"by": "us"})
    assert answer(OBTAINED, ours, PAPER, entry(of, "paper", "FAIL")).endswith("here at scale paper: does not fit.")
