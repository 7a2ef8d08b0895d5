"""Arithmetic over printed numbers: what the cells of a paper say of a statement, rounding included.

A printed number stands for every value that rounds to it, so each is a span, and a comparison holds, fails,
or is hidden by the rounding. A formula reads like `t5-i21k/vit-b16-cifar10 > t5-i1k/vit-b16-cifar10`: cells by
their address, `@name` for what the claim itself reports or defines, numbers, `+ - * /` between spaces, and the
functions below. Python's own parser reads it, and nothing but these nodes is evaluated.
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_LENGTH = 4000
MAX_DEPTH = 100
MAX_COMBINATIONS = 10_000
_NAME = r"[a-z0-9][a-z0-9._-]*"
_ADDRESS = re.compile(rf"@{_NAME}|(?<![a-z0-9._/]){_NAME}(?:/{_NAME})+")
_FUZZ = 1e-13  # of the largest number in a comparison; floats, not printed digits


@dataclass(frozen=True)
class Span:
    """A number with the values that its printed digits leave open."""

    low: float
    value: float
    high: float

    @staticmethod
    def exactly(value: float) -> Span:
        return Span(value, value, value)

    @staticmethod
    def printed(value: float, decimals: int | None) -> Span:
        """Of a number rounded to that many decimals (-2: to hundreds); exact without."""
        half = 0.0 if decimals is None else 0.5 * 10.0**-decimals
        return Span(value - half, value, value + half)


Lookup: TypeAlias = Callable[[str], Span]


@dataclass(frozen=True)
class Comparison:
    """What a statement comes to.

    Attributes:
        holds: True or False whatever the printed numbers were before rounding; None if that depends on them.
        slack: how far the nearest outcome is, in the unit of the two sides.
    """

    left: Span
    relation: str
    right: Span
    holds: bool | None
    slack: float


@dataclass(frozen=True)
class Formula:
    """A parsed formula: a value, or a comparison of two."""

    text: str
    addresses: tuple[str, ...]
    _tree: ast.expr
    _names: Mapping[str, str]

    @property
    def compares(self) -> bool:
        return isinstance(self._tree, ast.Compare)

    def value(self, lookup: Lookup) -> Span:
        """The value of a formula without a comparison.

        Raises:
            ValueError: a division by what may be zero, a function on what it is not defined for, or a value too
                large for a number.
        """
        return _value(self._tree, self._names, lookup)

    def compare(self, lookup: Lookup, within: float | None = None) -> Comparison:
        """Evaluate a formula that is one comparison.

        Args:
            within: for `==`, the largest difference; without, the two must agree as printed.

        Raises:
            ValueError: as for `value`.
        """
        assert isinstance(self._tree, ast.Compare)
        largest = 0.0

        def seen(address: str) -> Span:
            nonlocal largest
            span = lookup(address)
            largest = max(largest, abs(span.value) if math.isfinite(span.value) else 0.0)
            return span

        left = _value(self._tree.left, self._names, seen)
        right = _value(self._tree.comparators[0], self._names, seen)
        return _compare(left, RELATIONS[type(self._tree.ops[0])], right, within, largest)


RELATIONS: dict[type[ast.cmpop], str] = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "=="}


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Formula:
    """Read a formula.

    Raises:
        ValueError: not of this form; with what is allowed.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a formula has at most {MAX_LENGTH:,} characters, this one {len(text):,}")
    stem = "cell"
    while stem in text:  # a name that nobody wrote
        stem += "_"
    names: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        return f" {names.setdefault(match[0], f'{stem}{len(names)}')} "

    source = _ADDRESS.sub(named, text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what Python would warn of, such as `1or 2`, is no formula
            tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r} is not a formula such as 'claim/cell > 2 * other-claim/cell'") from None
    if _depth(tree) > MAX_DEPTH:
        raise ValueError(f"a formula nests at most {MAX_DEPTH} deep; sum() and mean() take many values at once")
    by_name = {short: address for address, short in names.items()}
    parts = [tree]
    if isinstance(tree, ast.Compare):
        if len(tree.ops) != 1 or type(tree.ops[0]) not in RELATIONS:
            raise ValueError(f"{text!r}: one comparison of {' '.join(RELATIONS.values())} is expected")
        parts = [tree.left, *tree.comparators]
    for part in parts:
        _check(part, by_name, text)
    return Formula(text, tuple(names), tree, by_name)


def _depth(tree: ast.AST) -> int:
    """Levels of a tree, counted without recursion."""
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def expand(each: Mapping[str, Sequence[str]]) -> Iterator[Mapping[str, str]]:
    """Every combination of the values of `each`; one empty one without any.

    Raises:
        ValueError: more than MAX_COMBINATIONS.
    """
    number = math.prod(len(values) for values in each.values())
    if number > MAX_COMBINATIONS:
        raise ValueError(f"each has {number:,} combinations; at most {MAX_COMBINATIONS:,} are written out")
    for values in itertools.product(*each.values()):
        yield dict(zip(each, values, strict=True))


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each `{name}` replaced.

    Raises:
        ValueError: a name in braces that has no value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ValueError(f"{match[0]} is not one of {', '.join(f'{{{v}}}' for v in values) or 'none'}")
        return values[match[1]]

    return re.sub(r"\{([^{}]*)\}", value, text)


# --- evaluation ---------------------------------------------------------------------------------


def _mean(*spans: Span) -> Span:
    total = _sum(*spans)
    return Span(total.low / len(spans), total.value / len(spans), total.high / len(spans))


def _sum(*spans: Span) -> Span:
    return Span(math.fsum(s.low for s in spans), math.fsum(s.value for s in spans), math.fsum(s.high for s in spans))


def _smallest(*spans: Span) -> Span:
    return Span(min(s.low for s in spans), min(s.value for s in spans), min(s.high for s in spans))


def _largest(*spans: Span) -> Span:
    return Span(max(s.low for s in spans), max(s.value for s in spans), max(s.high for s in spans))


def _absolute(span: Span) -> Span:
    ends = abs(span.low), abs(span.high)
    return Span(0.0 if span.low <= 0 <= span.high else min(ends), abs(span.value), max(ends))


def _cost_to_reach(level: Span, *points: Span) -> Span:
    """The smallest x at which a curve reaches a level, linear in log x between its running best points.

    Args:
        points: x1, y1, x2, y2, ...; every x positive.

    Returns:
        Infinity where the curve ends below the level; its low end is then the largest x.
    """
    if not points or len(points) % 2:
        raise ValueError("cost_to_reach needs a level, then x and y of each point")
    curve = list(zip(points[::2], points[1::2], strict=True))
    if min(x.low for x, _ in curve) <= 0:
        raise ValueError("cost_to_reach: every x must be positive")
    exact = [(Span.exactly(x.value), Span.exactly(y.value)) for x, y in curve]
    value, _ = _crossing(Span.exactly(level.value), exact)
    low, high = _crossing(level, curve)
    return Span(low if math.isfinite(low) else max(x.low for x, _ in curve), value, high)


def _crossing(level: Span, curve: Sequence[tuple[Span, Span]]) -> tuple[float, float]:
    """The smallest and the largest x at which the running best of points can reach a level.

    Rounding may change which points are best so far, so every pair that can enclose the crossing is considered: the
    first point at or above the level, and the best of those before it.
    """
    # of those that lie before each point, whatever the printed digits were
    bests = [max((y.low for x, y in curve if x.high < x1.low), default=-math.inf) for x1, _ in curve]
    ends: list[tuple[float, float]] = []
    for (x1, y1), best in zip(curve, bests, strict=True):
        if y1.high < level.low or best >= level.high:
            continue  # it does not reach the level, or not as the first
        if math.isinf(best):
            ends.append((x1.low, x1.high))
        for (x0, y0), passed in zip(curve, bests, strict=True):
            if x0.low <= x1.high and y0.low < level.high and y0.high >= best and y0.high > passed:
                low = _share(level.low, y0.high, y1.high), x0.low, x1.low
                high = _share(level.high, max(y0.low, best), y1.low), min(x0.high, x1.high), x1.high
                ends.append((_between(*low), _between(*high)))
    certain = any(y.low >= level.high for _, y in curve)
    return min((low for low, _ in ends), default=math.inf), max(high for _, high in ends) if certain else math.inf


def _share(level: float, y0: float, y1: float) -> float:
    """How far between two heights a level lies, in [0, 1]."""
    return 0.0 if level <= y0 else 1.0 if y1 <= level else (level - y0) / (y1 - y0)


def _between(share: float, x0: float, x1: float) -> float:
    return math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))


FUNCTIONS: dict[str, Callable[..., Span]] = {
    "mean": _mean,
    "sum": _sum,
    "min": _smallest,
    "max": _largest,
    "abs": _absolute,
    "cost_to_reach": _cost_to_reach,
}
_ONE_ARGUMENT = ("abs",)


def _check(node: ast.expr, names: Mapping[str, str], text: str) -> None:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and abs(number) < 1e300:
            return
        case ast.Name(id=name) if name in names:
            return
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), right=right):
            _check(left, names, text)
            _check(right, names, text)
            return
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _check(operand, names, text)
            return
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS and args:
            if name in _ONE_ARGUMENT and len(args) > 1:
                raise ValueError(f"{text!r}: {name} takes one value")
            for argument in args:
                _check(argument, names, text)
            return
    found = f"{node.id!r}" if isinstance(node, ast.Name) else f"a {type(node).__name__}"
    raise ValueError(
        f"{text!r}: {found} has no place in a formula; it holds addresses of cells (claim/cell), @names, numbers, "
        f"+ - * / between spaces, and {', '.join(FUNCTIONS)}"
    )


def _value(node: ast.expr, names: Mapping[str, str], lookup: Lookup) -> Span:
    try:
        span = _evaluated(node, names, lookup)
    except OverflowError:
        raise ValueError(f"a value is too large: {ast.unparse(node)[:60]}") from None
    if math.isnan(span.low + span.value + span.high) or math.isinf(span.low):
        raise ValueError("a value is too large, or the difference of two that are not reached")
    return span


def _evaluated(node: ast.expr, names: Mapping[str, str], lookup: Lookup) -> Span:
    match node:
        case ast.Constant(value=value):
            assert isinstance(value, int | float)
            return Span.exactly(float(value))
        case ast.Name(id=name):
            return lookup(names[name])
        case ast.UnaryOp(operand=operand):
            span = _value(operand, names, lookup)
            return Span(-span.high, -span.value, -span.low)
        case ast.BinOp(left=left, op=op, right=right):
            return _combine(_value(left, names, lookup), op, _value(right, names, lookup))
        case ast.Call(func=ast.Name(id=name), args=args):
            return FUNCTIONS[name](*(_value(a, names, lookup) for a in args))
    raise AssertionError(ast.dump(node))


def _combine(a: Span, op: ast.operator, b: Span) -> Span:
    match op:
        case ast.Add():
            return Span(a.low + b.low, a.value + b.value, a.high + b.high)
        case ast.Sub():
            return Span(a.low - b.high, a.value - b.value, a.high - b.low)
        case ast.Mult():
            corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
            return Span(min(corners), a.value * b.value, max(corners))
        case _:
            if b.low <= 0 <= b.high:
                raise ValueError("a division by what may be zero")
            corners = [x / y for x in (a.low, a.high) for y in (b.low, b.high)]
            return Span(min(corners), a.value / b.value, max(corners))


def _compare(left: Span, relation: str, right: Span, within: float | None, largest: float) -> Comparison:
    fuzz = _FUZZ * max(largest, *(abs(v) for v in (left.value, right.value) if math.isfinite(v)), 0.0)
    more, less = (right, left) if relation in ("<", "<=") else (left, right)
    least, most = more.low - less.high, more.high - less.low  # of their difference
    difference = more.value - less.value
    holds: bool | None
    if relation == "==" and within is not None:
        holds = True if max(-least, most) <= within + fuzz else None
        holds = False if max(least, -most) > within + fuzz else holds
        return Comparison(left, relation, right, holds, _finite(abs(within - abs(difference))))
    rounded = left.low < left.high and right.low < right.high
    if relation == "==":
        holds = least < -fuzz and most > fuzz if rounded else least <= fuzz and most >= -fuzz
        return Comparison(left, relation, right, holds, 0.0 if holds else _finite(max(least, -most)))
    if rounded:  # two roundings may reach a common edge from both sides, never cross it
        holds = True if least >= -fuzz else False if most <= fuzz else None
    elif relation in (">", "<"):
        holds = True if least > fuzz else False if most <= fuzz else None
    else:
        holds = True if least >= -fuzz else False if most < -fuzz else None
    return Comparison(left, relation, right, holds, _finite(abs(difference), max(least, -most, 0.0)))


def _finite(*distances: float) -> float:
    return next((d for d in distances if math.isfinite(d)), 0.0)
