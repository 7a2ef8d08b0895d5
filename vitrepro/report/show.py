"""Everything about one claim, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from vitrepro.claims import Registry, arm_names, arms_of
from vitrepro.plan import Choice
from vitrepro.report.terminal import table
from vitrepro.spec import Claim, TrainExperiment
from vitrepro.store import VerdictEntry


def describe(out: Console, claim: Claim, registry: Registry, choice: Choice, stored: Sequence[VerdictEntry]) -> None:
    """Print statement, source, reported cells, how each scale checks it, and the verdicts stored."""

    def say(text: str = "") -> None:
        out.print(text, markup=False, soft_wrap=True)

    say(f"{claim.id}  ({claim.kind}, version {claim.version}, {registry.files.get(claim.id, '')})")
    say(f"  {claim.statement}")
    say(f"  Source: {claim.source.paper}, {claim.source.where}")
    if claim.notes:
        say(f"  Note: {claim.notes}")
    if claim.reported:
        cells = claim.reported.cells.items()
        rows = [(n, f"{c.value:g}", f"{c.sd:g}" if c.sd else "", str(c.runs or "")) for n, c in cells]
        out.print(table(("reported", claim.reported.unit, "sd", "runs"), rows))
    for name, entry in claim.scales.entries().items():
        if entry.infeasible:
            say(f"Scale {name}: infeasible: {entry.infeasible}")
            continue
        assert entry.experiment is not None
        assert entry.expect is not None
        experiment = registry.experiment(entry.experiment)
        say(f"Scale {name}: {entry.fidelity}, experiment {experiment.id}: {experiment.title}")
        expected = entry.expect.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
        for key, value in expected.items():
            items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            if items:
                say(f"  expect {key}:")
                for _, item in items if isinstance(value, list) else ():
                    say(f"    {_flat(item)}")
                for cell, item in items if isinstance(value, dict) else ():
                    say(f"    {cell}: {_flat(item)}")
            else:
                say(f"  expect {key}: {value}")
        used = dict.fromkeys(arm for _, arm in arms_of(entry.expect))
        arms = [a for a in arm_names(experiment) if a in used]
        seeds = f", seeds {', '.join(map(str, experiment.seeds))}" if isinstance(experiment, TrainExperiment) else ""
        say(f"  arms: {', '.join(arms)}{seeds}")
        for deviation in entry.deviations:
            say(f"  deviates from the paper: {deviation}")
    here = f"at scale {choice.scale}" if choice.scale else "no"
    say(f"Feasible here: {here}" + (f" ({choice.why_not})" if choice.reasons else ""))
    if not stored:
        say(f"No verdict is stored; run: vitrepro verify {claim.id}")
    for old in stored:
        say(f"Verdict at scale {old.scale}, {old.judged_at}: {old.outcome}: {old.reason}")
        if old.claim_hash != claim.hash:
            say("  the claim has changed since; `vitrepro report` judges the stored runs by today's claim")


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
