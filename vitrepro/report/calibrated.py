"""The calibration study as a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vitrepro.audit import calibration
from vitrepro.audit.calibration import Measured, Pairs, Rates, described
from vitrepro.judge.finding import POWER
from vitrepro.judge.spread import FAR, stored
from vitrepro.report.text import pipe_table

Useful = tuple[str, float, float]

_INTRODUCTION = """\
# How often the verdicts are wrong

`vitrepro calibrate -o docs/calibration.md` makes this document. Seeds are fixed: the same command gives the same file.
Every cell is {trials:,} simulated experiments. The functions that judge stored runs judge them.

**Truth.** The truth is the mean over all seeds of a recipe. It lies exactly on an edge of the region, where every
decision is wrong. Two margins are tried: the one that {power:.0%} of the intervals of an equal pair fit into, and a
tenth of it. *Other images* means that the truth is the mean over other test images, too.

**A cell** is `false PASS / false FAIL (coverage)` in percent. EXCEEDS counts as FAIL. The worst edge of both margins is
printed. Coverage is the share of intervals that hold the truth; an arm that a failed run stops decides nothing and
counts as covered. *Stopped* is the share of experiments that the failed-run rule stops: a run {far:g} bounds below the
median of its arm. A *bound* is the binomial standard error of one accuracy.

**The limits.** False decisions at most {wrong:.0%}. Coverage at most {off:.0%} under its level, which is 90% for a
value and an equality and 95% for an ordering and a gain. A rate of 5% has a standard error of {error:.2%} here.

*No counts* is a measure such as a loss, whose least deviation nothing tells. One or two seeds from scratch confirm
nothing, so their false PASS is 0 by rule; their false FAIL is counted."""

_FORTY = """\
## What seeds look like

Forty seeds each of four small arms, trained from scratch (`docs/seeds`), are four of the worlds below, drawn
without replacement. `luck` is what each image leaves to chance, in bounds: the rest of the spread is common to all
images. Stored arms of three seeds (`vitrepro/judge/spread.json`) have a lower quartile of {least:g} and an
upper quartile of {most:g} bounds.

![Each of forty seeds of four arms, in binomial bounds from the mean of its arm](seeds/seeds.svg)"""

_PAIRS = """\
## One stored seed against another of its arm

The spread of one seed is fitted without the experiment at hand. In arms of three seeds without a failed run at most
{wrong:.0%} may come out FAIL or EXCEEDS; the rates over all stored arms stand beside it."""

_SHOWN = """\
## Shown, not promised

No rule that still decides keeps these worlds within the limits. {missed} of the {count} lines miss one."""

_HEADINGS = ("world", "seeds", *calibration.KINDS, "stopped")


def document(rates: Sequence[Rates], useful: Sequence[Useful], pairs: Sequence[Pairs], trials: int) -> str:
    """The tables with what they mean, as markdown."""
    head = _INTRODUCTION.format(
        trials=trials,
        power=POWER,
        far=FAR,
        wrong=calibration.WRONG,
        off=calibration.OFF,
        error=(0.05 * 0.95 / trials) ** 0.5,
    )
    kept, shown = ([r for r in rates if bool(r.study.why) is shown] for shown in (False, True))
    missed = sum(bool(r.misses()) for r in shown)
    return (
        "\n\n".join(
            [
                head,
                f"**{summary(rates, useful, pairs)}**",
                _FORTY.format(least=stored().least, most=stored().unsteady),
                _arms(calibration.measured()),
                "## Promised worlds, from scratch",
                _table([r for r in kept if r.study.regime == "scratch"]),
                "## Promised worlds, fine-tuned from released weights",
                _table([r for r in kept if r.study.regime == "fine-tuned"]),
                _PAIRS.format(wrong=calibration.WRONG),
                _pairs(pairs),
                _SHOWN.format(missed=missed, count=len(shown)),
                pipe_table(("claim", "world", "seeds", "rates", "misses", "why"), map(_line, shown)),
                "## What the rules can still tell",
                pipe_table(("", "seen", "asked"), map(_useful, useful), right=("seen", "asked")),
            ]
        )
        + "\n"
    )


def summary(rates: Sequence[Rates], useful: Sequence[Useful], pairs: Sequence[Pairs]) -> str:
    """How many lines of promised worlds are within the limits."""
    kept = [r for r in rates if not r.study.why]
    missed = list(missing(rates, useful, pairs))
    if not missed:
        return f"All {len(kept)} studies of promised worlds are within the limits, and all {len(useful)} of usefulness."
    return f"{len(missed)} of {len(kept) + len(useful) + len(pairs)} promised lines miss a limit: {'; '.join(missed)}."


def missing(rates: Sequence[Rates], useful: Sequence[Useful], pairs: Sequence[Pairs]) -> Iterator[str]:
    """What misses a limit that is promised."""
    for r in rates:
        if not r.study.why and r.misses():
            yield f"{r.study.kind}, {r.study.name}, seeds {_seeds(r)} ({', '.join(r.misses())})"
    yield from (what for what, seen, asked in useful if seen < asked)
    yield from (f"one stored seed against another at a margin of {p.margin:g}" for p in pairs if p.missed)


def _arms(arms: Sequence[Measured]) -> str:
    headings = ("arm", "images", "mean, %", "bound", "spread, bounds", "least", "most", "skewness", "luck")
    shown = {"mean": ".2f", "bound": ".2f", "spread": ".2f", "least": "+.1f", "most": "+.1f", "skewness": "+.2f"}
    lines = [
        [a.name, f"{a.right.shape[1]:,}", *(f"{told[key]:{form}}" for key, form in {**shown, "luck": ".2f"}.items())]
        for a, told in ((a, described(a.right)) for a in arms)
    ]
    return pipe_table(headings, lines, right=headings[1:])


def _table(rates: Sequence[Rates]) -> str:
    lines: dict[tuple[str, str], dict[str, Rates]] = {}
    for r in rates:
        lines.setdefault((r.study.name, _seeds(r)), {})[r.study.kind] = r
    return pipe_table(
        _HEADINGS,
        (
            [*key, *(_cell(found[kind]) if kind in found else "" for kind in calibration.KINDS), _stopped(found)]
            for key, found in lines.items()
        ),
        right=_HEADINGS[1:],
    )


def _pairs(pairs: Sequence[Pairs]) -> str:
    def share(wrong: int, of: int) -> str:
        return f"{100 * wrong / of:.1f}% of {of}"

    headings = ("margin", "arms without a failed run", "all stored arms")
    lines = [[f"{p.margin:g}", share(p.wrong, p.pairs), share(p.wrong_of_all, p.all_pairs)] for p in pairs]
    return pipe_table(headings, lines, right=headings)


def _seeds(r: Rates) -> str:
    return " and ".join(str(k) for k in dict.fromkeys(r.study.seeds))


def _stopped(found: dict[str, Rates]) -> str:
    return f"{100 * max(r.stopped for r in found.values()):.0f}"


def _cell(r: Rates) -> str:
    text = f"{100 * r.false_pass:.1f} / {100 * r.false_fail:.1f} ({100 * r.covered:.0f})"
    return f"**{text}**" if r.misses() else text


def _line(r: Rates) -> list[str]:
    return [r.study.kind, r.study.name, _seeds(r), _cell(r), ", ".join(r.misses()), r.study.why if r.misses() else ""]


def _useful(u: Useful) -> list[str]:
    what, seen, asked = u
    return [what, f"{seen:.3f}", f"at least {asked:.3g}{'' if seen >= asked else ' **missed**'}"]
