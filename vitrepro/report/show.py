"""Everything about one claim, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from vitrepro.changes import claim_changes
from vitrepro.claims import Registry, arm_names, arms_of
from vitrepro.literal import evaluate
from vitrepro.plan import Choice
from vitrepro.report.protocol import side_by_side
from vitrepro.report.questions import answers
from vitrepro.report.terminal import all_digits, can_encode, cell_row, table
from vitrepro.report.text import outcome, whose
from vitrepro.spec import Claim, LiteralExpect, Scale, TrainExperiment
from vitrepro.store import VerdictEntry

if TYPE_CHECKING:  # brings in numpy
    from vitrepro.judge.rejudge import Judged


def describe(
    out: Console,
    claim: Claim,
    registry: Registry,
    choice: Choice,
    stored: Sequence[VerdictEntry],
    only_cell: str | None = None,
    judged: Sequence[Judged] = (),
) -> None:
    """Print statement, source, cells, protocol and deviations, the eight questions, scales, verdicts stored.

    Args:
        judged: the stored verdicts as they come out today, with what they rest on.
        only_cell: of the reported cells, and of what others report, show this one.
    """

    def say(text: str = "") -> None:
        out.print(text, markup=False, soft_wrap=True)

    say(f"{claim.id}  ({claim.kind}, version {claim.version}, {registry.files.get(claim.id, '')})")
    say(f"  {claim.statement}")
    kind = "Our question, about" if claim.ours else "Source:"
    say(f"  {kind} {claim.source.paper}, {claim.source.where}")
    if claim.notes:
        say(f"  Note: {claim.notes}")
    if claim.reported:
        cells = {n: c for n, c in claim.reported.cells.items() if only_cell in (None, n)}
        out.print(
            table(
                (whose(claim.reported), claim.reported.unit, "sd", "runs", "n"),
                [cell_row(n, c) for n, c in cells.items()],
            )
        )
    for other in claim.elsewhere:
        named = {n: " / ".join(map(all_digits, vs)) for n, vs in other.cells.items() if only_cell in (None, n)}
        values = ", ".join(f"{n} {v}" for n, v in named.items())
        if values:
            say(f"  Elsewhere: {other.by}: {values}{'. ' + other.note if other.note else ''}")

    headings, rows = side_by_side(claim, registry)
    if rows:
        out.print(table(headings, rows, title="Protocol, as reported and as run here"))
    for name, entry in claim.scales.entries().items():
        for line in _scale_lines(name, entry, claim, registry):
            say(line)
    here = f"at scale {choice.scale}" if choice.scale else "no"
    say(f"Feasible here: {here}" + (f" ({choice.why_not})" if choice.reasons else ""))

    say()
    say("The eight questions of a reproducibility checklist")
    for number, (question, answer) in enumerate(answers(claim, registry.papers.get(claim.source.paper), stored), 1):
        say(f"  {number}. {question}")
        say(f"     {answer}")

    say()
    if not stored:
        say(f"No verdict is stored; run: vitrepro verify {claim.id}")
    for old in stored:
        say(f"Verdict at scale {old.scale}, {old.judged_at}: {outcome(old.outcome, claim.ours)}: {old.reason}")
        scale = claim.scales.entries().get(old.scale)
        for change in claim_changes(old, claim, scale) if scale else ("the claim has no check at this scale now",):
            say(f"  changed: {change}")
        for line in _today(old, judged, unicode=can_encode(out)):
            say(f"  {line}")


def _today(old: VerdictEntry, judged: Sequence[Judged], *, unicode: bool) -> Iterator[str]:
    """How a stored verdict is judged now, if otherwise; what the test could tell; and a picture of the decision."""
    verdict = next((j.verdict for j in judged if (j.entry.claim_id, j.entry.scale) == (old.claim_id, old.scale)), None)
    if verdict is None:
        return
    from vitrepro.report.explain import KEY, ascii_only, picture  # brings in numpy
    from vitrepro.report.words import deciding, reason, strength

    if (verdict.outcome.value, reason(verdict)) != (old.outcome, old.reason):
        yield f"judged again: {outcome(verdict.outcome, verdict.ours)}: {reason(verdict)}"
    shown = deciding(verdict)
    if shown is None:
        return
    told = strength(shown, verdict.ours) if verdict.outcome.decided else None
    if told:
        yield told
    drawn = picture(shown, unicode=unicode)
    if drawn:
        yield from drawn
        yield KEY if unicode else ascii_only(KEY)


def _scale_lines(name: str, entry: Scale, claim: Claim, registry: Registry) -> list[str]:
    """What a scale expects, and from which runs."""
    if entry.infeasible:
        return [f"Scale {name}: infeasible: {entry.infeasible}"]
    assert entry.expect is not None
    if isinstance(entry.expect, LiteralExpect):
        from vitrepro.judge.printed import judge_literal  # brings in numpy
        from vitrepro.report.words import because

        verdict = judge_literal(claim, evaluate(entry.expect, registry.cells(claim)))
        lines = [f"Scale {name}: the statement against printed numbers: {outcome(verdict.outcome, claim.ours)}"]
        return lines + [f"  {outcome(f.outcome, claim.ours)}: {because(f)}" for f in verdict.findings]
    assert entry.experiment is not None
    experiment = registry.experiment(entry.experiment)
    lines = [f"Scale {name}: {entry.fidelity}, experiment {experiment.id}: {experiment.title}"]
    expected = entry.expect.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
    expected = {key: value for key, value in expected.items() if value != []}
    for key, value in expected.items():
        if isinstance(value, dict):
            lines += [f"  expect {key}:", *(f"    {cell}: {_flat(item)}" for cell, item in value.items())]
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            lines += [f"  expect {key}:", *(f"    {_flat(item)}" for item in value)]
        else:
            lines.append(f"  expect {key}: {', '.join(value) if isinstance(value, list) else value}")
    used = dict.fromkeys(arm for _, arm in arms_of(entry.expect))
    arms = [a for a in arm_names(experiment) if a in used]
    seeds = f", seeds {', '.join(map(str, experiment.seeds))}" if isinstance(experiment, TrainExperiment) else ""
    lines.append(f"  arms: {', '.join(arms)}{seeds}")
    common = experiment.deviations if isinstance(experiment, TrainExperiment) else ()
    return lines + [f"  differs from the source: {d}" for d in (*entry.deviations, *common)]


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
