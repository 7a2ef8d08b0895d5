from __future__ import annotations

import dataclasses

import pytest
from verdict_cases import claim, counted, equivalence, judged, ordering, right, runs, value

from vitrepro.judge.finding import Finding, Outcome
from vitrepro.report import explain, words
from vitrepro.report.explain import picture
from vitrepro.report.words import strength


def accuracy(*percents: float, margin: float = 0.5) -> Finding:
    (found,) = judged(value(80.0, margin), runs({"ours": right(percents, 10_000)})).findings
    return found


def gap(high: float, low: float) -> Finding:
    arms = {"a": right([high - 0.4, high, high + 0.4], who=1), "b": right([low - 0.4, low, low + 0.4], who=2)}
    return judged(ordering(by=1.0), runs(arms)).findings[0]


def test_a_decision_is_two_sentences_with_its_numbers():
    found = accuracy(80.0, 80.1, 80.2)
    assert words.measures(found) == "top1: ours 80.10 (79.85 to 80.35, 3 seeds) lies 0.10 above the reported 80."
    assert words.decides(found) == (
        "The 90% interval of the difference, -0.24 to +0.44 (t over seeds), is inside the margin of 0.5, so PASS."
    )
    assert words.because(found) == f"{words.measures(found)} {words.decides(found)}"


def test_one_seed_is_said_to_cover_at_least_its_level():
    assert "(binomial bound, so at least 90%)" in words.decides(accuracy(80.0, margin=2.0))


def test_a_value_tells_its_power_and_the_difference_it_would_have_told():
    found = accuracy(80.0, 80.1, 80.2)
    told = strength(found)
    assert told is not None
    assert "if ours were equal to the reported number it would PASS in " in told
    assert f"80% would FAIL from a true difference of {found.detectable:.2f} on" in told


def test_a_gap_tells_from_where_on_it_passes():
    found = gap(82, 70)
    assert strength(found) == (
        f"With this spread, 80% of repetitions would PASS from a true value of {found.detectable:.2f} or more."
    )


def test_where_no_possible_difference_could_be_told_that_is_said_and_the_power_stays():
    told = strength(judged(value(80.0, 40), {"ours": right([60, 80, 95], 100)}).findings[0])
    assert told is not None
    assert told.startswith("With this spread, if ours were equal to the reported number it would PASS in ")
    assert told.endswith(" and no difference that accuracies can have would have been told in 80%.")


def test_a_counted_quantity_has_no_chance_to_tell_of():
    of = claim("exact", {"cells": {"p": {"arm": "m", "quantity": "depth", "tolerance": 0.5}}}, {"p": 12})
    (found,) = judged(of, counted("m", {"depth": 12.0})).findings
    assert strength(found) is None


def column(found: Finding, mark: str, width: int = 61) -> int:
    line, _ = picture(found, width)
    assert line.count(mark) == 1, line
    return line.index(mark)


def test_the_picture_has_interval_margin_and_reported_value_where_they_are():
    found = accuracy(80.0, 80.1, 80.2)
    line, labels = picture(found)
    assert len(line) == explain.WIDTH
    marks = [line.index(mark) for mark in "├[┃●]┤"]
    assert marks == sorted(marks)
    assert set(line[: marks[0]]) == {"·"}
    assert labels.split() == ["-0.5", "+0", "+0.5"]
    scale = (column(found, "┤") - column(found, "├")) / 1.0
    assert column(found, "●") - column(found, "┃") == pytest.approx(0.1 * scale, abs=1)
    assert column(found, "]") - column(found, "[") == pytest.approx(0.68 * scale, abs=2)


def test_a_gap_is_accepted_without_end_and_far_from_zero():
    line, labels = picture(gap(82, 70))
    assert line.endswith("›")
    assert line.index("┃") < line.index("├") < line.index("[") < line.index("●") < line.index("]")
    assert "+1" in labels


def test_an_interval_outside_the_margin_lies_beside_it():
    found = accuracy(83.0, 83.1, 83.2)
    assert found.outcome is Outcome.EXCEEDS
    assert column(found, "[") > column(found, "┤")


def test_a_counted_quantity_is_a_point_within_its_tolerance():
    of = claim("exact", {"cells": {"p": {"arm": "m", "quantity": "depth", "tolerance": 2}}}, {"p": 12})
    (found,) = judged(of, counted("m", {"depth": 13.0})).findings
    line, _ = picture(found)
    assert line.index("├") < line.index("┃") < line.index("●") < line.index("┤")
    assert "[" not in line


def test_printed_numbers_alone_have_no_picture():
    found = dataclasses.replace(accuracy(80.0), form="literal", known=Outcome.PASS)
    assert picture(found) == ()


def test_without_unicode_the_picture_is_ascii():
    line, labels = picture(accuracy(80.0, 80.1, 80.2), unicode=False)
    assert (line + labels).isascii()
    assert "o" in line
    assert explain.ascii_only(explain.KEY).isascii()


def test_equal_arms_have_zero_in_the_middle_of_the_margin():
    arms = {"a": right([80, 81, 80.5], who=1), "b": right([80.0, 79.7, 80.3], who=2)}
    found = judged(equivalence(), runs(arms)).findings[0]
    assert column(found, "┃") * 2 == pytest.approx(column(found, "├") + column(found, "┤"), abs=1)
