from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_store import Lab, N, claim, sizes
from scipy.stats import t
from test_markdown import table, text_of
from test_plots import words

from vitrepro.judge.rejudge import rejudge
from vitrepro.judge.spread import stored
from vitrepro.judge.stats import Interval, binomial_sd
from vitrepro.report.plots import write_plots
from vitrepro.report.sizes import Gap, Pair, Sizes, by_experiment

CROSSING = {
    "vit-n100": 300,
    "vit-n300": 500,
    "vit-n1000": 760,
    "resnet-n100": 420,
    "resnet-n300": 500,
    "resnet-n1000": 690,
}


def trained(lab: Lab, starts: dict[str, int], seeds: int = 3) -> Sizes:
    """Two claims that share an experiment, each about some of its sizes."""
    lab.design(sizes())
    numbers = {arm: [k + 4 * seed for seed in range(seeds)] for arm, k in starts.items()}
    for size in ("n100", "n300", "n1000"):
        expect = {"all": [{"greater": f"vit-{size}", "than": f"resnet-{size}"}]}
        lab.say(claim(f"vit/f4-{size}", "ordering", expect, experiment="training-sizes"))
        lab.verify(f"vit/f4-{size}", {a: k for a, k in numbers.items() if a.endswith(size)})
    return by_experiment(rejudge(lab.registry, lab.store))["training-sizes"]


def test_a_line_has_the_mean_and_students_interval_of_the_seeds_of_every_claim_about_the_experiment(lab: Lab):
    found = trained(lab, CROSSING)
    assert list(found.lines) == ["resnet", "vit"] or list(found.lines) == ["vit", "resnet"]
    assert [p.size for p in found.lines["vit"]] == [100, 300, 1000] == found.sizes
    for point in found.lines["vit"]:
        own = 100 * (CROSSING[f"vit-n{point.size}"] + np.array([0, 4, 8])) / N
        sd = max(own.std(ddof=1), stored().least * binomial_sd(own.mean(), N))  # the least of stored arms
        half = t.ppf(0.975, 2) * sd / np.sqrt(3)
        assert point.accuracies == pytest.approx(own)
        assert point.mean == pytest.approx(own.mean())
        assert point.interval.high == pytest.approx(min(100, own.mean() + half))
        assert point.interval.low == pytest.approx(own.mean() - half)


def test_a_gap_of_two_lines_is_the_difference_of_their_means_with_the_interval_that_a_verdict_has(lab: Lab):
    found = trained(lab, CROSSING)
    (pair,) = found.pairs
    of = {j.entry.claim_id: j.verdict for j in rejudge(lab.registry, lab.store)}
    sign = 1 if pair.first == "vit" else -1
    for gap in pair.gaps:
        means = {name: next(p.mean for p in line if p.size == gap.size) for name, line in found.lines.items()}
        assert gap.difference == pytest.approx(means[pair.first] - means[pair.second])
        verdict = of[f"vit/f4-n{gap.size}"]
        assert verdict is not None
        i = verdict.findings[0].interval
        assert i is not None
        assert sorted((sign * gap.interval.low, sign * gap.interval.high)) == pytest.approx([i.low, i.high])


def test_two_lines_cross_between_the_nearest_sizes_at_which_the_order_is_told_both_ways(lab: Lab, tmp_path: Path):
    found = trained(lab, CROSSING)
    (pair,) = found.pairs
    assert pair.crossings == ((100, 1000),)
    assert pair.sentence == (
        "vit overtakes resnet between 100 and 1,000 training images; "
        f"which of {pair.first} and {pair.second} is above at 300 is not told"
    )
    judged = rejudge(lab.registry, lab.store)
    (figure,) = write_plots(judged, lab.store, tmp_path, {"training-sizes": found})["experiment training-sizes"]
    assert " cross" in words(figure.read_bytes())
    text = text_of(lab)
    assert "vit overtakes resnet between 100 and 1,000 training images" in text
    rows = table(text, "training images")
    assert [r["training images"] for r in rows] == ["100", "300", "1,000"]
    assert rows[0]["vit"].startswith(f"{100 * 304 / N:.2f} (")


def test_an_order_that_is_told_at_some_sizes_only_is_no_crossing():
    def at(size: int, low: float, high: float) -> Gap:
        return Gap(size, (low + high) / 2, Interval(low, high, 0.95, ""))

    pair = Pair("a", "b", (at(10, 1, 3), at(100, -1, 1), at(1000, 2, 3)))
    assert pair.crossings == ()
    assert pair.sentence == (
        "a is above b at 10, 1,000 training images, so no crossing is shown; "
        "which of a and b is above at 100 is not told"
    )
    assert Pair("a", "b", (at(10, -3, 3),)).sentence == "which of a and b is above at 10 is not told"
    assert Pair("a", "b", (at(1, -3, -2), at(2, 2, 3))).sentence == "a overtakes b between 1 and 2 training images"


def test_fine_tuned_lines_have_the_spread_of_their_own_seeds(lab: Lab):
    trained(lab, CROSSING)
    for run_id in lab.store.run_ids():
        record = lab.store.record(run_id)
        assert record is not None
        result = record.result.model_copy(update={"initial_sha256": "released"})
        lab.store.finish(record.model_copy(update={"result": result}), lab.store.predictions(run_id))
    found = by_experiment(rejudge(lab.registry, lab.store))["training-sizes"]
    for point in found.lines["vit"]:
        half = t.ppf(0.975, 2) * 100 * 4 / N / np.sqrt(3)
        assert point.interval.high - point.mean == pytest.approx(half)


def test_a_size_at_which_a_run_failed_tells_no_order(lab: Lab):
    """One of three ViTs guesses; the others are far above the ResNets."""
    lab.design(sizes())
    for size, vit in (("n100", [80, 600, 604]), ("n300", [600, 604, 608])):
        expect = {"all": [{"greater": f"vit-{size}", "than": f"resnet-{size}"}]}
        lab.say(claim(f"vit/f4-{size}", "ordering", expect, experiment="training-sizes"))
        lab.verify(f"vit/f4-{size}", {f"vit-{size}": vit, f"resnet-{size}": [300, 304, 308]})
    (pair,) = by_experiment(rejudge(lab.registry, lab.store))["training-sizes"].pairs
    assert [(g.sign != 0, g.failed) for g in pair.gaps] == [(False, ("vit",)), (True, ())]
    assert pair.sentence == (
        "vit is above resnet at 300 training images, so no crossing is shown; "
        "at 100 runs of vit failed, so nothing is told there"
    )


def test_with_fewer_than_three_seeds_the_interval_is_over_test_images(lab: Lab):
    found = trained(lab, CROSSING, seeds=1)
    assert {p.interval.method for p in found.lines["vit"]} == {"wilson"}


def test_arms_that_differ_in_the_model_alone_make_no_line(verified: Lab):
    assert by_experiment(rejudge(verified.registry, verified.store)) == {}
