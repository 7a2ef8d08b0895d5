"""What a row of a table of verdicts says of the number that a claim is held against."""

from __future__ import annotations

from typing import Any

import pytest
from verdict_cases import claim, counted, judged

from vitrepro.report.rows import margin_text, reported_text
from vitrepro.report.words import reason
from vitrepro.spec import Claim


def of_depth(by: str = "source", **check: Any) -> Claim:
    made = claim("exact", {"cells": {"c": {"arm": "b16", "quantity": "depth", "tolerance": 0, **check}}}, {"c": 12})
    assert made.reported
    return made.model_copy(update={"reported": made.reported.model_copy(update={"by": by})})


@pytest.mark.parametrize(
    ("check", "margin"),
    [
        ({}, "none"),
        ({"tolerance": 0.5}, "± 0.5"),
        ({"direction": "at_most"}, "at most"),
        ({"direction": "at_least", "tolerance": 0.5}, "at least, - 0.5"),
    ],
)
def test_the_printed_number_stands_as_printed_and_what_is_asked_of_it_beside_it(check: dict[str, Any], margin: str):
    asked = of_depth(**check)
    (finding,) = judged(asked, counted("b16", {"depth": 12})).findings
    assert (reported_text(asked, finding), margin_text(finding)) == ("12", margin)


def test_a_number_of_ours_is_called_so_and_never_reported():
    asked = of_depth("us")
    verdict = judged(asked, counted("b16", {"depth": 12}))
    assert reported_text(asked, verdict.findings[0]) == "ours: 12"
    assert "expected 12" in reason(verdict)
    assert "reported" not in reason(verdict)


def test_a_question_of_ours_without_a_number_is_not_said_to_be_reported_in_words():
    asked = claim("ordering", {"all": [{"greater": "a", "than": "b"}]})
    assert reported_text(asked, None) == "in words"
    assert reported_text(asked.model_copy(update={"by": "us"}), None) == "our question"
