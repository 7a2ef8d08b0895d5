"""Numbers obtained elsewhere, judged against claims."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from vitrepro import claims
from vitrepro.cli import app
from vitrepro.errors import UsageError
from vitrepro.judge import elsewhere
from vitrepro.judge.elsewhere import Asked
from vitrepro.judge.finding import Outcome, note
from vitrepro.judge.given import Given, gather, spread
from vitrepro.judge.verdict import Verdict
from vitrepro.report import words
from vitrepro.spec import Claim, Reported
from vitrepro.store import Store

LAB = Path(__file__).parent / "lab"
LAB_HERE = ["--claims-dir", str(LAB)]
REGISTRY = claims.load([LAB])
PAPER, THEIRS = "lab/vit-l16-i21k", "re-vit/vit-l16-i21k"
NO_SCALE = REGISTRY.claims[PAPER].scales.model_copy(update={"paper": None})
N = 797


def call(*arguments: object) -> Result:
    done = CliRunner().invoke(app, ["judge", *map(str, arguments), *LAB_HERE])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def lines(done: Result) -> str:
    """What was printed, whatever the width of the terminal."""
    return " ".join(done.stdout.split())


def judged(claim_id: str, given: dict[str, Given], **asked: Any) -> Verdict:
    claim, cell = claims.one(REGISTRY, claim_id)
    return elsewhere.judge(REGISTRY, claim, cell, given, Asked(**asked)).verdict


def accuracies(**named: float) -> dict[str, Given]:
    return {name: Given(accuracies=(a,), digits=(2,)) for name, a in named.items()}


# --- the teaching notebooks ---------------------------------------------------------------------


def notebooks(target: str, source: str) -> Verdict:
    claim = REGISTRY.claims[target]
    given, left = elsewhere.from_claim(REGISTRY.claims[source], claim)
    assert left == {name: f"{source} reports no {name}" for name in ("imagenet-real", "vtab", "core-days")}
    return elsewhere.judge(REGISTRY, claim, None, given, Asked(source=source)).verdict


@pytest.mark.parametrize(
    ("cell", "outcome", "interval"),
    [
        ("cifar10", Outcome.PASS, (-0.26, 0.06)),
        ("cifar100", Outcome.PASS, (-0.46, 0.38)),
        ("imagenet", Outcome.INCONCLUSIVE, (-0.60, -0.07)),
        ("pets", Outcome.FAIL, (-2.15, -0.76)),
        ("flowers", Outcome.FAIL, (-1.17, -0.69)),
    ],
)
def test_the_vit_of_the_notebooks_is_judged_by_the_margins_of_the_paper_s_claim(
    cell: str, outcome: Outcome, interval: tuple[float, float]
):
    """Worked out by hand without the success and the failure that the bound adds, hence to a hundredth."""
    found = {f.label: f for f in notebooks(PAPER, THEIRS).findings}[cell]
    assert found.outcome is outcome
    assert found.bound == 0.5
    assert found.deciding is not None
    assert (found.deciding.low, found.deciding.high) == pytest.approx(interval, abs=0.015)


def test_the_bit_m_of_the_notebooks_is_not_the_bit_l_of_the_paper_on_any_set():
    """The claim trains from scratch, where one number can refute, by the spread of stored arms, and not confirm."""
    verdict = notebooks("vit/t2-bit-l-jft", "re-vit/bit-m-r152x4")
    assert {f.label: f.outcome for f in verdict.findings} == dict.fromkeys(
        ("imagenet", "cifar10", "cifar100", "pets", "flowers"), Outcome.FAIL
    )
    assert {f.deciding.method for f in verdict.findings if f.deciding} == {"stored"}
    assert not any(f.could(Outcome.PASS) for f in verdict.findings)


def test_all_ten_are_judged_from_the_command_line():
    for target, source in ((PAPER, THEIRS), ("vit/t2-bit-l-jft", "re-vit/bit-m-r152x4")):
        done = call(target, "--from", source, "--json")
        document = json.loads(done.stdout)
        assert done.exit_code == document["exit_code"] == 1
        assert len(document["verdict"]["findings"]) == 5
        assert set(document["not_judged"]) == {"imagenet-real", "vtab", "core-days"}


def test_a_verdict_says_whose_numbers_it_is_of_and_what_they_are_of():
    done = call("vit/t2-bit-l-jft", "--from", "re-vit/bit-m-r152x4")
    assert "Numbers of re-vit/bit-m-r152x4: BiT-M R152x4 from ImageNet-21k reaches the stored accuracies" in lines(done)
    assert "BiT-L (ResNet-152x4, JFT-300M)" in lines(done)
    verdict = notebooks("vit/t2-bit-l-jft", "re-vit/bit-m-r152x4")
    assert "numbers of re-vit/bit-m-r152x4" in words.qualifiers(verdict)
    assert "number of runs not stated, counted as one" in words.qualifiers(verdict)
    assert "numbers of" not in "; ".join(words.qualifiers(judged(f"{PAPER}/cifar10", accuracies(cifar10=99.05))))


def test_the_printed_runs_and_deviation_of_a_claim_come_along():
    """99.15 +- 0.03 of three runs: a seed's deviation of 0.03 and not the binomial bound of 0.09."""
    verdict = judged_from(THEIRS, PAPER)
    (cifar10,) = (f for f in verdict.findings if f.label == "cifar10")
    assert verdict.seeds == 3
    assert cifar10.deciding is not None
    assert cifar10.deciding.method == "seeds"
    assert cifar10.deciding.high - cifar10.deciding.low < 0.21  # with the bound it would be 0.36
    assert not any("no count" in q or "counted as one" in q for q in words.qualifiers(verdict))


def judged_from(target: str, source: str) -> Verdict:
    claim = REGISTRY.claims[target]
    given, _ = elsewhere.from_claim(REGISTRY.claims[source], claim)
    return elsewhere.judge(REGISTRY, claim, None, given, Asked(source=source)).verdict


def test_a_trained_model_is_not_taken_for_the_released_one_that_a_claim_evaluates():
    for source in (PAPER, "re-vit/bit-m-r152x4"):  # means of training runs; a released model of another kind
        _, left = elsewhere.from_claim(REGISTRY.claims[source], REGISTRY.claims[THEIRS])
        assert "evaluates a released model there" in left["imagenet"]
    itself = REGISTRY.claims[THEIRS].model_copy(update={"id": "others/the-same-model"})
    given, left = elsewhere.from_claim(itself, REGISTRY.claims[THEIRS])
    assert "imagenet" in given
    assert not left
    reported = itself.reported
    assert reported
    trained = itself.model_copy(update={"reported": reported.model_copy(update={"evaluated": ()})})
    _, left = elsewhere.from_claim(trained, REGISTRY.claims[THEIRS])
    assert set(left) == {"imagenet"}


def test_no_claim_of_the_registry_is_judged_by_numbers_that_are_no_accuracies():
    """Seconds, fractions, losses and core-days share names with accuracies; every pair ends in a verdict or a word."""
    reporting = [c for c in REGISTRY.claims.values() if c.reported]
    verdicts = 0
    for target in reporting:
        for source in reporting:
            try:
                given, _ = elsewhere.from_claim(source, target)
                verdict = elsewhere.judge(REGISTRY, target, None, given, Asked(source=source.id)).verdict
            except UsageError:
                continue
            verdicts += 1
            assert source.id != target.id
            assert source.reported
            assert "%" in source.reported.unit
            assert all(0 <= a <= 100 for g in given.values() for a in g.accuracies)
            assert verdict.fidelity == "elsewhere"
    assert verdicts > 30


@pytest.mark.parametrize(
    ("target", "source", "said"),
    [
        (PAPER, PAPER, "a claim's own numbers say nothing of it"),
        (PAPER, "re-vit/vit-l16-times", "it reports 'seconds on one GPU of the RTX6000 class'; only accuracies"),
        (f"{PAPER}/core-days", "vit/t2-vit-l16-jft", "core-days: 680 of vit/t2-vit-l16-jft is no accuracy in percent"),
        (f"{PAPER}/vtab", THEIRS, "none of its cells"),
        (PAPER, "vit/t1-variants", "only accuracies in percent can be judged"),
    ],
)
def test_numbers_of_another_claim_that_say_nothing_are_refused(target: str, source: str, said: str):
    done = call(target, "--from", source)
    assert done.exit_code == 2
    assert said in done.stderr


def test_numbers_of_a_claim_are_not_mixed_with_one_s_own():
    for more in (["--accuracy", "cifar10=99"], ["--sd", "0.1"], ["--seeds", "3"]):
        done = call(PAPER, "--from", THEIRS, *more)
        assert done.exit_code == 2, more
        assert done.stdout == ""


def test_means_of_batches_are_told_from_counts():
    notes = "; ".join(words.qualifiers(notebooks(PAPER, THEIRS)))
    for cell in ("cifar10", "cifar100", "pets", "flowers"):
        assert f"{cell}: " in notes
    assert "imagenet: " not in notes


# --- one number ---------------------------------------------------------------------------------


def test_a_number_from_elsewhere_says_so_and_never_reproduces():
    verdict = judged(f"{PAPER}/cifar10", accuracies(cifar10=99.05))
    assert verdict.outcome is Outcome.PASS
    assert words.qualifiers(verdict) == ("not run by vitrepro", "1 of 8 cells", "1 seed")
    assert (verdict.scale, verdict.fidelity) == ("paper", "elsewhere")
    assert words.support(verdict) == "numbers from elsewhere agree, not run by vitrepro"


def test_the_same_number_is_the_same_verdict_however_it_is_given():
    texts = [("--accuracy", "99.05"), ("--correct", "9905"), ("--accuracy", "cifar10=99.05")]
    found = [json.loads(call(f"{PAPER}/cifar10", *t, "--json").stdout)["verdict"] for t in texts]
    assert found[0] == found[1] == found[2]
    named = call(PAPER, "--accuracy", "cifar10=99.05", "--n", "10000", "--json")
    assert json.loads(named.stdout)["verdict"] == found[0]


def test_a_claim_is_not_passed_by_one_of_its_cells_without_a_word():
    for arguments in ((f"{PAPER}/cifar10", "--accuracy", "99.05"), (PAPER, "--accuracy", "cifar10=99.05")):
        text = lines(call(*arguments))
        assert "1 of 8 cells" in text
        assert f"{PAPER} (cifar10 alone): PASS" in text
    assert "imagenet, imagenet-real, cifar100, pets, flowers, vtab, core-days: not judged: no number is given" in text
    assert "(2 of 8 cells): PASS" in lines(call(PAPER, "--accuracy", "cifar10=99.05", "--accuracy", "cifar100=93.2"))


def test_the_scale_shown_is_the_one_whose_margin_was_used():
    assert judged(f"{PAPER}/cifar10", accuracies(cifar10=99.05)).scale == "paper"
    assert judged(f"{PAPER}/imagenet", accuracies(imagenet=85.3)).scale is None  # no scale covers it
    both = judged(PAPER, accuracies(cifar10=99.05, imagenet=85.3))
    assert both.scale == "paper"
    assert "margin registered apart from the scale: imagenet" in words.qualifiers(both)


def test_the_margin_for_the_same_weights_is_that_of_no_scale():
    """Scale paper states half a point for training runs; weights evaluated again have a tenth."""
    verdict = judged(f"{THEIRS}/cifar10", {"": Given(counts=(9_905,))}, same_weights=True)
    assert (verdict.scale, verdict.findings[0].bound) == (None, 0.1)


def test_numbers_of_other_images_or_of_runs_without_a_deviation_are_told_apart():
    cell = f"{PAPER}/cifar10"
    quoted = Given((99.05,), digits=(2,), runs=3, n=10_000, quoted=True)
    assert "cifar10: a mean of 3 runs without a deviation, counted as one" in words.qualifiers(
        judged(cell, {"": quoted})
    )
    with pytest.raises(UsageError, match="10,000 by the claim, 9,000 by --from; other images"):
        judged(cell, {"": Given((99.05,), digits=(2,), n=9_000, quoted=True)})


def test_guessing_between_two_classes_is_what_must_be_beaten_where_nothing_tells_how_many_there_are():
    for accuracy, guesses in ((51.0, True), (60.0, False)):
        verdict = judged(f"{PAPER}/vtab", accuracies(vtab=accuracy), n=1000, margin=1.0)
        assert ("not above chance: vtab" in words.qualifiers(verdict)) == guesses


def test_a_less_faithful_scale_is_used_for_a_cell_that_it_alone_covers():
    entry = REGISTRY.claims[THEIRS].scales.paper
    assert entry
    assert entry.expect
    assert entry.expect.kind == "value"
    few = entry.expect.model_copy(update={"cells": {"cifar10": entry.expect.cells["cifar10"]}})
    paper = entry.model_copy(update={"expect": few})
    scales = REGISTRY.claims[THEIRS].scales.model_copy(update={"paper": paper, "gpu": entry})
    claim = REGISTRY.claims[THEIRS].model_copy(update={"scales": scales})
    for cell, scale in (("cifar10", "paper"), ("pets", "gpu")):
        verdict = elsewhere.judge(REGISTRY, claim, cell, accuracies(**{cell: 93.0}), Asked()).verdict
        assert (cell, verdict.scale) == (cell, scale)


def test_several_runs_are_several_seeds_and_so_is_a_mean_with_its_deviation():
    three = judged(f"{PAPER}/cifar10", {"": Given((99.0, 99.1, 99.2), digits=(1, 1, 1))})
    mean = judged(f"{PAPER}/cifar10", gather({"--accuracy": ["99.10"]}, ["0.1"], 3))
    assert three.seeds == mean.seeds == 3
    ends = [(i.low, i.high) for v in (three, mean) if (i := v.findings[0].deciding)]
    assert ends[0] == pytest.approx(ends[1])


def test_each_of_several_means_has_a_deviation_of_its_own():
    given = gather({"--accuracy": ["cifar10=99.10", "pets=94.6"]}, ["cifar10=0.1", "pets=0.4"], 3)
    assert {name: (g.sd, g.runs) for name, g in given.items()} == {"cifar10": (0.1, 3), "pets": (0.4, 3)}
    for sds, said in ((["0.1"], "of which number"), (["cifar10=0.1"], "pets: --seeds 3"), (["dtd=1"], "of which")):
        with pytest.raises(UsageError, match=said):
            gather({"--accuracy": ["cifar10=99.10", "pets=94.6"]}, sds, 3)
    assert gather({"--accuracy": ["99.10"]}, ["cifar10=0.1"], 3)[""].sd == 0.1
    assert gather({"--accuracy": ["cifar10=99.10"]}, ["0.1"], 3)["cifar10"].sd == 0.1


@pytest.mark.parametrize(("mean", "sd", "runs"), [(50, 10, 3), (99.9, 0.15, 3), (0.2, 0.3, 5), (99, 0, 2), (99, 1, 7)])
def test_runs_with_a_mean_and_a_deviation_have_just_these(mean: float, sd: float, runs: int):
    values = spread(mean, sd, runs)
    assert len(values) == runs
    assert min(values) >= 0
    assert max(values) <= 100
    assert np.mean(values) == pytest.approx(mean)
    assert np.std(values, ddof=1) == pytest.approx(sd)


def test_a_mean_near_100_with_a_deviation_is_above_chance():
    """99.90 +- 0.15 is no three runs of which one is above 100%, which would count as guessing."""
    verdict = judged(f"{PAPER}/cifar10", gather({"--accuracy": ["99.90"]}, ["0.15"], 3), n=10_000)
    assert not any("chance" in q for q in words.qualifiers(verdict))
    (found,) = verdict.findings
    assert found.would_be is Outcome.EXCEEDS


def test_a_mean_that_only_a_far_run_explains_decides_nothing():
    """Three runs of 99.90 +- 0.15 have one at 99.73 or below, and then another close to 100, far above it."""
    (found,) = judged(f"{PAPER}/cifar10", gather({"--accuracy": ["99.90"]}, ["0.15"], 3)).findings
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.block
    assert (found.block.name, found.block["failed"], found.block["runs"]) == ("failed_runs", 1, 3)


@pytest.mark.parametrize("runs", [3, 4, 5, 6, 9, 10])
def test_runs_made_of_a_mean_and_a_deviation_hold_no_failed_run(runs: int):
    """None lies below their median, however much they vary, unless 0 or 100 is near."""
    values = spread(50, 20, runs)
    assert min(values) == np.median(values)
    given = gather({"--accuracy": ["99.20"]}, ["0.5"], runs)
    assert "failed_runs" not in {why.name for why in judged(f"{PAPER}/cifar10", given).findings[0].blocks.values()}


def test_the_terminal_shows_the_two_sentences_and_the_picture():
    text = call(f"{PAPER}/cifar10", "--accuracy", "99.05").stdout
    assert (
        "lies 0.10 below the reported 99.15 ± 0.03 (3 runs). The 90% interval of the difference, -0.26 to +0.06" in text
    )
    assert "●" in text
    assert "not run by vitrepro" in text


@pytest.mark.parametrize(
    ("outcome", "accuracy", "code"),
    [("PASS", 99.1, 0), ("FAIL", 98.0, 1), ("EXCEEDS", 99.9, 3), ("INCONCLUSIVE", 98.6, 3)],
)
def test_exit_codes_are_those_of_verify(outcome: str, accuracy: float, code: int):
    done = call(f"{PAPER}/cifar10", "--accuracy", accuracy, "--json")
    assert (json.loads(done.stdout)["verdict"]["outcome"], done.exit_code) == (outcome, code)


def test_a_margin_by_hand_decides_nothing():
    verdict = judged("lab/vit-l16-i21k/vtab", accuracies(vtab=72.7), n=1000, margin=5.0)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "margin given by hand" in words.qualifiers(verdict)
    assert "it would have been PASS" in words.reason(verdict)


def test_a_released_model_evaluated_again_is_judged_by_its_counts():
    """re-vit evaluated a released model on ImageNet: 84.962 is 42,481 of 50,000, and 0.1 point is 50 images."""
    for correct, outcome in ((42_481, "PASS"), (42_531, "PASS"), (42_532, "EXCEEDS"), (42_430, "FAIL")):
        verdict = judged(f"{THEIRS}/imagenet", {"": Given(counts=(correct,))})
        assert verdict.outcome.value == outcome, correct
        assert verdict.findings[0].deciding is None
        assert not any("seed" in q for q in words.qualifiers(verdict))
        assert "taken to be the same weights: imagenet" in words.qualifiers(verdict)
    cell = "vit/t5-i21k/vit-b16-cifar10"  # 98.95 of an unstated number of runs
    for correct, outcome in ((9_895, "PASS"), (9_905, "PASS"), (9_906, "EXCEEDS"), (9_884, "FAIL")):
        assert judged(cell, {"": Given(counts=(correct,))}, same_weights=True).outcome.value == outcome, correct


def test_the_same_weights_have_one_number_and_are_no_mean():
    evaluated = f"{THEIRS}/imagenet"
    for arguments, said in (
        ([evaluated, "--accuracy", "84.9,85.1"], "give one number, not those of several runs; re-vit/vit-l16-i21k"),
        ([evaluated, "--accuracy", "84.9", "--seeds", 3, "--sd", 0.1], "give one number"),
        (["vit/t5-i21k/vit-b16-cifar10", "--accuracy", "98,99", "--same-weights"], "give one number"),
        ([f"{PAPER}/cifar10", "--accuracy", 99, "--same-weights"], "cifar10 is reported as a mean of several runs"),
        ([evaluated, "--accuracy", 84.9, "--margin", 1], "registers 0.1 points for imagenet"),
        (["vit/t5-i21k/vit-b16-cifar10", "--accuracy", 99, "--same-weights", "--margin", 1], "the same weights have"),
    ):
        done = call(*arguments)
        assert done.exit_code == 2, arguments
        assert said in done.stderr


def test_what_a_cap_keeps_from_deciding_says_so_beside_findings_of_its_own():
    """Two margins by hand: one finding is INCONCLUSIVE itself, and the FAIL of the other is kept from deciding."""
    reported = Reported.model_validate({"unit": "% top-1", "n": {"*": 1000}, "cells": {"a": 80, "b": 80}})
    claim = REGISTRY.claims[PAPER].model_copy(update={"reported": reported, "scales": NO_SCALE})
    given = {"a": Given((79.0,), digits=(1,)), "b": Given((50.0,), digits=(1,))}
    verdict = elsewhere.judge(REGISTRY, claim, None, given, Asked(margin=1.0)).verdict
    assert {f.label: f.outcome for f in verdict.findings} == {"a": Outcome.INCONCLUSIVE, "b": Outcome.FAIL}
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "it would have been FAIL" in printed(claim, verdict)


def printed(claim: Claim, verdict: Verdict) -> str:
    from rich.console import Console

    from vitrepro.report.verdicts import print_findings

    out = io.StringIO()
    print_findings(Console(file=out, width=200), claim, verdict)
    return out.getvalue()


def test_a_model_that_guesses_does_not_equal_a_number_near_chance():
    """14.81 of ten classes is above chance on 10,000 images, and 11 is no more than guessing on 100."""
    cell = "lab/small-vit/top1"
    assert judged(cell, {"": Given((14.3, 14.5, 14.7), digits=(1, 1, 1))}).outcome is Outcome.PASS
    claim = REGISTRY.claims["lab/small-vit"]
    assert claim.reported
    fewer = claim.reported.model_copy(update={"cells": {"top1": claim.reported.cells["top1"].model_copy()}})
    near = fewer.cells["top1"].model_copy(update={"value": 10.3})
    claim = claim.model_copy(update={"reported": fewer.model_copy(update={"cells": {"top1": near}})})
    verdict = elsewhere.judge(REGISTRY, claim, "top1", {"": Given((10.2,), digits=(1,))}, Asked()).verdict
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "not above chance: top1" in words.qualifiers(verdict)


# --- from scratch or fine-tuned -----------------------------------------------------------------


def test_one_accuracy_confirms_fine_tuning_and_not_training_from_scratch():
    number = accuracies(cifar10=99.05)
    tuned = judged(f"{PAPER}/cifar10", number, regime="fine-tuned")
    scratch = judged(f"{PAPER}/cifar10", number, regime="scratch")
    assert (tuned.outcome, scratch.outcome) == (Outcome.PASS, Outcome.INCONCLUSIVE)
    assert [v.findings[0].could(Outcome.PASS) for v in (tuned, scratch)] == [True, False]


def test_one_accuracy_from_scratch_that_is_far_off_refutes_and_says_it_could_not_have_confirmed():
    verdict = judged(f"{PAPER}/cifar10", accuracies(cifar10=90.05), regime="scratch")
    (finding,) = verdict.findings
    assert verdict.outcome is finding.outcome is Outcome.FAIL
    assert finding.could(Outcome.FAIL)
    assert not finding.could(Outcome.PASS)
    assert "Such runs could not have confirmed it." in words.because(finding)


def test_one_accuracy_from_scratch_on_the_reported_one_is_kept_from_passing():
    """At a margin wide enough for the spread of stored arms, the interval alone would pass."""
    claim, _ = claims.one(REGISTRY, "lab/small-vit")
    assert claim.reported
    assert claim.scales.gpu
    assert claim.scales.gpu.expect
    wide = {"cells": {"top1": claim.scales.gpu.expect.cells["top1"].model_copy(update={"margin": 4.0})}}
    gpu = claim.scales.gpu.model_copy(update={"expect": claim.scales.gpu.expect.model_copy(update=wide)})
    claim = claim.model_copy(update={"scales": claim.scales.model_copy(update={"gpu": gpu})})
    verdict = elsewhere.judge(REGISTRY, claim, "top1", accuracies(top1=14.81), Asked()).verdict
    (finding,) = verdict.findings
    assert (finding.would_be, finding.outcome) == (Outcome.PASS, Outcome.INCONCLUSIVE)
    assert finding.block
    assert (finding.block.name, finding.block["seeds"], finding.block["regime"]) == ("few_seeds", 1, "scratch")


def test_who_tells_the_regime_is_said_unless_a_recipe_does():
    """The recipe of a scale starts from released weights; no scale covers ImageNet, so there the claim's words tell."""
    tuned, scratch = (note("regime", regime=regime) for regime in ("fine-tuned", "scratch"))
    by_recipe = judged(f"{PAPER}/cifar10", accuracies(cifar10=99.05))
    by_words = judged(f"{PAPER}/imagenet", accuracies(imagenet=85.3))
    both = judged(PAPER, accuracies(cifar10=99.05, imagenet=85.3, **{"imagenet-real": 88.6}))
    assert [v.qualifiers.count(tuned) for v in (by_recipe, by_words, both)] == [0, 1, 1]
    of_pre_training = judged("vit/t2-bit-l-jft/imagenet", accuracies(imagenet=80.0))  # its work names pre-training
    assert scratch in of_pre_training.qualifiers
    for regime, said in (("fine-tuned", tuned), ("scratch", scratch)):  # the user wins over a recipe
        assert said in judged(f"{PAPER}/cifar10", accuracies(cifar10=99.05), regime=regime).qualifiers
    assert "taken to be fine-tuned from released weights" in words.qualifiers(by_words)


def test_the_same_weights_have_no_regime():
    for verdict in (
        judged(f"{THEIRS}/imagenet", {"": Given(counts=(42_481,))}),
        judged(f"{THEIRS}/imagenet", {"": Given(counts=(42_481,))}, regime="scratch"),
        judged("vit/t5-i21k/vit-b16-cifar10", {"": Given(counts=(9_895,))}, same_weights=True),
    ):
        assert "regime" not in {q.name for q in verdict.qualifiers}


def test_the_command_line_can_say_the_regime():
    cell = f"{PAPER}/cifar10"
    found = {}
    for option in ("--fine-tuned", "--from-scratch"):
        verdict = json.loads(call(cell, "--accuracy", "99.05", option, "--json").stdout)["verdict"]
        found[option] = verdict["outcome"], [q for q in verdict["qualifiers"] if q.startswith("taken to be")]
    assert found == {
        "--fine-tuned": ("PASS", ["taken to be fine-tuned from released weights"]),
        "--from-scratch": ("INCONCLUSIVE", ["taken to be trained from scratch"]),
    }


# --- arms ---------------------------------------------------------------------------------------

ARMS = "lab/resnet-above-vit"


def test_an_ordering_of_accuracies_alone_is_unpaired():
    three = {"resnet-1k": Given((98.2, 98.4, 98.6)), "vit-1k": Given((86.0, 86.5, 87.0))}
    given = {name: Given(g.accuracies, digits=(1, 1, 1)) for name, g in three.items()}
    verdict = judged(ARMS, given, scale="quick")
    assert verdict.outcome is Outcome.PASS
    assert "unpaired, from accuracies alone" in words.qualifiers(verdict)
    swapped = {"resnet-1k": given["vit-1k"], "vit-1k": given["resnet-1k"]}
    assert judged(ARMS, swapped, scale="quick").outcome is Outcome.FAIL


def test_three_seeds_against_one_from_scratch_can_refute_and_not_confirm():
    """The arm of one seed caps the comparison, however clear the gap and however many seeds the other arm has."""
    three, one = Given((98.2, 98.4, 98.6), digits=(1, 1, 1)), Given((50.1,), digits=(1,))
    for given in ({"resnet-1k": three, "vit-1k": one}, {"resnet-1k": one, "vit-1k": three}):
        verdict = judged(ARMS, given, scale="quick")
        (finding,) = verdict.findings
        refuted = given["resnet-1k"] is one
        assert finding.would_be is (Outcome.FAIL if refuted else Outcome.PASS)
        assert verdict.outcome is (Outcome.FAIL if refuted else Outcome.INCONCLUSIVE)
        assert not verdict.confirmable
        assert finding.blocks[Outcome.PASS]["seeds"] == 1
        assert judged(ARMS, given, scale="quick", regime="fine-tuned").outcome is finding.would_be


def test_an_arm_of_which_some_runs_failed_decides_nothing():
    given = {
        "resnet-1k": Given((98.2, 98.4, 60.0), digits=(1, 1, 1)),
        "vit-1k": Given((30.1, 30.2, 30.4), digits=(1,) * 3),
    }
    verdict = judged(ARMS, given, scale="quick")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "1 of 3 runs failed: resnet-1k" in words.qualifiers(verdict)
    assert not verdict.confirmable
    assert not verdict.refutable


def predictions(path: Path, correct: int, seed: int = 0, n: int = N) -> Path:
    labels = np.arange(n) % 10
    hard = np.argsort(np.arange(n) + 0.3 * np.random.default_rng(seed).permutation(n))
    predicted = labels.copy()
    predicted[hard[correct:]] = (labels[hard[correct:]] + 1) % 10
    if path.suffix == ".csv":
        rows = "\n".join(f"{i},{p},{label}" for i, (p, label) in enumerate(zip(predicted, labels, strict=True)))
        path.write_text(f"id,predicted,label\n{rows}\n")
    else:
        np.savez(path, ids=np.arange(n), predicted=predicted, labels=labels)
    return path


def test_files_of_predictions_are_paired_and_order_and_format_do_not_matter(tmp_path: Path):
    options = []
    for suffix in (".csv", ".npz"):
        better, worse = (
            ",".join(str(predictions(tmp_path / f"{arm}{s}{suffix}", k + s, s)) for s in range(3))
            for arm, k in (("a", 770), ("b", 740))
        )
        options.append(("--predictions", f"resnet-1k={better}", "--predictions", f"vit-1k={worse}"))
    shuffled = tmp_path / "a0.csv"
    head, *rows = shuffled.read_text().splitlines()
    shuffled.write_text("\n".join([head, *rows[::-1]]) + "\n")
    found = [json.loads(call(ARMS, "--scale", "quick", *o, "--json").stdout)["verdict"] for o in options]
    assert found[0] == found[1]
    assert found[0]["outcome"] == "PASS"
    assert "unpaired, from accuracies alone" not in found[0]["qualifiers"]


def test_predictions_of_a_stored_run_give_the_verdict_that_verify_gave(tiny_claims: Path, tmp_path: Path):
    options = ["--claims-dir", str(tiny_claims)]
    more = ["--scale", "quick", "--devices", "cpu:2", "--json", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, ["verify", "tiny/ordering", *options, *more])
    (ours,) = json.loads(done.stdout)["verdicts"]
    store = Store(tmp_path / "store")
    files: dict[str, list[str]] = {}
    for run_id in store.run_ids():
        record = store.record(run_id)
        assert record is not None
        files.setdefault(record.arm, []).append(str(store.run_dir(run_id) / "predictions.safetensors"))
    given = [x for arm, paths in files.items() for x in ("--predictions", f"{arm}={','.join(paths)}")]
    theirs = json.loads(call("tiny/ordering", *given, *options, "--scale", "quick", "--json").stdout)["verdict"]
    assert theirs["outcome"] == ours["outcome"]
    same = ("measured", "interval", "p", "detectable", "outcome")
    assert [[f[k] for k in same] for f in theirs["findings"]] == [[f[k] for k in same] for f in ours["findings"]]
    assert theirs["fidelity"] == "elsewhere" != ours["fidelity"]


def test_one_model_under_the_names_of_two_arms_decides_nothing(tmp_path: Path):
    """As no worse than itself it would pass a claim of non-inferiority."""
    a = predictions(tmp_path / "a.npz", 740)
    shutil.copy(a, tmp_path / "b.npz")
    done = call(
        ARMS, "--scale", "quick", "--json", "--fine-tuned",
        "--predictions", f"resnet-1k={a}", "--predictions", f"vit-1k={tmp_path / 'b.npz'}",
    )  # fmt: skip
    verdict = json.loads(done.stdout)["verdict"]
    assert verdict["outcome"] == "INCONCLUSIVE"
    assert verdict["reason"].startswith("one model under the names of two arms decides nothing (")
    assert "; it would have been FAIL: " in verdict["reason"]
    assert any(q.startswith("the same answers: ") for q in verdict["qualifiers"])


def test_files_without_labels_are_paired_by_ids_alone_and_say_so(tmp_path: Path):
    files = {"resnet-1k": 770, "vit-1k": 740}
    for arm, k in files.items():
        rows = "\n".join(f"{i},{int((i * 7) % N < k)}" for i in range(N))
        (tmp_path / f"{arm}.csv").write_text(f"id,correct\n{rows}\n")
    options = [x for arm in files for x in ("--predictions", f"{arm}={tmp_path / arm}.csv")]
    verdict = json.loads(call(ARMS, "--scale", "quick", "--fine-tuned", *options, "--json").stdout)["verdict"]
    assert verdict["outcome"] == "PASS"
    assert "paired by ids alone, without labels" in verdict["qualifiers"]


def test_a_path_may_hold_an_equals_sign(tmp_path: Path):
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    a, b = predictions(folder / "a.csv", 770), predictions(folder / "b.csv", 740, 1)
    files = ("--predictions", f"resnet-1k={a}", "--predictions", f"vit-1k={b}")
    assert call(ARMS, "--scale", "quick", "--fine-tuned", *files).exit_code == 0
    assert gather({"--predictions": [f"{a},{b}"]}, (), None)[""].files == (a, b)


# --- what cannot be judged ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--accuracy", "nan"], "'nan' is no accuracy; expected percent from 0 to 100"),
        (["--accuracy", "inf"], "'inf' is no accuracy"),
        (["--accuracy", "173"], "'173' is no accuracy; expected percent from 0 to 100"),
        (["--accuracy", "-3"], "'-3' is no accuracy"),
        (["--accuracy", "0.9905"], "accuracies are in percent; did you mean 99.05?"),
        (["--accuracy", "0"], "accuracies are in percent. One that really is not above 1%"),
        (["--accuracy", "99.05%"], "'99.05%' is no accuracy; expected percent from 0 to 100 without the sign"),
        (["--accuracy", "ninety"], "'ninety' is no accuracy"),
        (["--accuracy", "99.05,"], "a value for each training run"),
        (["--accuracy", "cifar11=99"], "did you mean 'cifar10'"),
        (["--correct", "10001"], "more than the 10,000 test images"),
        (["--correct", "99.5"], "'99.5' is no whole number below a billion"),
        (["--correct", "9" * 5000], "'99999999999999999999' is no whole number below a billion"),
        (["--accuracy", "99", "--correct", "9900"], "a value without a name is given twice; separate runs by ','"),
        (["--accuracy", "99", "--accuracy", "98"], "given twice"),
        (
            ["--accuracy", "99", "--n", "9999"],
            "10,000 by the claim, 9,999 by --n; other images cannot be held against it",
        ),
        (["--accuracy", "99", "--n", "0"], "one image or more"),
        (["--accuracy", "99", "--n", "1" + "0" * 400], "at most 1,000,000,000"),
        (["--accuracy", "99", "--margin", "0.3"], "registers 0.5 points for cifar10; leave it out"),
        (["--accuracy", "99", "--margin", "0"], "above 0 and below 50"),
        (["--accuracy", "99", "--margin", "nan"], "above 0 and below 50"),
        (["--accuracy", "99", "--seeds", "3"], "give both, at least 2 and at most 1,000 seeds, and one accuracy"),
        (["--accuracy", "99", "--sd", "0.1"], "give both, at least 2 and at most 1,000 seeds, and one accuracy"),
        (["--accuracy", "99", "--seeds", "3", "--sd", "-1"], "0 or more"),
        (["--accuracy", "99", "--seeds", "3", "--sd", "nan"], "0 or more"),
        (["--accuracy", "99", "--seeds", "3", "--sd", "x"], "a number of 0 or more"),
        (["--accuracy", "99", "--seeds", "3", "--sd", "30"], "would not stay within 0 and 100"),
        (["--accuracy", "99", "--seeds", "1001", "--sd", "0.1"], "at most 1,000"),
        (
            ["--accuracy", "99", "--seeds", "1", "--sd", "0.1"],
            "give both, at least 2 and at most 1,000 seeds, and one accuracy",
        ),
        (["--predictions", "a.npz", "--seeds", "3"], "the accuracy or file of each run"),
        (["--accuracy", "99", "--scale", "cpu"], "no check of accuracies at scale cpu (it has paper)"),
        (["--from", PAPER], "a claim's own numbers say nothing of it"),
        (["--accuracy", "99", "--same-weights"], "a mean of several runs, which no one set of weights has"),
        (["--accuracy", "99", "--seeds", "3", "--sd", "50"], "would not stay within 0 and 100"),
        (["--predictions", "missing.csv"], "missing.csv: No such file"),
        ([], "nothing is given to judge"),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_a_word_of_their_own(arguments: list[str], said: str):
    done = call(f"{PAPER}/cifar10", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "expected id,predicted,label or id,correct"),
        ("id,predicted,label\n", "no predictions in it"),
        ("image,guess\n0,1\n", "columns image, guess; expected"),
        ("id,correct\n" + "0,2\n" + "".join(f"{i},1\n" for i in range(1, 10_000)), "correct is 2, expected 0 or 1"),
        ("id,id,correct\n0,0,1\n", "a column stands twice in id, id, correct"),
        ("id,predicted,label\n" + "".join(f"{i},3,{i % 100}\n" for i in range(10_000)), "labels of 100 classes"),
        ("id,correct\n0,x\n", ":2: correct: 'x' is no whole number below a billion"),
        (
            "id,correct\n0,1\n0,1\n",
            "2 rows of 1 images, ids from 0 to 0; expected each of the 10,000 images of cifar10 once",
        ),
        (
            "id,correct\n0,1\n1,1\n",
            "2 rows of 2 images, ids from 0 to 1; expected each of the 10,000 images of cifar10 once",
        ),
        (
            "id,correct\n" + "".join(f"{i + 7},1\n" for i in range(10_000)),
            "ids from 7 to 10006; expected each of the 10,000 images",
        ),
        ("id,predicted,label\n" + "".join(f"{i},3,3\n" for i in range(10_000)), "all labels are 3"),
        ("\x00\x01", "columns"),
    ],
)
def test_files_that_tell_nothing_are_refused(tmp_path: Path, content: str, said: str):
    path = tmp_path / "p.csv"
    path.write_text(content)
    done = call(f"{PAPER}/cifar10", "--predictions", path)
    assert done.exit_code == 2
    assert str(path) in done.stderr
    assert said in done.stderr


WHOLE = np.arange(N)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"predicted": WHOLE % 10 + 0.5}, "cannot be read (whole numbers are expected)"),
        ({"labels": WHOLE % 10 - 5}, "cannot be read (numbers from 0"),
        ({"predicted": np.zeros(5, int)}, "arrays of different length"),
        ({"predicted": np.zeros((N, 10), int)}, "arrays of different length"),
        ({"ids": WHOLE[:0], "predicted": WHOLE[:0], "labels": WHOLE[:0]}, "no predictions in it"),
        ({"ids": np.array(3), "predicted": np.array(3), "labels": np.array(3)}, "arrays of different length"),
        ({"labels": None}, "'labels is not a file in the archive'"),
        ({"labels": WHOLE % 100}, "labels of 100 classes, resnet-1k has 10"),
        ({"ids": WHOLE + 1}, "797 rows of 797 images, ids from 1 to 797; expected each of the 797 images"),
    ],
)
def test_arrays_that_are_no_answers_are_refused(tmp_path: Path, change: dict[str, Any], said: str):
    arrays = {"ids": WHOLE, "predicted": WHOLE % 10, "labels": (WHOLE + 1) % 10} | change
    np.savez(tmp_path / "p.npz", **{k: v for k, v in arrays.items() if v is not None})
    done = call(ARMS, "--scale", "quick", "--predictions", f"resnet-1k={tmp_path / 'p.npz'}", "--accuracy", "vit-1k=9")
    assert done.exit_code == 2
    assert said in done.stderr


def test_large_labels_cost_no_memory(tmp_path: Path):
    """An array with a place for each of them would take gigabytes."""
    for arm, right in (("a", 770), ("b", 740)):
        rows = "".join(f"{i},{(i % 10) * 10**8 if i < right else 1},{(i % 10) * 10**8}\n" for i in range(N))
        (tmp_path / f"{arm}.csv").write_text("id,predicted,label\n" + rows)
    options = ("--predictions", f"resnet-1k={tmp_path}/a.csv", "--predictions", f"vit-1k={tmp_path}/b.csv")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)\n"
    arguments = ["judge", ARMS, "--scale", "quick", "--fine-tuned", *options, *LAB_HERE]
    code = f"{limit}from vitrepro.cli import app\napp({arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"\x93NUMPY", b"PK\x03\x04 no archive"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_damaged_archives_are_refused(tmp_path: Path, content: bytes, suffix: str):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(content)
    done = call(f"{PAPER}/cifar10", "--predictions", path)
    assert done.exit_code == 2
    assert f"{path}: " in done.stderr
    assert "allow_pickle=" not in done.stderr


def test_files_of_other_images_are_not_held_against_each_other(tmp_path: Path):
    a, b = predictions(tmp_path / "a.csv", 700), predictions(tmp_path / "b.csv", 700, seed=1)
    b.write_text(b.read_text().replace("\n5,5,5\n", "\n5,5,6\n").replace("\n5,6,5\n", "\n5,6,6\n"))
    c = predictions(tmp_path / "c.csv", 700, seed=2)
    seeds = call(ARMS, "--scale", "quick", "--predictions", f"resnet-1k={a},{b}", "--predictions", f"vit-1k={c}")
    assert "image 5 has label 6" in seeds.stderr
    arms = call(ARMS, "--scale", "quick", "--predictions", f"resnet-1k={a}", "--predictions", f"vit-1k={b}")
    assert "different labels, so they are of different images" in arms.stderr
    assert seeds.exit_code == arms.exit_code == 2


def test_one_run_given_twice_is_no_second_seed_and_no_other_arm(tmp_path: Path):
    a, b = predictions(tmp_path / "a.csv", 770), predictions(tmp_path / "b.csv", 740)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(a.read_bytes())
    for twice in (a, copy):
        done = call(ARMS, "--scale", "quick", "--predictions", f"resnet-1k={a},{twice}", "--predictions", f"vit-1k={b}")
        assert done.exit_code == 2
        assert "one run given twice is no second seed of resnet-1k" in done.stderr
    done = call(ARMS, "--scale", "quick", "--predictions", f"resnet-1k={a}", "--predictions", f"vit-1k={a}")
    assert done.exit_code == 2
    assert "is given twice; one run is no other arm" in done.stderr


@pytest.mark.parametrize("values", [[0.7, 1.2], [-1, 3], [2**40, 1], [np.nan, 1.0], ["1", "2"]])
def test_predictions_that_are_no_classes_are_refused(tmp_path: Path, values: list[Any]):
    labels = np.array(values)
    np.savez(tmp_path / "p.npz", ids=np.arange(2), predicted=labels, labels=labels)
    done = call(ARMS, "--scale", "quick", "--predictions", f"resnet-1k={tmp_path / 'p.npz'}", "--accuracy", "vit-1k=50")
    assert done.exit_code == 2
    assert "cannot be read" in done.stderr


def test_pickled_predictions_are_not_run(tmp_path: Path):
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    harm = np.array([Harm()], dtype=object)
    np.savez(tmp_path / "p.npz", ids=harm, predicted=harm, labels=harm)
    done = call(f"{PAPER}/cifar10", "--predictions", tmp_path / "p.npz")
    assert done.exit_code == 2
    assert "cannot be read" in done.stderr
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("claim_id", "given", "said"),
    [
        ("vit/t1-variants", {"": 1.5}, "no check that accuracies could decide"),
        ("replicate-ai/smoothing-spreads-attention", {"": 50.0}, "rests on measures of trained models"),
        ("vit/t1-variants", {"": 50.0}, "`vitrepro verify vit/t1-variants` checks it"),
        ("re-vit/gpu-memory", {"": 50.0}, "`vitrepro show re-vit/gpu-memory` says why"),
        (PAPER, {"": 99.0}, "has several cells; name one"),
        (PAPER, {"vtab": 50.0}, "registers no margin for vtab"),
        (PAPER, {"core-days": 50.0}, "the 230 that lab/vit-l16-i21k reports is no accuracy in percent"),
        (ARMS, {"resnet-1k": 80.0}, "nothing is given for vit-1k"),
        (ARMS, {"resnet": 80.0}, "has no arm 'resnet'"),
        ("vit/t6-exaflops-vit*", {"": 50.0}, "no claim"),
    ],
)
def test_claims_that_accuracies_cannot_decide_say_why(claim_id: str, given: dict[str, float], said: str):
    with pytest.raises(UsageError, match=said):
        judged(claim_id, {name: Given((a,), digits=(1,)) for name, a in given.items()}, n=10_000)


def test_a_cell_of_a_claim_that_compares_arms_is_not_judged():
    done = call("vit/t8-none-clearly-worse/none", "--accuracy", "61.4")
    assert done.exit_code == 2
    assert "vit/t8-none-clearly-worse compares arms with each other; leave out /none" in done.stderr


def test_what_has_no_counterpart_or_no_margin_is_named():
    done = call("re-vit/bit-m-r152x4", "--from", "vit/t2-bit-l-jft", "--json")
    assert set(json.loads(done.stdout)["not_judged"]) == {"imagenet", "imagenet-real", "vtab", "core-days"}
    done = call(PAPER, "--from", "vit/t2-bit-l-jft")
    assert f"vtab: not judged: {PAPER} registers no margin for vtab" in lines(done)
    assert "core-days: not judged: 9900 of vit/t2-bit-l-jft is no accuracy in percent" in lines(done)


# --- what a claim file says of such numbers -----------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"margins": {"imagenet": 0.5}}, "margins: no cell matches 'imagenet'"),
        ({"evaluated": ["imagenet"]}, "evaluated: no cell matches 'imagenet'"),
        ({"margins": {"cifar*": 0.004}}, "0.004 is less than half a printed digit of cifar10"),
        ({"margins": {"*": 0}}, "greater than 0"),
        ({"margins": {"*": 50}}, "less than 50"),
    ],
)
def test_margins_that_cannot_be_are_faults_of_the_file(change: dict[str, Any], said: str):
    reported = {"unit": "% top-1", "decimals": 2, "cells": {"cifar10": 99.15, "pets": 94.67}}
    Reported.model_validate(reported | {"margins": {"cifar*": 0.005}, "evaluated": ["pets"]})
    with pytest.raises(ValueError, match=said):
        Reported.model_validate(reported | change)


def test_the_first_glob_that_matches_names_the_margin():
    reported = Reported.model_validate(
        {"unit": "%", "margins": {"cifar*": 0.8, "*": 0.5}, "cells": {"cifar10": 99, "pets": 94}}
    )
    assert (reported.margin("cifar10"), reported.margin("pets")) == (0.8, 0.5)


def test_judging_needs_no_torch():
    code = (
        "import sys\nfrom vitrepro.cli import app\n"
        f"try: app(['judge', '{PAPER}', '--from', '{THEIRS}', *{LAB_HERE!r}])\n"
        "except SystemExit as end: assert end.code == 1\n"
        "assert not {'torch', 'timm', 'datasets'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_cell_of_a_measure_is_not_judged_by_accuracies():
    claim = REGISTRY.claims[PAPER]
    entry = {"experiment": "x", "fidelity": "exact", "expect": {"cells": {
        "cifar10": {"arm": "a", "metric": "dev_top1_epoch_3", "margin": 1}, "pets": {"arm": "a", "margin": 1},
    }}}  # fmt: skip
    values = claim.model_dump(exclude_unset=True, exclude={"scales"})
    of = Claim.model_validate({**values, "scales": {"gpu": entry}})
    registry = dataclasses.replace(REGISTRY, experiments={"x": next(iter(REGISTRY.experiments.values()))})
    result = elsewhere.judge(registry, of, None, accuracies(cifar10=99.0, pets=94.0), Asked())
    assert "dev_top1_epoch_3 of training runs" in result.not_judged["cifar10"]
    assert [f.label for f in result.verdict.findings] == ["pets"]
