"""Arithmetic over printed numbers: what the cells of a paper say of a statement, rounding included.

A printed number stands for every value that rounds to it, so each is a span, and a comparison holds, fails,
or is hidden by the rounding. A formula reads like `t5-i21k/vit-b16-cifar10 > t5-i1k/vit-b16-cifar10`: cells by
their address, `@name` for what the claim itself reports or defines, numbers, `+ - * /` between spaces, and the
functions below. Python's own parser reads it, and nothing but these nodes is evaluated.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

MAX_LENGTH = 4000
_NAME = r"[a-z0-9][a-z0-9._-]*"
_ADDRESS = re.compile(rf"@{_NAME}|(?<![a-z0-9._/-]){_NAME}(?:/{_NAME})+")
_FUZZ = 1e-9  # of the size of what is compared; floats, not printed digits


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
            ValueError: a division by what may be zero, or a function on what it is not defined for.
        """
        return _value(self._tree, self._names, lookup)

    def compare(self, lookup: Lookup, within: float | None = None) -> Comparison:
        """Evaluate a formula that is one comparison.

        Args:
            within: for `==`, the largest difference; without, the two must agree as printed.
        """
        assert isinstance(self._tree, ast.Compare)
        left = _value(self._tree.left, self._names, lookup)
        right = _value(self._tree.comparators[0], self._names, lookup)
        return _compare(left, RELATIONS[type(self._tree.ops[0])], right, within)


RELATIONS: dict[type[ast.cmpop], str] = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "=="}


def parse(text: str) -> Formula:
    """Read a formula.

    Raises:
        ValueError: not of this form; with what is allowed.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a formula has at most {MAX_LENGTH:,} characters, this one {len(text):,}")
    names: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        return f" {names.setdefault(match[0], f'cell{len(names)}')} "

    source = _ADDRESS.sub(named, text)
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r} is not a formula such as 'claim/cell > 2 * other-claim/cell'") from None
    by_name = {short: address for address, short in names.items()}
    parts = [tree]
    if isinstance(tree, ast.Compare):
        if len(tree.ops) != 1 or type(tree.ops[0]) not in RELATIONS:
            raise ValueError(f"{text!r}: one comparison of {' '.join(RELATIONS.values())} is expected")
        parts = [tree.left, *tree.comparators]
    for part in parts:
        _check(part, by_name, text)
    return Formula(text, tuple(names), tree, by_name)


def expand(each: Mapping[str, Sequence[str]]) -> Iterator[Mapping[str, str]]:
    """Every combination of the values of `each`; one empty one without any."""
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
    xs, ys = points[::2], points[1::2]
    if min(x.low for x in xs) <= 0:
        raise ValueError("cost_to_reach: every x must be positive")

    def reach(y: float, curve: list[tuple[float, float]], beyond: float) -> float:
        best: list[tuple[float, float]] = []
        for x, height in sorted(curve):
            if not best or height > best[-1][1]:
                best.append((x, height))
        for (x0, y0), (x1, y1) in itertools.pairwise([(best[0][0], -math.inf), *best]):
            if y <= y1:
                share = 1.0 if math.isinf(y0) else (y - y0) / (y1 - y0)
                return math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))
        return beyond

    return Span(
        reach(level.low, [(x.low, y.high) for x, y in zip(xs, ys, strict=True)], max(x.low for x in xs)),
        reach(level.value, [(x.value, y.value) for x, y in zip(xs, ys, strict=True)], math.inf),
        reach(level.high, [(x.high, y.low) for x, y in zip(xs, ys, strict=True)], math.inf),
    )


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


def _compare(left: Span, relation: str, right: Span, within: float | None) -> Comparison:
    fuzz = _FUZZ * max((abs(v) for v in (left.value, right.value) if math.isfinite(v)), default=1.0)
    if relation == "==":
        apart = _absolute(_combine(left, ast.Sub(), right))
        if within is None:
            equal = apart.low <= fuzz
            return Comparison(left, relation, right, equal, 0.0 if equal else apart.low)
        holds = True if apart.high <= within + fuzz else False if apart.low > within + fuzz else None
        return Comparison(left, relation, right, holds, abs(within - apart.value))
    more, less = (left, right) if relation in (">", ">=") else (right, left)
    # rounding may reach a common edge from both sides, never cross it
    if more.low > less.high + fuzz or (relation in (">=", "<=") and more.low >= less.high - fuzz):
        holds = True
    elif (more.low == more.high and less.low == less.high) or more.high <= less.low + fuzz:
        holds = False
    elif more.low >= less.high - fuzz and (more.low < more.high or less.low < less.high):
        holds = True
    else:
        holds = None
    slack = abs(more.value - less.value) if math.isfinite(more.value - less.value) else abs(more.low - less.high)
    return Comparison(left, relation, right, holds, slack)
