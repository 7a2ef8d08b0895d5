"""Numbers obtained elsewhere, judged against claims."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from vitrepro import claims, elsewhere
from vitrepro.cli import app
from vitrepro.elsewhere import Asked
from vitrepro.errors import UsageError
from vitrepro.given import Given
from vitrepro.store import Store
from vitrepro.verdict import Outcome, Verdict

REGISTRY = claims.load()
PAPER, THEIRS = "vit/t2-vit-l16-i21k", "re-vit/vit-l16-i21k"
N = 797


def call(*arguments: object) -> Result:
    done = CliRunner().invoke(app, ["judge", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def judged(claim_id: str, given: dict[str, Given], **asked: Any) -> Verdict:
    claim, cell = claims.one(REGISTRY, claim_id)
    return elsewhere.judge(REGISTRY, claim, cell, given, Asked(**asked)).verdict


def accuracies(**named: float) -> dict[str, Given]:
    return {name: Given(accuracies=(a,), digits=(2,)) for name, a in named.items()}


# --- the teaching notebooks ---------------------------------------------------------------------


def notebooks(target: str, source: str) -> Verdict:
    claim = REGISTRY.claims[target]
    given, left = elsewhere.from_claim(REGISTRY.claims[source], claim)
    assert not left
    return elsewhere.judge(REGISTRY, claim, None, given, Asked()).verdict


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
    verdict = notebooks("vit/t2-bit-l-jft", "re-vit/bit-m-r152x4")
    assert {f.label: f.outcome for f in verdict.findings} == dict.fromkeys(
        ("imagenet", "cifar10", "cifar100", "pets", "flowers"), Outcome.FAIL
    )


def test_all_ten_are_judged_from_the_command_line():
    for target, source in ((PAPER, THEIRS), ("vit/t2-bit-l-jft", "re-vit/bit-m-r152x4")):
        done = call(target, "--from", source, "--json")
        document = json.loads(done.stdout)
        assert done.exit_code == document["exit_code"] == 1
        assert len(document["verdict"]["findings"]) == 5
        assert document["not_judged"] == {}


def test_means_of_batches_are_told_from_counts():
    notes = "; ".join(notebooks(PAPER, THEIRS).qualifiers)
    for cell in ("cifar10", "cifar100", "pets", "flowers"):
        assert f"{cell}: " in notes
    assert "imagenet: " not in notes


# --- one number ---------------------------------------------------------------------------------


def test_a_number_from_elsewhere_says_so_and_never_reproduces():
    verdict = judged(f"{PAPER}/cifar10", accuracies(cifar10=99.05))
    assert verdict.outcome is Outcome.PASS
    assert verdict.qualifiers == ("not run by vitrepro", "1 seed")
    assert (verdict.scale, verdict.fidelity) == ("paper", "elsewhere")
    assert verdict.support == "numbers from elsewhere agree, not run by vitrepro"


def test_the_same_number_is_the_same_verdict_however_it_is_given():
    texts = [("--accuracy", "99.05"), ("--correct", "9905"), ("--accuracy", "cifar10=99.05")]
    found = [json.loads(call(f"{PAPER}/cifar10", *t, "--json").stdout)["verdict"] for t in texts]
    assert found[0] == found[1] == found[2]
    named = call(PAPER, "--accuracy", "cifar10=99.05", "--n", "10000", "--json")
    assert json.loads(named.stdout)["verdict"] == found[0]


def test_several_runs_are_several_seeds_and_so_is_a_mean_with_its_deviation():
    three = judged(f"{PAPER}/cifar10", {"": Given((99.0, 99.1, 99.2), digits=(1, 1, 1))})
    mean = judged(f"{PAPER}/cifar10", accuracies(cifar10=99.1), seeds=3, sd=0.1)
    assert three.seeds == mean.seeds == 3
    ends = [(i.low, i.high) for v in (three, mean) if (i := v.findings[0].deciding)]
    assert ends[0] == pytest.approx(ends[1])


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
    verdict = judged("vit/t2-vit-l16-i21k/vtab", accuracies(vtab=72.7), n=1000, margin=5.0)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "margin given by hand" in verdict.qualifiers
    assert "it would have been PASS" in verdict.reason


def test_a_released_model_evaluated_again_is_judged_by_its_counts():
    """re-vit evaluated a released model on ImageNet: 84.962 is 42,481 of 50,000, and 0.1 point is 50 images."""
    for correct, outcome in ((42_481, "PASS"), (42_531, "PASS"), (42_532, "EXCEEDS"), (42_430, "FAIL")):
        verdict = judged(f"{THEIRS}/imagenet", {"": Given(counts=(correct,))})
        assert verdict.outcome.value == outcome, correct
        assert verdict.findings[0].deciding is None
        assert not any("seed" in q for q in verdict.qualifiers)
    same = "vit/t5-i21k/vit-b16-cifar10"  # one number, 98.95
    assert judged(same, {"": Given(counts=(9_885,))}, same_weights=True).outcome is Outcome.PASS
    assert judged(same, {"": Given(counts=(9_884,))}, same_weights=True).outcome is Outcome.FAIL


# --- arms ---------------------------------------------------------------------------------------

ARMS = "vit-project/scratch-resnet-above-vit-1k"


def test_an_ordering_of_accuracies_alone_is_unpaired():
    three = {"resnet-1k": Given((98.2, 98.4, 98.6)), "vit-1k": Given((86.0, 86.5, 87.0))}
    given = {name: Given(g.accuracies, digits=(1, 1, 1)) for name, g in three.items()}
    verdict = judged(ARMS, given, scale="quick")
    assert verdict.outcome is Outcome.PASS
    assert "unpaired, from accuracies alone" in verdict.qualifiers
    swapped = {"resnet-1k": given["vit-1k"], "vit-1k": given["resnet-1k"]}
    assert judged(ARMS, swapped, scale="quick").outcome is Outcome.FAIL


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


# --- what cannot be judged ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--accuracy", "nan"], "nan is no accuracy"),
        (["--accuracy", "inf"], "inf is no accuracy"),
        (["--accuracy", "173"], "173 is not between 0 and 100"),
        (["--accuracy", "-3"], "-3 is not between 0 and 100"),
        (["--accuracy", "0.9905"], "accuracies are in percent; did you mean 99.05?"),
        (["--accuracy", "ninety"], "'ninety' is no number"),
        (["--accuracy", "99.05,"], "a value for each training run"),
        (["--accuracy", "cifar11=99"], "did you mean 'cifar10'"),
        (["--correct", "10001"], "more than the 10,000 test images"),
        (["--correct", "99.5"], "no number of images"),
        (["--accuracy", "99", "--correct", "9900"], "given in two ways"),
        (["--accuracy", "99", "--accuracy", "98"], "given twice"),
        (["--accuracy", "99", "--n", "9999"], "is of 10,000 test images; other images cannot be held against it"),
        (["--accuracy", "99", "--n", "0"], "one image or more"),
        (["--accuracy", "99", "--margin", "0.3"], "registers 0.5 points for cifar10; leave it out"),
        (["--accuracy", "99", "--margin", "0"], "above 0 and below 50"),
        (["--accuracy", "99", "--margin", "nan"], "above 0 and below 50"),
        (["--accuracy", "99", "--seeds", "3"], "give both and one accuracy"),
        (["--accuracy", "99", "--sd", "0.1"], "give both and one accuracy"),
        (["--accuracy", "99", "--seeds", "3", "--sd", "-1"], "0 or more"),
        (["--accuracy", "99", "--scale", "cpu"], "no check of accuracies at scale cpu (it has paper)"),
        (["--from", "vit/t1-variants"], "none of its cells"),
        (["--from", PAPER], "a claim's own numbers say nothing of it"),
        (["--accuracy", "99", "--same-weights"], "a mean of several runs, which no one set of weights has"),
        (["--accuracy", "99", "--seeds", "9999999999", "--sd", "0.1"], "at most 1,000"),
        (["--accuracy", "99", "--seeds", "3", "--sd", "50"], "would not stay within 0 and 100"),
        (["--predictions", "missing.csv"], "missing.csv: No such file"),
        ([], "nothing is given to judge"),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_a_word_of_their_own(arguments: list[str], words: str):
    done = call(f"{PAPER}/cifar10", *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected id,predicted,label or id,correct"),
        ("id,predicted,label\n", "no predictions in it"),
        ("image,guess\n0,1\n", "columns image, guess; expected"),
        ("id,correct\n0,2\n", "correct is 2, expected 0 or 1"),
        ("id,correct\n0,x\n", ":2: correct is 'x', expected a whole number"),
        ("id,correct\n0,1\n0,1\n", "image 0 stands 2 times"),
        ("id,correct\n0,1\n1,1\n", "2 images of the 10,000 of cifar10; part of a test set decides nothing"),
        ("id,correct\n" + "".join(f"{i + 7},1\n" for i in range(10_000)), "ids from 7 to 10006, expected 0 to 9,999"),
        ("id,predicted,label\n" + "".join(f"{i},3,3\n" for i in range(10_000)), "all labels are 3"),
        ("\x00\x01", "columns"),
    ],
)
def test_files_that_tell_nothing_are_refused(tmp_path: Path, content: str, words: str):
    path = tmp_path / "p.csv"
    path.write_text(content)
    done = call(f"{PAPER}/cifar10", "--predictions", path)
    assert done.exit_code == 2
    assert str(path) in done.stderr
    assert words in done.stderr


def test_files_of_other_images_are_not_held_against_each_other(tmp_path: Path):
    a, b = predictions(tmp_path / "a.csv", 700), predictions(tmp_path / "b.csv", 700, seed=1)
    b.write_text(b.read_text().replace("\n5,5,5\n", "\n5,5,6\n").replace("\n5,6,5\n", "\n5,6,6\n"))
    seeds = call(ARMS, "--scale", "quick", "--predictions", f"resnet-1k={a},{b}", "--predictions", f"vit-1k={a}")
    assert "image 5 has label 6" in seeds.stderr
    arms = call(ARMS, "--scale", "quick", "--predictions", f"resnet-1k={a}", "--predictions", f"vit-1k={b}")
    assert "different labels: they are of different images" in arms.stderr
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
    ("claim_id", "given", "words"),
    [
        ("vit/t1-variants", {"": 1.5}, "no check that accuracies could decide"),
        ("replicate-ai/smoothing-spreads-attention", {"": 50.0}, "rests on measures of trained models"),
        (PAPER, {"": 99.0}, "has several cells; name one"),
        (PAPER, {"core-days": 50.0}, "registers no margin for core-days"),
        (ARMS, {"resnet-1k": 80.0}, "nothing is given for vit-1k"),
        (ARMS, {"resnet": 80.0}, "has no arm 'resnet'"),
        ("vit/t6-exaflops-vit*", {"": 50.0}, "no claim"),
    ],
)
def test_claims_that_accuracies_cannot_decide_say_why(claim_id: str, given: dict[str, float], words: str):
    with pytest.raises(UsageError, match=words):
        judged(claim_id, {name: Given((a,), digits=(1,)) for name, a in given.items()}, n=10_000)


def test_what_has_no_counterpart_or_no_margin_is_named():
    done = call("re-vit/bit-m-r152x4", "--from", "vit/t2-bit-l-jft", "--json")
    assert set(json.loads(done.stdout)["not_judged"]) == {"imagenet-real", "vtab", "core-days"}
    done = call(PAPER, "--from", "vit/t2-bit-l-jft")
    assert "vtab: not judged: vit/t2-vit-l16-i21k registers no margin for vtab" in done.stdout


def test_judging_needs_no_torch():
    code = (
        "import sys\nfrom vitrepro.cli import app\n"
        f"try: app(['judge', '{PAPER}', '--from', '{THEIRS}'])\nexcept SystemExit as end: assert end.code == 1\n"
        "assert not {'torch', 'timm', 'datasets'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
