"""What printed numbers say of a statement, held against every value that they may have been rounded from."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrepro import formula
from vitrepro.formula import Comparison, Span

CELLS = {
    "a": (81.4, 1),
    "b": (81.3, 1),
    "c": (81.35, None),
    "d": (81.4, None),
    "e": (300.0, -2),
    "z": (0.0, 1),
    "n": (-2.0, 0),
    "p": (3.0, 0),
    "h": (0.5, 0),  # anything from just 0 to 1
}


def lookup(address: str) -> Span:
    return Span.printed(*CELLS[address.removeprefix("t/")])


def compared(text: str, within: float | None = None) -> Comparison:
    return formula.parse(text).compare(lookup, within)


# --- the form -------------------------------------------------------------------------------------


def test_cells_and_names_are_found_and_the_rest_is_arithmetic() -> None:
    made = formula.parse("2 * t/a - mean(@b, vit/t5-i1k/vit-b16.x) > abs(-1.5) / t/a")
    assert made.addresses == ("t/a", "@b", "vit/t5-i1k/vit-b16.x")
    assert made.compares
    assert not formula.parse("t/a + 1").compares


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3 / 2", 4.5),
        ("-t/d", -81.4),
        ("mean(1, 2, 6)", 3.0),
        ("sum(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)", 1.0),
        ("min(3, max(1, 2), 5)", 2.0),
        ("abs(1 - 3)", 2.0),
        ("1e3", 1000.0),
    ],
)
def test_values_are_those_of_arithmetic(text: str, value: float) -> None:
    assert formula.parse(text).value(lookup).value == pytest.approx(value, rel=1e-15)


def test_a_name_of_our_own_is_no_name_of_a_cell() -> None:
    for word in ("cell0", "cell", "cell_0", "cell1"):
        with pytest.raises(ValueError, match=f"'{word}' has no place in a formula"):
            formula.parse(f"{word} > t/a")


VALUES = ["t/a", "1 - 2"]  # which only `compares` tells from a check
HOSTILE = [
    *VALUES,
    "", " ", ">", "t/a > ", "t/a t/b", "t/a > 1 > 0", "t/a != 1", "t/a is 1", "t/a in t/b", "t/a and t/b > 1",
    "not t/a > 1", "~1 > 0", "+1 > 0", "9 ** 9 ** 9 > 1", "9 ** 9 ** 9 ** 9", "1 << 10_000_000_000 > 0", "7 // 2 > 1",
    "7 % 2 > 1", "().__class__ > 1", "().__class__.__bases__[0].__subclasses__() > 1", "t/a[0] > 1", "t/a() > 1",
    "__import__('os').system('true') > 1", "open('/etc/passwd') > 1", "eval('1') > 0", "getattr(1, 'real') > 0",
    "lambda: 1", "(lambda: 1)() > 0", "[x for x in (1, 2)] > 1", "sum(x for x in (1, 2)) > 1", "{1: 2} > 1",
    "f'{1}' > 1", "'a' * 1_000_000_000 > 1", "b'' > 1", "'\\d' > 1", "1 if 2 else 3", "(x := 1) > 0", "await x > 1",
    "yield", "True > 0", "None > 0", "... > 0", "1j > 0", "1e999 > 1", "1or 2 > 1", "mean() > 1", "mean(*t/a) > 1",
    "mean(x=t/a) > 1", "abs(1, 2) > 1", "pow(2, 3) > 1", "math.exp(1) > 1", "t/a; t/b", "import os", "t/a > 1\nt/b > 1",
    "t/a\x00 > 1", "\\", "1" * 3000 + " > 1", "t/a > " + "1" * 4000, "(" * 3999, "(" * 1900 + "1" + ")" * 1900 + " > 1",
    "-" * 3990 + "1 > 0", "1 + " * 990 + "1 > 0", "abs(" * 700 + "1" + ")" * 700 + " > 0", "mean(" * 100 + "t/a",
    "t/a > " + "t/b - " * 600 + "t/b", "[" * 3999, "{" * 3999, "t/a > 1" + " " * 4000, "not " * 900 + "t/a", "é > 1",
    "\u202e > 1", "@ > 1", "@@a > 1", "T/A > 1",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda t: repr(t[:30]))
def test_what_is_no_comparison_of_cells_is_refused_at_once_and_runs_nothing(text: str) -> None:
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if text in VALUES:
            assert not formula.parse(text).compares
        else:
            with pytest.raises(ValueError, match=r"formula|one comparison|takes one value"):
                formula.parse(text)
    assert told == []
    assert time.monotonic() - began < 1


@given(st.text(st.sampled_from("ab/@1.0-+*/<>=()[]{}'\",:_ \n\\lmean"), max_size=60) | st.text(max_size=60))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_formula_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        made = formula.parse(text)
        (made.compare if made.compares else made.value)(lambda _: Span.printed(2.5, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / (t/a - t/a)", "a division by what may be zero"),
        ("1 / t/z", "a division by what may be zero"),
        ("1 / t/h", "a division by what may be zero"),
        ("1 / (t/a - 81.38)", "a division by what may be zero"),
        ("1e299 * 1e299 * 1e299", "too large"),
        ("sum(1e299 * 1e9, 1e299 * 1e9) - 1e299 * 1e12", "too large"),
        ("cost_to_reach(1)", "needs a level"),
        ("cost_to_reach(1, 2)", "needs a level"),
        ("cost_to_reach(1, 2, 3, 4)", "needs a level"),
        ("cost_to_reach(1, 0, 3)", "must be positive"),
        ("cost_to_reach(1, t/z, 3)", "must be positive"),
        ("cost_to_reach(9, 1, 3) - cost_to_reach(9, 2, 3)", "not reached"),
    ],
)
def test_what_has_no_value_says_why(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        formula.parse(text).value(lookup)


def test_every_combination_is_written_out_and_too_many_are_refused() -> None:
    each = {"a": ("x", "y"), "b": ("1", "2", "3")}
    assert [formula.fill("{a}-{b}/{a}", v) for v in formula.expand(each)][1:4] == ["x-2/x", "x-3/x", "y-1/y"]
    assert list(formula.expand({})) == [{}]
    began = time.monotonic()
    with pytest.raises(ValueError, match="10,000,000,000 combinations"):
        next(iter(formula.expand({str(i): tuple("0123456789") for i in range(10)})))
    assert time.monotonic() - began < 1


def test_a_name_in_braces_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\{c\} is not one of \{a\}, \{b\}"):
        formula.fill("{a} {c}", {"a": "1", "b": "2"})
    with pytest.raises(ValueError, match=r"\{c\} is not one of none"):
        formula.fill("{c}", {})


# --- rounding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("t/a > t/b", True),  # 81.35 to 81.45 against 81.25 to 81.35: they meet and never cross
        ("t/b < t/a", True),
        ("t/b > t/a", False),
        ("t/b >= t/a", False),
        ("t/a > t/d", None),
        ("t/a >= t/a", None),  # two cells that print the same
        ("t/d > t/d", False),
        ("t/d >= t/d", True),
        ("t/a > t/c", None),  # 81.35 may print as either
        ("t/a >= t/c", True),
        ("t/b > t/c", False),
        ("t/b >= t/c", None),
        ("max(t/a, t/d) > t/d", None),
        ("max(t/a, t/d) >= t/d", True),
        ("t/a == t/b", False),
        ("t/a == t/a", True),
        ("t/a == t/c", True),
        ("t/b == t/c", True),
        ("t/d == t/c", False),
        ("t/d == t/d", True),
        ("t/z == 0", True),
        ("0 == 0", True),
        ("1 == 0", False),
        ("mean(t/a, t/b) == t/a", True),
        ("t/e > 249", True),
        ("t/e > 251", None),
        ("t/e > 351", False),
        ("abs(t/a - t/d) > 0.04", None),
        ("abs(t/a - t/d) < 0.06", True),
        ("abs(t/b - t/d) > 0.04", True),
        ("t/n * t/p > -5", None),  # -8.75 to -3.75
        ("t/n * t/p < -3.7", True),
        ("t/p / t/n > -1.5", None),  # -2.33 to -1
        ("t/p / t/p > 0.9", None),  # 0.71 to 1.4, one cell or two
        ("-t/a > -81.37", None),
        ("t/e - t/e > 150", False),
        ("t/e - t/e > 50", None),
        ("0.1 + 0.2 == 0.3", True),
        ("0.1 + 0.2 > 0.3", False),
    ],
)
def test_a_comparison_holds_fails_or_is_hidden_by_the_rounding(text: str, holds: bool | None) -> None:
    assert compared(text).holds is holds


@pytest.mark.parametrize(
    ("text", "within", "holds"),
    [
        ("t/a == t/b", 0.2, True),
        ("t/a == t/b", 0.15, None),
        ("t/a == t/b", 0.05, None),
        ("t/a == 82", 0.5, False),
        ("t/d == t/c", 0.05, True),
        ("t/d == t/c", 0.0499, False),
        ("t/d == t/d", 0, True),
    ],
)
def test_equal_within_a_difference_is_certain_or_hidden(text: str, within: float, holds: bool | None) -> None:
    assert compared(text, within).holds is holds


def test_twelve_digits_are_compared_and_float_noise_is_not() -> None:
    cells = {"t/x": Span.printed(0.123456789012, 12), "t/y": Span.printed(0.123456789011, 12)}
    assert formula.parse("t/x > t/y").compare(cells.__getitem__).holds is True
    assert formula.parse("t/x == t/y").compare(cells.__getitem__).holds is False
    cells["t/x"] = Span.printed(0.123456789014, 12)
    assert formula.parse("t/y > t/x").compare(cells.__getitem__).holds is False
    large = {"t/x": Span.exactly(1e6 + 0.1), "t/y": Span.exactly(1e6)}
    assert formula.parse("t/x - t/y == 0.1").compare(large.__getitem__).holds is True


@dataclass(frozen=True)
class Printed:
    """A formula over cells, and the cells: whole multiples of the last printed digit; None is exact."""

    text: str
    cells: Mapping[str, tuple[int, int | None]]

    def spans(self) -> Mapping[str, Span]:
        return {k: Span.printed(float(self.exact(k)), d) for k, (_, d) in self.cells.items()}

    def exact(self, name: str) -> Fraction:
        digits, decimals = self.cells[name]
        return digits * Fraction(10) ** -(decimals or 0)

    def half(self, name: str) -> Fraction:
        decimals = self.cells[name][1]
        return Fraction(0) if decimals is None else Fraction(10) ** -decimals / 2

    def points(self, shares: Sequence[Fraction]) -> Iterator[Mapping[str, Fraction]]:
        """Values at these shares of half the rounding, every combination."""
        for chosen in itertools.product(shares, repeat=len(self.cells)):
            yield {n: self.exact(n) + s * self.half(n) for n, s in zip(self.cells, chosen, strict=True)}

    def inside(self, count: int = 60) -> Iterator[Mapping[str, Fraction]]:
        """Random values that print as these cells do."""
        drawn = random.Random(0)
        for _ in range(count):
            yield {n: self.exact(n) + Fraction(drawn.randint(-999, 999), 1000) * self.half(n) for n in self.cells}

    def difference(self, values: Mapping[str, Fraction], relation: str) -> Fraction:
        """Left side less right side, exactly."""
        source = self.text.replace(relation, "-(") + ")"
        for name in self.cells:
            source = source.replace(name, f"V[{name!r}]")
        known = {"mean": lambda *x: sum(x) / len(x), "sum": lambda *x: sum(x), "min": min, "max": max, "abs": abs}
        return Fraction(eval(source, {"__builtins__": {}, "V": values, "F": Fraction, **known}))


NAMES = [f"t/c{i}" for i in range(4)]


@st.composite
def printed(draw: st.DrawFn, once: bool, relation: str) -> Printed:
    """A random comparison; with `once`, every cell stands in it at most once and nothing folds back on itself."""
    pool = list(NAMES)
    cells = {n: (draw(st.integers(-6, 6)), draw(st.sampled_from([None, 0, 0, 1]))) for n in NAMES}

    def leaf() -> str:
        return pool.pop() if once else draw(st.sampled_from(pool))

    def expression(depth: int) -> str:
        if depth == 0 or (once and len(pool) < 3) or draw(st.booleans()):
            return leaf() if not once or pool else str(draw(st.integers(-9, 9)))
        kind = draw(st.sampled_from(["+", "-", "scale", "mean", "sum", "min", "max"] + ["abs", "*"] * (not once)))
        if kind == "abs":
            return f"abs({expression(depth - 1)})"
        if kind == "scale":
            return f"{draw(st.integers(1, 5))} * ({expression(depth - 1)})"
        first, second = expression(depth - 1), expression(depth - 1)
        return f"({first} {kind} {second})" if kind in "+-*" else f"{kind}({first}, {second})"

    text = f"{expression(2)} {relation} {expression(1)}"
    return Printed(text, {n: c for n, c in cells.items() if n in text})


def truth(difference: Fraction, relation: str) -> bool:
    return {
        ">": difference > 0, ">=": difference >= 0, "<": difference < 0, "<=": difference <= 0, "==": difference == 0
    }[relation]  # fmt: skip


relations = st.sampled_from([">", ">=", "<", "<="])


@given(st.data(), relations)
@settings(max_examples=200, deadline=None)
def test_what_holds_or_fails_does_so_for_all_values_that_print_so(data: st.DataObject, relation: str) -> None:
    case = data.draw(printed(once=False, relation=relation))
    found = formula.parse(case.text).compare(case.spans().__getitem__)
    told = {truth(case.difference(values, relation), relation) for values in case.inside()}
    if found.holds is not None:
        assert told == {found.holds}
    assert math.isfinite(found.slack)


@given(st.data(), relations)
@settings(max_examples=200, deadline=None)
def test_what_is_hidden_by_the_rounding_can_come_out_either_way(data: st.DataObject, relation: str) -> None:
    case = data.draw(printed(once=True, relation=relation))
    found = formula.parse(case.text).compare(case.spans().__getitem__)
    differences = [case.difference(values, relation) for values in case.points((Fraction(-1), Fraction(1)))]
    low, high = min(differences), max(differences)
    hidden = low < 0 < high
    if any(all(d is None for n, (_, d) in case.cells.items() if n in side) for side in case.text.split(relation)):
        hidden = low <= 0 < high if relation in (">", "<=") else low < 0 <= high  # an exact side meets the edge itself
    assert (found.holds is None) == hidden
    near = (Fraction(-9, 10), Fraction(9, 10))
    inside = {truth(case.difference(values, relation), relation) for values in case.points(near)}
    assert found.holds is None or inside == {found.holds}


@given(st.data(), st.sampled_from([None, 0.0, 0.5, 3.0]))
@settings(max_examples=200, deadline=None)
def test_equality_is_told_as_all_values_that_print_so_tell_it(data: st.DataObject, within: float | None) -> None:
    case = data.draw(printed(once=True, relation="=="))
    found = formula.parse(case.text).compare(case.spans().__getitem__, within)
    ends = [case.difference(values, "==") for values in case.points((Fraction(-1), Fraction(1)))]
    low, high = min(ends), max(ends)
    if within is None:
        rounded = all(
            any(d is not None for n, (_, d) in case.cells.items() if n in side) for side in case.text.split("==")
        )
        assert found.holds is (low < 0 < high if rounded else low <= 0 <= high)
    else:
        farthest, nearest = max(-low, high), max(low, -high, Fraction(0))
        assert found.holds is (True if farthest <= within else False if nearest > within else None)


@given(st.data(), relations)
@settings(max_examples=100, deadline=None)
def test_a_comparison_read_backwards_is_the_same(data: st.DataObject, relation: str) -> None:
    case = data.draw(printed(once=False, relation=relation))
    left, right = case.text.split(f" {relation} ")
    mirror = {">": "<", ">=": "<=", "<": ">", "<=": ">="}[relation]
    one, other = (formula.parse(t).compare(case.spans().__getitem__) for t in (case.text, f"{right} {mirror} {left}"))
    assert (one.holds, one.slack) == (other.holds, other.slack)


@given(st.floats(-1e6, 1e6), st.integers(-3, 6))
def test_a_printed_number_stands_for_half_a_digit_on_each_side(value: float, decimals: int) -> None:
    span = Span.printed(value, decimals)
    assert span.high - span.low == pytest.approx(10.0**-decimals, rel=1e-3)
    assert span.low < span.value < span.high
    assert Span.printed(value, None) == Span.exactly(value) == Span(value, value, value)


# --- the cost of reaching a level -----------------------------------------------------------------


def cost(level: Span, curve: Sequence[tuple[Span, Span]]) -> Span:
    return formula.FUNCTIONS["cost_to_reach"](level, *(span for point in curve for span in point))


def exactly(curve: Sequence[tuple[float, float]]) -> list[tuple[Span, Span]]:
    return [(Span.exactly(x), Span.exactly(y)) for x, y in curve]


def by_numpy(level: float, curve: Sequence[tuple[float, float]]) -> float:
    """The same by numpy's interpolation of log x over the running best."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(curve, key=lambda p: (p[0], -p[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    xs, ys = zip(*best, strict=True)
    return float(np.exp(np.interp(level, ys, np.log(xs), right=math.inf)))


points = st.tuples(st.floats(0.1, 1e4), st.floats(0, 100))


@given(st.lists(points, min_size=1, max_size=8, unique_by=lambda p: p[0]), st.floats(0, 100))
@settings(max_examples=300, deadline=None)
def test_the_cost_of_a_level_is_numpys_interpolation_in_log_x(curve: list[tuple[float, float]], level: float) -> None:
    found = cost(Span.exactly(level), exactly(curve))
    assert found.value == pytest.approx(by_numpy(level, curve), rel=1e-9)
    assert found.low == (pytest.approx(found.value) if math.isfinite(found.value) else max(x for x, _ in curve))
    assert found.high == pytest.approx(found.value)


def test_a_curve_that_ends_below_the_level_costs_more_than_its_last_point() -> None:
    found = cost(Span.exactly(91), exactly([(1, 80), (10, 90)]))
    assert (found.low, found.value, found.high) == (10, math.inf, math.inf)
    cells = {"t/x": found, "t/y": cost(Span.exactly(85), exactly([(2, 80), (8, 90)]))}
    faster = formula.parse("t/y < t/x").compare(cells.__getitem__)
    assert faster.holds is True
    assert math.isfinite(faster.slack)
    assert formula.parse("t/x < t/y").compare(cells.__getitem__).holds is False
    assert formula.parse("t/x > t/x").compare(cells.__getitem__).holds is None
    assert math.isfinite(formula.parse("t/x > t/x").compare(cells.__getitem__).slack)
    assert formula.parse("2 * t/x > 11").compare(cells.__getitem__).holds is True


rounded = st.tuples(st.integers(2, 60), st.integers(0, 60), st.sampled_from([0, 1]), st.sampled_from([0, 1]))


@given(st.lists(rounded, min_size=1, max_size=5), st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_no_curve_that_prints_so_costs_less_or_more_than_the_span(
    drawn: list[tuple[int, int, int, int]], level: int
) -> None:
    curve = [(Span.printed(x, dx), Span.printed(y, dy)) for x, y, dx, dy in drawn]
    asked = Span.printed(level, 0)
    found = cost(asked, curve)
    assert found.low <= found.value <= found.high
    generator = np.random.default_rng(0)
    for _ in range(60):
        choices = [[[s.low, s.value, s.high, generator.uniform(s.low, s.high)] for s in point] for point in curve]
        true = [(float(generator.choice(x)), float(generator.choice(y))) for x, y in choices]
        one = by_numpy(generator.choice([asked.low, asked.value, asked.high]), true)
        assert found.low <= one * (1 + 1e-9)
        assert one <= found.high * (1 + 1e-9)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5),
    st.lists(st.integers(2, 9), min_size=5, max_size=5),
    st.floats(0.01, 0.99),
)
@settings(max_examples=100, deadline=None)
def test_where_the_order_of_the_points_is_certain_the_span_is_no_wider_than_it_must_be(
    steps: list[int], rises: list[int], share: float
) -> None:
    xs, ys = list(itertools.accumulate(steps)), list(itertools.accumulate(rises))
    curve = [(Span.printed(x * 10.0, 0), Span.printed(float(y), 0)) for x, y in zip(xs, ys, strict=False)]
    lowest, highest = curve[0][1].high, curve[-1][1].low
    level = lowest + share * (highest - lowest)
    asked = Span.exactly(level)
    found = cost(asked, curve)
    assert found.low == pytest.approx(by_numpy(level, [(x.low, y.high) for x, y in curve]))
    assert found.high == pytest.approx(by_numpy(level, [(x.high, y.low) for x, y in curve]))


def test_two_points_of_one_price_that_print_the_same_make_no_certain_order() -> None:
    """Which of two points printed at 10 came first decides whether the worse of them counts at all."""
    curve = [(Span.exactly(1.0), Span.exactly(0.0)), *[(Span.printed(10, 0), Span.exactly(y)) for y in (5.0, 10.0)]]
    found = cost(Span.exactly(9.0), curve)
    assert found.low == pytest.approx(9.5**0.9)
    assert found.high == pytest.approx(10.5)
    found = cost(Span.exactly(9.0), [*curve[:2], (Span.exactly(10.0), Span.exactly(10.0))])
    assert found.high == pytest.approx(10)


def test_a_point_that_may_lie_below_the_best_so_far_counts_only_above_it() -> None:
    first, last = exactly([(1, 5), (10, 10)])
    found = cost(Span.exactly(7.0), [first, (Span.exactly(5.0), Span.printed(5, 0)), last])
    assert found.low == pytest.approx(10**0.4)
    assert found.high == pytest.approx(5 * 2**0.4)


def test_of_two_points_of_one_height_the_cheaper_counts() -> None:
    found = cost(Span.exactly(1.0), exactly([(1, 0), (2, 0), (3, 2)]))
    assert found.low == found.value == found.high == pytest.approx(3**0.5)


def test_what_comes_after_a_point_that_reaches_the_level_does_not_matter() -> None:
    curve = [*exactly([(0.5, 0), (1, 9.5)]), (Span.exactly(5.0), Span.printed(9, 0)), *exactly([(10, 10)])]
    found = cost(Span.exactly(9.0), curve)
    assert found.low == found.value == found.high < 1
