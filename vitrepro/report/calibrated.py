"""The calibration study as a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vitrepro import calibration
from vitrepro.calibration import Study, Tally
from vitrepro.report.markdown import pipe_table

_INTRODUCTION = """\
# How often the verdicts are wrong

Made by `vitrepro calibrate -o docs/calibration.md`, with fixed seeds: the same command gives the same file. Every line
is {trials:,} simulated experiments ({more:,} for values), judged by the functions that judge stored runs.

**The models.** A run is right on an image by chance, given how hard the image is: for all models (sd {shared} in
logits) and for one arm of its own (sd {own}). So the errors of two runs are correlated over images, as those of trained
models are, and independent given the image; runs that are paired by seed have the same luck on {luck:.0%} of the
images. Arms have an accuracy of about {arm:g}%. Two further populations have no hard images at all (independent coin
tosses), or seeds that differ by a shift of their own (sd {unsteady} in logits) as well.

**The margin** of each line is the one with which planning promises a power of 80% for these seeds and images, so that
the test is neither hopeless nor trivial. *False PASS* is counted where the truth lies exactly on the margin (or on the
gap asked for), *false FAIL* (EXCEEDS included) where ours equals the reported number or the arms each other; for an
ordering both are the same point, the gap itself. *Power* is the share of PASS at zero difference, for an ordering at
the gap that planning calls detectable. *Coverage* is the share of intervals that held the true value.

**The limits.** False decisions at most {wrong:.0%}; power within {power:.0%} of what was planned; coverage within
{off:.0%} of its level. An interval whose width is a bound ("at least 90%") may cover more, and does. With one or two
seeds the binomial bound stands for the spread, and trained models vary less than coin tosses; where they vary like them
(second table) it covers just its level. Paired by seed, the quantile is that of the seeds alone, and it covers just its
level where images add nothing.

A rate of 5% has a standard error of {error:.1%} here."""

_EVALUATED = """\
In a re-evaluation nothing is random but other arithmetic, which is taken to change {flipped:.2%} of the answers;
its false PASS is that of a result one image beyond the margin and the rounding of the printed number."""


_COMPARED = """\
## Intervals that the rules do not use

Coverage of a gap of zero between two arms like trained models, at a level of 95%, on 2,000 images. A bootstrap that
draws images and seeds counts the seeds' own chance twice, as seeds and within the images; t over seeds alone leaves out
that other images would give another gap."""


def document(studies: Sequence[Study], tallies: Sequence[Tally], trials: int, compared: Sequence[Tally] = ()) -> str:
    """The tables with what they mean, as markdown.

    Args:
        compared: of intervals that the rules do not use.
    """
    trained = calibration.TRAINED
    parts = [
        _INTRODUCTION.format(
            trials=trials,
            more=calibration.MORE * trials,
            shared=trained.shared,
            own=trained.own,
            luck=calibration.LUCK,
            arm=calibration.ARM,
            unsteady=calibration.UNSTEADY.unsteady,
            wrong=calibration.WRONG,
            power=calibration.POWER_OFF,
            off=calibration.OFF,
            error=(0.05 * 0.95 / trials) ** 0.5,
        ),
        f"**{summary(tallies)}**",
    ]
    for name in dict.fromkeys(s.population.name for s in studies):
        lines = [_line(t) for s, t in zip(studies, tallies, strict=True) if s.population.name == name]
        parts += [f"## Models {name}" if name.startswith("like") else f"## {name.capitalize()}", _table(lines)]
    parts.append(_EVALUATED.format(flipped=calibration.FLIPPED))
    if compared:
        names = list(compared[0].covered)
        lines = [
            [str(t.seeds), *(f"{100 * held / times:.1f}" for held, times, *_ in t.covered.values())] for t in compared
        ]
        parts += [_COMPARED, pipe_table(("seeds", *names), lines, right=("seeds", *names))]
    return "\n\n".join(parts) + "\n"


def summary(tallies: Sequence[Tally]) -> str:
    missed = list(missing(tallies))
    if not missed:
        return f"All {len(tallies)} lines are within the limits."
    return f"{len(missed)} of {len(tallies)} lines miss a limit: {'; '.join(missed)}."


def missing(tallies: Sequence[Tally]) -> Iterator[str]:
    for t in tallies:
        faults = ", ".join(t.misses())
        if faults:
            yield f"{t.claim} with {t.seeds} seed{'s' if t.seeds > 1 else ''} and {t.n:,} images ({faults})"


_HEADINGS = ("claim", "seeds", "images", "false PASS", "false FAIL", "power planned", "power seen", "coverage", "")


def _table(lines: Sequence[Sequence[str]]) -> str:
    return pipe_table(_HEADINGS, lines, right=_HEADINGS[1:7])


def _line(t: Tally) -> list[str]:
    covered = "; ".join(
        f"{what} {100 * held / times:.1f} ({'at least ' if bound else ''}{100 * level:g})"
        for what, (held, times, level, bound) in t.covered.items()
    )
    rates = (t.false_pass, t.false_fail, t.predicted, t.power if t.predicted is not None else None)
    shown = ["" if rate is None else f"{100 * rate:.1f}" for rate in rates]
    return [t.claim, str(t.seeds), f"{t.n:,}", *shown, covered, ", ".join(t.misses())]
