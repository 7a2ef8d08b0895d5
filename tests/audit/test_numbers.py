from __future__ import annotations

import functools
import itertools
import math
from decimal import ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vitrepro.audit.numbers import Audit, Check, Number, audit, copies, shown_decimals

PETS, FLOWERS, IMAGENETTE = 3669, 6149, 3925  # test images

# arXiv 2010.11929v2; the columns Pets and Flowers of Tables 2 and 5
TABLE_2_PETS = (97.56, 97.32, 94.67, 96.62)
TABLE_5_PETS = {
    "i1k": (93.81, 92.04, 93.64, 91.35),
    "i21k": (94.43, 93.02, 94.73, 93.09, 94.82),
    "jft": (95.80, 93.40, 97.11, 95.83, 97.56),
}
TABLE_2_FLOWERS = (99.68, 99.74, 99.61, 99.63)
TABLE_5_FLOWERS = {
    "i1k": (89.49, 85.43, 89.66, 86.36),
    "i21k": (99.38, 99.11, 99.61, 99.19, 99.51),
    "jft": (99.56, 99.27, 99.56, 99.45, 99.68),
}
RE_VIT = {  # mohammed183/re_vit, experiments/vit.json; the counts by trying every last batch
    "cifar10": (99.05151757188499, 10_000, (9905, 9921)),
    "cifar100": (93.21086261980831, 10_000, (9320, 9336)),
    "pets": (93.21816770926766, PETS, (3421, 3421)),
    "flowers": (98.68847150259067, FLOWERS, (6068, 6095)),
}


def rounded(x: Fraction, decimals: int) -> set[Decimal]:
    """100 * x rounded by the decimal module; a half may go up, to even or, in a float just below it, down."""
    with localcontext() as context:
        context.prec = 60
        percent = Decimal(100 * x.numerator) / Decimal(x.denominator)
        unit = Decimal(1).scaleb(-decimals)
        return {percent.quantize(unit, mode) for mode in (ROUND_HALF_UP, ROUND_HALF_EVEN, ROUND_HALF_DOWN)}


@functools.cache
def means_of_batches(n: int, batch: int) -> dict[Fraction, set[int]]:
    """Every unweighted mean over batches, with the numbers of correct images that give it; one by one."""
    full, last = divmod(n, batch)
    means: dict[Fraction, set[int]] = {}
    for s in range(full * batch + 1):
        for l in range(last + 1):
            mean = (Fraction(s, batch) + Fraction(l, last)) / (full + 1)
            means.setdefault(mean, set()).add(s + l)
    return means


def of(checked: Audit, how: str, **which: int) -> Check:
    (check,) = (c for c in checked.checks if c.how == how and all(getattr(c, k) == v for k, v in which.items()))
    return check


def fits(checked: Audit) -> list[Check]:
    return [check for check in checked.checks if check.counts]


def single(value: float, decimals: int | None, n: int) -> bool:
    return audit(Number("x", value, decimals, n)).status == "possible as k/n"


# --- k/n ----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(n=st.integers(1, 10_000), decimals=st.integers(-2, 5), data=st.data())
def test_a_number_is_possible_just_if_some_count_of_all_rounds_to_it(n: int, decimals: int, data: st.DataObject):
    counts: dict[Decimal, list[int]] = {}
    for k in range(n + 1):
        for printed in rounded(Fraction(k, n), decimals):
            counts.setdefault(printed, []).append(k)
    unit = Decimal(1).scaleb(-decimals)
    near = data.draw(st.sampled_from(sorted(counts)))
    anywhere = unit * data.draw(st.integers(0, int(100 / unit)))
    for printed in (near, near + unit, near - unit, anywhere):
        if not 0 <= printed <= 100:
            continue
        check = audit(Number("x", float(printed), decimals, n), runs=(), batches=()).checks[0]
        of_printed = counts.get(printed)
        assert check.counts == (of_printed and (min(of_printed), max(of_printed)))
        assert check.rejected == pytest.approx(1 - len(counts) / (int(100 / unit) + 1), abs=1e-12)


@pytest.mark.parametrize(
    ("n", "decimals"), [*itertools.product([1, 7, 8, 64, 77, 200, 800, 1797], [0, 1]), (800, 2), (1797, 2)]
)
def test_every_printed_number_is_sorted_as_by_trying_every_count(n: int, decimals: int):
    possible = set().union(*(rounded(Fraction(k, n), decimals) for k in range(n + 1)))
    every = [Decimal(p).scaleb(-decimals) for p in range(100 * 10**decimals + 1)]
    checks = [audit(Number("x", float(p), decimals, n), runs=(), batches=()).checks[0] for p in every]
    assert {p for p, check in zip(every, checks, strict=True) if check.counts} == possible
    assert {check.rejected for check in checks} == {1 - len(possible) / len(every)}


@pytest.mark.parametrize("printed", [12.5, 37.5, 62.5, 87.5])
def test_a_half_may_be_rounded_either_way(printed: float):
    for whole in (math.floor(printed), math.ceil(printed)):
        assert single(whole, 0, 8)


@given(n=st.integers(1, 50_000), data=st.data(), decimals=st.integers(0, 10))
def test_any_count_is_possible_rounded_or_not(n: int, data: st.DataObject, decimals: int):
    k = data.draw(st.integers(0, n))
    assert single(round(100 * k / n, decimals), decimals, n)
    assert single(100 * k / n, None, n)
    assert single(min(100.0, k / n * 100), None, n)


@given(n=st.integers(1, 50_000), data=st.data())
def test_a_count_in_single_precision_is_possible_and_said_to_be_so(n: int, data: st.DataObject):
    k = data.draw(st.integers(0, n))
    for value in (float(np.float32(100 * k / n)), 100 * float(np.float32(k / n))):
        if value <= 100 and shown_decimals(value) > 6:
            checked = audit(Number("x", value, None, n), runs=(), batches=())
            fewest, most = checked.checks[0].counts or (1, 0)
            assert fewest <= k <= most
            exact = math.isclose(value, 100 * k / n, rel_tol=1e-12)
            assert checked.checks[0].single_precision == (not exact) == ("float32" in checked.because)


def test_a_float_next_to_a_count_is_not_that_count():
    value = 100 * 3421 / PETS
    assert single(value, None, PETS)
    assert not single(value * (1 + 1e-6), None, PETS)
    assert audit(Number("x", value * (1 + 1e-6), None, PETS)).status == "not possible as any of these"


@pytest.mark.parametrize(("n", "rejected"), [(PETS, 0.633), (FLOWERS, 0.385), (10_000, 0), (50_000, 0)])
def test_two_decimals_can_be_refused_only_below_ten_thousand_images(n: int, rejected: float):
    assert audit(Number("x", 50, 2, n)).checks[0].rejected == pytest.approx(rejected, abs=5e-4)


def test_at_full_precision_practically_everything_is_refused():
    checked = audit(Number("x", 12.345678901234, None, 50_000))
    assert checked.status == "not possible as any of these"
    assert all(check.rejected > 0.999 for check in checked.checks)


def test_without_decimals_a_short_number_is_read_as_rounded_unless_it_is_a_count_exactly():
    # mohammed183/re_vit, experiments/resnet.json: Pets and CIFAR-100
    pets = audit(Number("pets", 90.65, None, PETS))
    assert (pets.status, pets.decimals, pets.checks[0].counts) == ("possible as k/n", 2, (3326, 3326))
    assert "read as rounded to 2 decimals" in pets.because
    mean = audit(Number("t2/pets", 97.56, None, PETS))
    assert (mean.status, mean.decimals) == ("only as a mean of r runs", 2)
    cifar100 = audit(Number("cifar100", 88.5, None, 10_000))
    assert (cifar100.decimals, cifar100.checks[0].counts) == (None, (8850, 8850))


@pytest.mark.parametrize("value", [math.nan, -0.1, 100.5, 97.561])
def test_what_is_no_accuracy_is_refused(value: float):
    with pytest.raises(ValueError, match=r"^some/cell: "):
        Number("some/cell", value, 2, 10)


def test_a_fraction_scaled_to_percent_is_a_number_of_its_digits():
    assert Number("t8", 0.61382 * 100, 3, PETS).value == 61.382000000000005
    assert single(0.57 * 100, 0, 7)  # 56.99999999999999; 4 of 7


# --- runs and batches ---------------------------------------------------------------------------


@given(n=st.integers(1, 10_000), runs=st.integers(2, 7), decimals=st.integers(0, 4) | st.none(), data=st.data())
def test_any_mean_of_the_stated_runs_is_found(n: int, runs: int, decimals: int | None, data: st.DataObject):
    total = data.draw(st.integers(0, runs * n))
    value = 100 * total / (runs * n)
    checked = audit(Number("x", value if decimals is None else round(value, decimals), decimals, n, runs=runs))
    assert checked.status in ("possible as k/n", "only as a mean of r runs")
    if total % runs and checked.decimals is None:
        assert of(checked, "mean of runs", runs=runs).counts == (total, total)


@pytest.mark.parametrize("decimals", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize(
    ("n", "batch"), [(3, 2), (13, 4), (23, 8), (22, 8), (13, 8), (50, 16), (75, 30), (61, 12), (200, 64), (355, 100)]
)
def test_means_of_batches_are_sorted_as_by_trying_all_of_them(n: int, batch: int, decimals: int):
    counts: dict[Decimal, set[int]] = {}
    for mean, correct in means_of_batches(n, batch).items():
        for printed in rounded(mean, decimals):
            counts.setdefault(printed, set()).update(correct)
    unit = Decimal(1).scaleb(-decimals)
    every = int(100 / unit) + 1
    for p in range(0, every, 1 + every // 300):  # near 0 they lie sparsely
        checked = audit(Number("x", float(p * unit), decimals, n), runs=(), batches=(batch,))
        check = of(checked, "mean of batches")
        correct = counts.get(p * unit, set())
        assert check.counts == ((min(correct), max(correct)) if correct else None)
        assert check.rejected == pytest.approx(1 - len(counts) / every, abs=1e-12)


@pytest.mark.parametrize(("n", "batch", "decimals"), [(PETS, 32, 2), (PETS, 256, 2), (PETS, 32, 5), (1100, 512, 4)])
def test_the_share_of_means_of_batches_is_that_of_a_full_count(n: int, batch: int, decimals: int):
    full, last = divmod(n, batch)
    steps = (full + 1) * batch * last
    points = np.unique(np.add.outer(np.arange(full * batch + 1) * last, np.arange(last + 1) * batch))
    doubled = 2 * points * 10 ** (2 + decimals)
    given = np.union1d(-((steps - doubled) // (2 * steps)), (doubled + steps) // (2 * steps))
    check = of(audit(Number("x", 50, decimals, n), batches=(batch,)), "mean of batches")
    assert check.rejected == pytest.approx(1 - len(given) / (10 ** (2 + decimals) + 1), abs=1e-12)


@given(n=st.integers(2, 10_000), batch=st.integers(1, 600), data=st.data())
def test_any_mean_of_batches_is_found(n: int, batch: int, data: st.DataObject):
    full, last = divmod(n, batch)
    assume(full and last)
    s, l = data.draw(st.integers(0, full * batch)), data.draw(st.integers(0, last))
    of_batches = [batch] * (s // batch) + ([s % batch] if s % batch else [])
    of_batches += [0] * (full - len(of_batches))
    total = sum(k / batch for k in of_batches) + l / last
    for value in (100 * total / (full + 1), sum([*(100 * k / batch for k in of_batches), 100 * l / last]) / (full + 1)):
        checked = audit(Number("x", min(value, 100.0), None, n), batches=(batch,))
        check = of(checked, "mean of batches", batch=batch)
        assert check.counts is None or check.counts[0] <= s + l <= check.counts[1]
        assert check.counts or (checked.decimals is not None and checked.checks[0].counts)
        if checked.decimals is None:
            assert not check.single_precision


def test_batches_that_weigh_the_same_are_not_tried():
    checked = audit(Number("x", 50, 2, 64), runs=(), batches=(16, 32, 60, 64, 100, 128))
    assert [check.batch for check in checked.checks] == [None, 60]


@pytest.mark.parametrize("name", RE_VIT)
def test_four_numbers_of_re_vit_are_means_over_batches_of_32_and_no_counts(name: str):
    value, n, counts = RE_VIT[name]
    checked = audit(Number(name, value, None, n))
    assert checked.status == "only as a mean of batch accuracies"
    (fit,) = fits(checked)
    assert (fit.how, fit.batch) == ("mean of batches", 32)
    # the last of the Pets batches, 18 of 21, was taken in single precision; the others hold 16 or 5 images
    assert fit.single_precision == (name == "pets")
    assert fit.counts == counts


def test_the_pets_batches_of_re_vit_leave_one_count():
    value, n, _ = RE_VIT["pets"]
    (fit,) = fits(audit(Number("pets", value, None, n)))
    assert fit.counts == (3421, 3421)
    in_single_precision = (3403 / 32 + float(np.float32(18) / np.float32(21))) / 115
    assert 100 * in_single_precision == pytest.approx(value, rel=1e-12)
    assert pytest.approx(value, rel=1e-12) != 100 * (3403 / 32 + 18 / 21) / 115


def test_the_bit_rows_of_re_vit_are_a_count_and_a_mean_of_batches():
    # experiments/resnet.json
    cifar10 = audit(Number("cifar10", 97.96, None, 10_000))
    assert (cifar10.status, cifar10.checks[0].counts) == ("possible as k/n", (9796, 9796))
    assert audit(Number("cifar10", 97.96000000000001, None, 10_000)).checks[0].counts == (9796, 9796)
    flowers = audit(Number("flowers", 98.21428571428571, None, FLOWERS))
    assert flowers.status == "only as a mean of batch accuracies"
    assert [(check.batch, check.counts) for check in fits(flowers)] == [(16, (6039, 6050)), (128, (6037, 6037))]
    known = audit(Number("flowers", 98.21428571428571, None, FLOWERS), batches=(128,))
    assert "over batches of 128 does (6,037 of 6,149)" in known.because


@pytest.mark.parametrize(("value", "k"), [(36.8408, 1446), (64.3567, 2526), (60.7898, 2386)])
def test_the_imagenette_numbers_are_counts_of_3925(value: float, k: int):
    # duoan/ReplicateAI, its two READMEs
    checked = audit(Number("imagenette", value, 4, IMAGENETTE))
    assert (checked.status, checked.checks[0].counts) == ("possible as k/n", (k, k))
    assert checked.checks[0].rejected > 0.995


def test_half_of_the_pets_numbers_of_tables_2_and_5_are_no_counts_but_can_be_means_of_runs():
    def impossible(values: tuple[float, ...]) -> list[float]:
        return [value for value in values if not single(value, 2, PETS)]

    assert impossible(TABLE_2_PETS) == [97.56, 97.32, 94.67]
    assert impossible(TABLE_5_PETS["i1k"]) == [93.64, 91.35]
    assert impossible(TABLE_5_PETS["i21k"]) == [94.43, 94.73, 93.09]
    assert impossible(TABLE_5_PETS["jft"]) == [97.56]  # repeats Table 2
    for value in (97.56, 97.32, 94.67):  # Table 2 states three runs
        checked = audit(Number("x", value, 2, PETS, runs=3))
        assert checked.status == "only as a mean of r runs"
        assert of(checked, "mean of runs", runs=3).counts
        assert of(checked, "mean of runs", runs=3).rejected == 0
        assert "possible for every number with 2 decimals" in checked.because


def test_of_the_flowers_numbers_of_tables_2_and_5_only_the_repeated_mean_of_three_is_no_count():
    for values in (TABLE_2_FLOWERS, *TABLE_5_FLOWERS.values()):
        assert [value for value in values if not single(value, 2, FLOWERS)] == [99.68] * (99.68 in values)


def test_a_number_read_off_the_wrong_row_is_noticed():
    # bwconrad/vit-finetune, README: Flowers 98.89, Pets 93.68
    assert audit(Number("flowers", 98.89, 2, FLOWERS)).checks[0].counts == (6081, 6081)
    assert audit(Number("pets", 93.68, 2, PETS)).checks[0].counts == (3437, 3437)
    wrong = audit(Number("pets", 98.89, 2, PETS))
    assert wrong.status == "only as a mean of r runs"
    assert "(3,628 gives 98.88, 3,629 gives 98.91)" in wrong.because
    assert audit(wrong.number, runs=(2,), batches=()).status == "not possible as any of these"


def test_the_sentence_says_when_another_number_of_runs_than_stated_is_needed():
    value = 100 * 7001 / (2 * PETS)
    assert "a mean of 2 runs, but not of the stated 3, does" in audit(Number("x", value, None, PETS, runs=3)).because
    assert "a mean of 2 runs does" in audit(Number("x", value, None, PETS, runs=2)).because


# --- numbers among themselves -------------------------------------------------------------------

IMAGENETTE_ROWS = {  # duoan/ReplicateAI
    "smoothing 0": {"top1": 36.8408},
    "smoothing 0.1": {"top1": 64.3567},
    "smoothing 0.1, augmented": {"top1": 64.3567},
}


def test_a_row_that_repeats_another_is_found():
    (copy,) = copies(IMAGENETTE_ROWS)
    assert (copy.rows, copy.values) == (("smoothing 0.1", "smoothing 0.1, augmented"), {"top1": 64.3567})
    assert "may be chance" in copy.because


def test_a_row_is_a_copy_only_if_all_of_the_shorter_one_stands_in_the_other():
    table_5, table_6 = {"pets": 93.40, "flowers": 99.27}, {"pets": 93.40, "flowers": 99.27, "exaflops": 55.0}
    (copy,) = copies({"a": table_6, "b": table_5})
    assert copy.values == table_5
    assert "may be chance" not in copy.because
    assert list(copies({"a": table_6, "b": {**table_5, "vtab": 1.0}})) == []
    assert list(copies({"a": table_5, "b": {**table_6, "pets": 93.41}})) == []
    assert list(copies({"a": {}, "b": table_5})) == []
