"""Every named reason has a sentence that its numbers fill, and a verdict says what nobody must overlook."""

from __future__ import annotations

import ast
import string
from pathlib import Path
from typing import Any

import pytest
from verdict_cases import claim, equivalence, judged, ordering, right, runs, trained, value

import vitrepro
from vitrepro.judge.arm import Arm
from vitrepro.judge.finding import PASS, Finding, Outcome, Region, note
from vitrepro.judge.looks import level
from vitrepro.judge.rules import findings
from vitrepro.judge.stats import Estimate, Interval
from vitrepro.judge.verdict import Verdict
from vitrepro.report import words
from vitrepro.report.words import QUALIFIERS, SENTENCES
from vitrepro.spec import OrderingExpect

FACTS = {"expected", "findings", "many_tries", "printed", "most", "reported"}  # a function of `words` says them
COMPUTED = {  # in `verdict.py`, where the name is put together
    **dict.fromkeys(("failed_some", "merged_seeds", "not_above_chance"), ("arms", "counts")),
    **dict.fromkeys(("literal_support", "elsewhere_support", "exact_support", "other_support"), ("passed", "fidelity")),
}
EMPTY = "fewer_than_registered"  # the number of seeds already stands there
SAMPLES: dict[str, Any] = {
    **dict.fromkeys(("arm", "first", "second", "run", "text", "source", "name", "metric", "outcome", "word"), "one"),
    **dict.fromkeys(("arms", "cells", "deviations", "faults", "outcomes", "precisions", "unplanned"), ("one", "two")),
    **dict.fromkeys(("seeds", "registered", "failed", "runs", "n", "of", "stated", "highest", "judged", "at"), 3),
    **dict.fromkeys(("expected", "stored", "right", "has", "had"), 2),
    **dict.fromkeys(("p", "power", "by", "over_chance", "chance", "left", "limit", "value", "level"), 0.5),
    **dict.fromkeys(("now", "seen"), (0, 1)),
    **dict.fromkeys(("counted", "passed"), True),
    "counts": ((1, 3), (2, 3)),
    "which": ((0, 10.0), (None, 9.5)),
    "lacking": (("top1", "one"),),
    "regime": "scratch",
    "fidelity": "proxy",
    "label": "one - two",
    "finding": Finding("one - two", "gap", 0.5, Estimate(0.5, 1.0, 4.0), Region(0.0), n=1000, seeds=3),
}
OTHERWISE: dict[str, dict[str, Any]] = {
    "other_seeds": {"seeds": (("one", (0, 1)), ("two", (0, 2)))},
    "unused_runs": {"seeds": (0, 1)},
    "seeds_changed": {"first": (0, 1)},
}


def made() -> dict[str, tuple[str, ...]]:
    """Every name that a call of `note` gives, with the names of its numbers, as the source has them."""
    found, computed = dict(COMPUTED), []
    for path in sorted(Path(vitrepro.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "note":
                values = tuple(sorted(str(k.arg) for k in node.keywords))
                if isinstance(node.args[0], ast.Constant):
                    name = str(node.args[0].value)
                    assert found.setdefault(name, values) == values or name in FACTS, name
                else:
                    computed.append(path.name)
    assert computed == ["verdict.py"] * 2, "name in COMPUTED what such a call can give"
    return found


MADE = made()
TABLES = {"sentence": SENTENCES, "qualifier": QUALIFIERS}


def test_every_named_reason_has_a_sentence_and_every_sentence_a_reason_that_is_made():
    assert set(MADE) - FACTS == set(SENTENCES) | set(QUALIFIERS)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table])
def test_the_numbers_of_a_reason_fill_its_sentence(kind: str, name: str):
    """Sentences are joined by others, so they have no full stop."""
    values = {key: SAMPLES[key] for key in MADE[name]} | OTHERWISE.get(name, {})
    text = words.say(note(name, **values), TABLES[kind])
    assert (text == "") == ((kind, name) == ("qualifier", EMPTY))
    assert not set("{}") & set(text)
    assert "None" not in text
    assert not text.endswith(".")
    template = TABLES[kind][name]
    if isinstance(template, str):
        assert {field for _, field, _, _ in string.Formatter().parse(template) if field} <= set(values)


# --- failed runs --------------------------------------------------------------------------------


FAILED = "1 of 3 runs of b failed (seed 2: 10.00%), and a verdict is about training that works. "
SOUND, BROKEN = right([80.0, 80.4, 80.8], 1000, who=1), right([70.0, 70.4, 10.0], 1000, who=2)


def of_three(**change: Any) -> Verdict:
    """b, of which a run failed, is below a; c, which should be above a, is below it."""
    above = [{"greater": "a", "than": "b"}, {"greater": "c", "than": "a"}]
    arms = {"a": SOUND, "b": BROKEN, "c": right([60.0, 60.4, 60.8], 1000, who=3)}
    return judged(claim("ordering", {"all": above}), arms, **change)


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (judged(ordering(), {"a": SOUND, "b": BROKEN}), "INCONCLUSIVE"),  # the interval crosses zero
        (judged(ordering(), {"a": BROKEN[[0, 1, 1]], "b": BROKEN}), "INCONCLUSIVE"),
        (judged(equivalence(), {"a": right([99.0, 99.2, 99.4], 1000), "b": BROKEN}), "INCONCLUSIVE"),  # it would FAIL
        (of_three(), "FAIL"),
        (of_three(complete_n=5000), "INCONCLUSIVE"),  # a cap, which stands second
    ],
)
def test_a_failed_run_stands_first_in_the_reason_and_once(verdict: Verdict, outcome: str):
    assert verdict.outcome.value == outcome
    reason = words.reason(verdict)
    assert reason.startswith(FAILED), reason
    assert reason.count("training that works") == 1
    assert "1 of 3 runs failed: b" in words.qualifiers(verdict)


def test_without_a_failed_run_nothing_of_it_is_said():
    verdict = judged(ordering(), {"a": SOUND, "b": right([70.0, 70.4, 70.8], 1000, who=2)})
    assert words.failed(verdict) == ()
    assert words.reason(verdict).startswith("a - b: +10.00 points")


# --- what was in reach --------------------------------------------------------------------------


ONE_WAY = " Such runs could not have confirmed it."


@pytest.mark.parametrize("regime", ["released", None])
@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("margin", [1.0, 9.0])
@pytest.mark.parametrize("reported", [20.0, 80.0, 99.0])
def test_a_refutation_says_it_if_such_runs_could_not_have_confirmed(
    reported: float, margin: float, seeds: int, regime: str | None
):
    """From scratch one or two seeds never confirm, and three do not at a margin of one point."""
    rows = right([80.0, 80.1, 80.2][:seeds], 1000)
    verdict = judged(value(reported, margin), trained("ours", rows, initial_sha256=regime))
    (found,) = verdict.findings
    opposed = verdict.outcome in (Outcome.FAIL, Outcome.EXCEEDS)
    assert opposed == (reported != 80.0)
    confirms = (regime is not None or seeds == 3) and (margin == 9.0 or (regime is not None and seeds == 3))
    assert found.could(PASS) is confirms
    assert words.because(found).endswith(ONE_WAY) is (opposed and not confirms)
    assert (ONE_WAY in words.reason(verdict)) is (opposed and not confirms)
    assert words.could_have_been(verdict) == ("PASS or FAIL" if confirms else "FAIL only")


def test_what_could_not_have_been_told_is_not_promised():
    """One seed from scratch refutes and never confirms: no power to PASS, and no true value from which it would."""
    (of_value,) = judged(value(20.0, 12.0), trained("ours", right([80.0], 1000), initial_sha256=None)).findings
    told = words.strength(of_value)
    assert (
        told
        == f"With this spread, 80% of repetitions would FAIL from a true difference of {of_value.detectable:.2f} on."
    )
    low = {"a": right([20.0], 1000, who=1), "b": right([80.0], 1000, who=2)}
    verdict = judged(ordering(), low, initial_sha256=None)
    (of_gap,) = verdict.findings
    assert verdict.outcome is Outcome.FAIL
    assert words.strength(of_gap) == f"These two checkpoints alone have exact McNemar p = {of_gap.mcnemar:.2g}."


@pytest.mark.parametrize(
    ("asked", "change", "why"),
    [
        (equivalence(12.0), {"initial_sha256": None}, "2 seeds from scratch can refute and not confirm; three can"),
        (
            equivalence(12.0, paired_by_seed=True),
            {},
            "2 seeds an arm, paired by seed, can refute and not confirm; three can",
        ),
    ],
)
def test_too_few_seeds_are_called_what_they_are(asked: Any, change: dict[str, Any], why: str):
    rows = {"a": right([80.0, 80.4], 1000, who=1), "b": right([80.1, 80.3], 1000, who=2)}
    verdict = judged(asked, runs(rows, **change))
    assert f"but {why}, so INCONCLUSIVE instead of PASS." in words.reason(verdict)


# --- intervals ----------------------------------------------------------------------------------


def test_a_difference_of_accuracies_has_a_least_deviation_and_a_loss_has_none():
    """Half a bound; of 1,000 images at 80% that is 0.63 points."""

    def of(metric: str, *values: float) -> Finding:
        rows = right([80.0, 80.3, 80.6], 1000)
        arm = Arm(tuple(100 * rows.mean(1)), 1000, 3, rows, 10, 100, measures={metric: values})
        asked = OrderingExpect.model_validate({"all": [{"arm": "a", "metric": metric, "above": 0.1}]})
        return findings(asked, {}, {"a": arm})[0]

    for found, method in (
        (of("selection_gain", 1.0, 3.0, 5.0), "(t over seeds)"),
        (of("selection_gain", 1.0, 1.1, 1.2), "(t over seeds, spread raised to half a bound)"),
        (of("train_loss_epoch_1", 1.0, 1.1, 1.2), "(t over seeds, no least deviation)"),
    ):
        assert method in words.decides(found)


@pytest.mark.parametrize("look", range(1, 15))
def test_no_level_is_rounded_to_nothing_or_to_certainty(look: int):
    alpha = level(look)
    assert float(words.level_text(alpha).rstrip("%")) == pytest.approx(100 * alpha, rel=1e-4)
    assert words.level_text(1 - alpha) != "100%"
    said = words.say(note("looks", outcomes=("FAIL",) * (look - 1), level=alpha), QUALIFIERS)
    assert said.endswith(f"level {words.level_text(alpha)}")


def test_every_way_to_make_an_interval_has_a_text():
    """Of all estimates that the package makes by name."""
    names = set()
    for path in sorted((Path(vitrepro.__file__).parent / "judge").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if called in ("Estimate", "Spread", "Share"):
                assert isinstance(node, ast.Call)
                texts = [v for part in (*node.args, *(k.value for k in node.keywords)) for v in ast.walk(part)]
                names |= {v.value for v in texts if isinstance(v, ast.Constant) and isinstance(v.value, str)}
    assert names - {"none"} <= set(words.METHODS)
    assert all(words.method(judged(ordering(), {"a": SOUND, "b": BROKEN}).findings[0], Interval(0, 1, 0.9, n))
               == words.METHODS[n] for n in names - {"none"})  # fmt: skip
