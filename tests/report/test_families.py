from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from statsmodels.stats.multitest import multipletests
from verdict_cases import equivalence, judged, ordering, right, trained, value

from vitrepro.judge.correction import adjusted, groups
from vitrepro.judge.finding import Outcome, note
from vitrepro.judge.verdict import Verdict
from vitrepro.report.families import sentences
from vitrepro.report.words import p_text
from vitrepro.spec import Claim

Pair = tuple[Claim, Verdict]


def pair(high: float, low: float, paper: str = "a paper", **change: Any) -> Pair:
    arms = {"a": right([high - 0.4, high, high + 0.4], who=1), "b": right([low - 0.4, low, low + 0.4], who=2)}
    of = ordering()
    source = of.source.model_copy(update={"paper": paper})
    return of.model_copy(update={"source": source}), judged(of, arms, **change)


def test_within_a_paper_p_values_of_pass_are_adjusted_as_statsmodels_does():
    family = [pair(82, low) for low in (70, 77.9, 78.6, 81.9)]
    own = [v.p for _, v in family]
    expected = multipletests(own, method="holm")[1]
    found = adjusted(family)
    for (_, v), a, p in zip(family, found, expected, strict=True):
        if v.outcome is not Outcome.FAIL:
            assert a.holm == pytest.approx(p)
    assert {v.outcome for _, v in family} >= {Outcome.PASS, Outcome.INCONCLUSIVE}


def test_another_paper_is_another_family():
    alone = adjusted([pair(82, 78)])
    other = adjusted([pair(82, 78), *(pair(82, 78, paper="another") for _ in range(5))])
    assert other[0] == alone[0]
    assert (other[1].holm or 0) > (other[0].holm or 0)


def ask(pair: Pair) -> Pair:
    """The same, asked by us."""
    return pair[0].model_copy(update={"by": "us"}), replace(pair[1], ours=True)


def test_questions_of_ours_are_a_family_of_their_own_and_named_so():
    """How many things we ask of a source must not weaken what is found about its own claims."""
    stated = [pair(82, 70), pair(82, 70.5)]
    asked = [ask(pair(82, 70)), ask(pair(70, 82))]
    assert adjusted([*stated, *asked])[:2] == adjusted(stated)
    of_source, of_ours = sentences([*stated, *asked])
    assert of_source.startswith("a paper: Holm-corrected over 2 verdicts")
    assert of_ours.startswith("Our questions to a paper: Holm-corrected over 2 verdicts")
    assert "1 fits and 1 does not fit remain" in of_ours


def test_what_a_rule_keeps_from_deciding_counts_in_the_family_and_has_no_adjusted_value():
    part = pair(82, 70, complete_n=5000)
    assert part[1].outcome is Outcome.INCONCLUSIVE
    alone = adjusted([pair(82, 77.9)])[0]
    beside, capped = adjusted([pair(82, 77.9), part])
    assert capped.holm is None
    assert capped.p is not None
    assert beside.holm == pytest.approx(2 * (alone.holm or 0))


def test_a_fail_has_the_p_value_of_the_fail():
    ((_, verdict),) = family = [pair(70, 82)]
    (found,) = adjusted(family)
    assert verdict.outcome is Outcome.FAIL
    assert found.p == verdict.p_against < 0.05


def test_the_sentence_counts_what_is_left_after_the_correction():
    family = [pair(82, 70), pair(82, 71), pair(70, 82), pair(82, 81.9)]
    (told,) = sentences(family)
    assert told == ("a paper: Holm-corrected over 4 verdicts on 1 set of runs: 2 PASS and 1 FAIL or EXCEEDS remain.")


def test_without_chance_there_is_no_sentence_and_no_p():
    of = equivalence()
    nothing = Verdict(of.id, Outcome.INFEASIBLE, None, None, note("told", text="no data"))
    assert list(sentences([(of, nothing)])) == []
    assert (adjusted([(of, nothing)])[0].p, adjusted([(of, nothing)])[0].holm) == (None, None)


@pytest.mark.parametrize(("p", "text"), [(None, ""), (0.0004, "<0.001"), (0.0234, "0.023"), (1.0, "1.000")])
def test_p_values_are_short(p: float | None, text: str):
    assert p_text(p) == text


def test_verdicts_that_share_a_run_rest_on_one_set_of_runs():
    def on(*run_ids: str) -> Verdict:
        return Verdict("a/claim", Outcome.FAIL, "cpu", "proxy", note("findings"), run_ids=run_ids)

    assert groups([on("a", "b"), on("c"), on("b", "d"), on("e"), on("d", "e")]) == 2
    assert groups([]) == 0


def test_a_failure_of_runs_that_could_not_have_confirmed_is_counted_apart():
    """Three seeds from scratch against one printed run at a margin of a point."""
    far = value(95.0, 1.0)
    rows = trained("ours", right([80, 80.4, 80.8], 1000), initial_sha256=None)
    verdict = judged(far, rows)
    assert verdict.outcome is Outcome.FAIL
    assert not verdict.confirmable
    (told,) = sentences([(far, verdict), pair(82, 70)])
    assert told.endswith("1 FAIL or EXCEEDS remain, 1 of them from runs that could not have confirmed.")
