"""The audit of verdicts: what each verdict of a store would have been of a claim that reads otherwise."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from vitrepro.audit.sensitivity import STEPS, Examined, Trial, examine, examine_literal
from vitrepro.claims import Registry
from vitrepro.errors import UsageError
from vitrepro.judge.finding import Outcome
from vitrepro.judge.rejudge import Judged, rejudge
from vitrepro.report import text, words
from vitrepro.report.terminal import print_lines, style
from vitrepro.store import Store

MOVED = tuple(f"{step:+d}" for step in STEPS)
HEADINGS = ("claim", "scale", "outcome", "could have been", "nearest change", *MOVED, "reversed")
TABLE_WIDTH = 150  # columns of a terminal below which the table would be folded beyond reading
LEGEND = (
    "Under -3 to +3 stands the outcome with the reported number moved by so many margins, or with a gap or bound that "
    "is so much easier or harder to meet; of printed numbers one cell at a time. What stands in brackets does not "
    "count: no measurement could have led there."
)


@dataclass(frozen=True)
class Audited:
    """One verdict of a store.

    Attributes:
        why: what keeps it from being decided; empty where it is decided.
        examined: None where nothing could be judged again.
        ours: it is on a question of ours, whose outcomes have words of their own.
    """

    claim_id: str
    scale: str
    outcome: str
    why: str
    examined: Examined | None
    ours: bool = False

    @property
    def shown(self) -> str:
        return text.outcome(self.outcome, self.ours)

    @property
    def fixed(self) -> bool:
        return self.examined is not None and self.examined.fixed

    @property
    def decided(self) -> bool:
        return self.examined is not None and self.examined.verdict.outcome.decided

    @property
    def name(self) -> str:
        return f"{self.claim_id} at {self.scale}"


def audited(registry: Registry, store: Store, chosen: Collection[str] | None = None) -> list[Audited]:
    """Every verdict of a store under every perturbation of its claim; by claim, then scale.

    Args:
        chosen: ids of claims; None for all that the store holds.

    Raises:
        UsageError: there is no such store, or no verdict in it to look at.
    """
    if not store.root.is_dir():
        raise UsageError(f"{store.root}: no such store; `vitrepro verify` makes one, --store names another")
    entries, faults = store.verdicts()
    if not entries:
        none = f"{store.root}: holds no verdicts; `vitrepro verify` makes some, --store names another store"
        raise UsageError("\n".join([none, *faults]))
    wanted = [e for e in entries if chosen is None or e.claim_id in chosen]
    if not wanted:
        held = list(dict.fromkeys(e.claim_id for e in entries))
        some = ", ".join(held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "")
        raise UsageError(f"{store.root}: holds no verdict of these claims, only of {some}; `vitrepro verify` makes one")
    return [_audited(registry, j) for j in rejudge(registry, store, wanted)]


def _audited(registry: Registry, judged: Judged) -> Audited:
    claim, found, entry = judged.claim, judged.verdict, judged.entry
    if claim is None or found is None:
        return Audited(entry.claim_id, entry.scale, entry.outcome, f"not judged again: {judged.changes[0]}", None)
    examined = None
    if judged.stands and (found.outcome.decided or found.outcome is Outcome.INCONCLUSIVE):
        examined = examine(claim, found)
    elif found.fidelity == "literal":
        examined = examine_literal(claim, found, registry.cells(claim))
    why = "" if found.outcome.decided else words.reason(found)
    return Audited(entry.claim_id, entry.scale, found.outcome.value, why, examined, claim.ours)


def summary(found: Sequence[Audited]) -> str:
    """How many decided verdicts could not have come out otherwise, by name, and how many are undecided."""
    decided, fixed = [a for a in found if a.decided], [a for a in found if a.fixed]
    undecided = len(found) - len(decided)
    rest = f" {undecided} undecided." if undecided else ""
    if not decided:
        return f"No decided verdict.{rest}"
    count = f"{len(decided)} decided verdict{'s' if len(decided) > 1 else ''}"
    if fixed:
        return f"{len(fixed)} of {count} could not have come out otherwise: {', '.join(a.name for a in fixed)}.{rest}"
    return f"{count}: {'all' if len(decided) > 1 else 'it'} could have come out otherwise.{rest}"


def exit_code(found: Sequence[Audited]) -> int:
    """1 if a decided verdict could not have come out otherwise."""
    return 1 if any(a.fixed for a in found) else 0


# --- for people, and as JSON --------------------------------------------------------------------


def print_audited(out: Console, found: Sequence[Audited]) -> None:
    """A line for each verdict, on a narrow terminal a short block, then what is undecided and the summary."""

    def say(line: str) -> None:
        out.print(line, markup=False, soft_wrap=True)

    if out.is_terminal and out.width < TABLE_WIDTH:
        for a in found:
            _print_block(out, a)
    else:
        print_lines(out, HEADINGS, [_cells(a) for a in found])
    say(LEGEND)
    for a in found:
        if a.why:
            say(f"{a.name}: {a.shown}: {a.why}")
    say(summary(found))


def _cells(a: Audited) -> tuple[str, ...]:
    e = a.examined
    moved = [_outcome(e.at(step), a) if e else "" for step in STEPS]
    return a.claim_id, a.scale, a.shown, _could(a), _nearest(a), *moved, _outcome(e.reversed, a) if e else ""


def _could(a: Audited) -> str:
    if a.examined is None:
        return ""
    return "literal" if a.scale == "literal" else words.could_have_been(a.examined.verdict)


def _nearest(a: Audited) -> str:
    if a.examined is None:
        return ""
    nearest = a.examined.nearest
    return f"{nearest.name}: {text.outcome(nearest.outcome, a.ours)}" if nearest else "NONE" if a.decided else "none"


def _outcome(trial: Trial | None, a: Audited) -> str:
    """The outcome; in brackets where it is another one and does not count."""
    if trial is None:
        return ""
    unchanged = trial.outcome.value == a.outcome
    shown = text.outcome(trial.outcome, a.ours)
    return shown if trial.counts or unchanged else f"({shown})"


def _print_block(out: Console, a: Audited) -> None:
    out.print(Text(a.shown, style=style(a.outcome)), Text(a.name))
    cells = dict(zip(HEADINGS, _cells(a), strict=True))
    moved = ", ".join(f"{step} {cells[step]}" for step in MOVED if cells[step])
    facts = {**{name: cells[name] for name in ("could have been", "nearest change")}, "moved": moved}
    for name, told in (facts | {"reversed": cells["reversed"]}).items():
        if told:
            out.print(f"  {name:<15} {told}", markup=False, soft_wrap=True)


def as_json(found: Sequence[Audited]) -> dict[str, Any]:
    """Plain values."""
    return {
        "verdicts": [
            {
                "claim_id": a.claim_id,
                "scale": a.scale,
                "outcome": a.outcome,
                "decided": a.decided,
                "fixed": a.fixed,
                "could_have_been_pass": a.examined.verdict.confirmable if a.examined else None,
                "could_have_been_fail": a.examined.verdict.refutable if a.examined else None,
                "why_undecided": a.why or None,
                "nearest": _trial(a.examined.nearest) if a.examined and a.examined.nearest else None,
                "trials": [_trial(t) for t in a.examined.trials] if a.examined else [],
            }
            for a in found
        ],
        "summary": summary(found),
        "exit_code": exit_code(found),
    }


def _trial(t: Trial) -> dict[str, Any]:
    return {"name": t.name, "kind": t.kind, "margins": t.step, "outcome": t.outcome.value, "counts": t.counts}
