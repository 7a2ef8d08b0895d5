"""Every verdict of a store, judged again by the claim files at hand, and what has changed in between."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from vitrepro.changes import cell_changes, claim_changes, differences, sentence
from vitrepro.claims import Registry, arm_names, arms_of, recipes
from vitrepro.judge.finding import INCONCLUSIVE, note
from vitrepro.judge.looks import Log
from vitrepro.judge.printed import judge_literal
from vitrepro.judge.verdict import Verdict, infeasible
from vitrepro.literal import evaluate
from vitrepro.recipe import Recipe
from vitrepro.record import ENGINE, Measured, Record
from vitrepro.spec import AnalyticArm, AnalyticExperiment, Claim, LiteralExpect, Scale, TrainExperiment
from vitrepro.store import RunRef, Store, VerdictEntry, portable


@dataclass(frozen=True)
class Judged:
    """One request for a verdict, with what it comes to today.

    Attributes:
        entry: the request as the store holds it.
        claim: the claim as its file reads now; None if it is gone.
        scale: likewise, of the claim's scale that was run.
        verdict: None where nothing is left to judge by.
        measured: the stored runs, in the order they were planned.
        changes: what differs from the time the runs were made, one sentence each.
        stands: the verdict rests on runs of the recipe as it reads now.
    """

    entry: VerdictEntry
    claim: Claim | None
    scale: Scale | None
    verdict: Verdict | None
    measured: tuple[Measured, ...]
    changes: tuple[str, ...] = ()
    stands: bool = False

    @property
    def key(self) -> str:
        """Unique in a store."""
        return f"{self.entry.claim_id}@{self.entry.scale}"

    @property
    def name(self) -> str:
        at = "" if self.entry.scale == "any" else f" at {self.entry.scale}"
        return self.entry.claim_id + at


def rejudge(
    registry: Registry, store: Store, entries: Sequence[VerdictEntry] | None = None, log: Log | None = None
) -> list[Judged]:
    """Hold the stored runs against the claims as they read now; by claim, then scale.

    Args:
        entries: judge these requests only.
        log: earlier looks; the store's unless given.
    """
    if entries is None:
        entries, _ = store.verdicts()
    log = log or Log.of(store, store.readable_records())
    read: dict[RunRef, Measured] = {}  # claims share runs
    for ref in {ref: None for e in entries for ref in e.runs}:
        m = store.measured(ref)
        read[ref] = dataclasses.replace(m, error=portable(m.error, store.root)) if m.error else m
    return [_rejudge(registry, read, e, log) for e in sorted(entries, key=lambda e: (e.claim_id, e.scale))]


def _rejudge(registry: Registry, read: Mapping[RunRef, Measured], entry: VerdictEntry, log: Log) -> Judged:
    measured = tuple(read[ref] for ref in entry.runs)
    claim = registry.claims.get(entry.claim_id)
    if claim is None:
        return Judged(entry, None, None, None, measured, ("the claim is no longer in the claim files",))
    scale = claim.scales.entries().get(entry.scale)
    if scale is None:
        has = ", ".join(claim.scales.entries())
        gone = f"the claim no longer has a check at scale {entry.scale} (it has {has})"
        return Judged(entry, claim, None, None, measured, (gone,))

    changes = list(claim_changes(entry, claim, scale))
    stands = False
    if isinstance(scale.expect, LiteralExpect):
        checked = evaluate(scale.expect, registry.cells(claim))
        found = judge_literal(claim, checked)
        changes += cell_changes(entry, {address: cell for c in checked for address, cell in c.cells.items()})
    elif scale.infeasible is not None or scale.experiment is None or scale.expect is None:
        found = dataclasses.replace(infeasible(claim, scale.infeasible or ""), scale=entry.scale)
    else:
        experiment = registry.experiment(scale.experiment)
        registered = len(experiment.seeds) if isinstance(experiment, TrainExperiment) else 1
        if registered != entry.registered_seeds:
            changes.append(f"registered seeds changed from {entry.registered_seeds} to {registered}")
        wanted = {arm for _, arm in arms_of(scale.expect)}
        used = tuple(m for m in measured if m.arm in wanted)
        # the larger number of seeds: one lowered after the runs must not hide that some were left out
        found, _ = log.judge(
            claim, entry.scale, used, registered_seeds=max(registered, entry.registered_seeds),
            deviations=entry.deviations, entry=entry, at=entry.judged_at,
            failed_if=experiment.failed_if if isinstance(experiment, TrainExperiment) else None,
        )  # fmt: skip
        stale = list(_recipe_changes(experiment, entry, used))
        stands = not stale
        found = _of_an_earlier_recipe(found) if stale else found
        changes += stale or _identity_changes(used)
    if entry.outcome != found.outcome.value:
        was = f"the outcome was {entry.outcome} when last judged, {entry.judged_at}"
        changes.append(f"{was}, and is {found.outcome.value} now")
    return Judged(entry, claim, scale, found, measured, tuple(changes), stands)


def _of_an_earlier_recipe(found: Verdict) -> Verdict:
    """The same rule as for a recipe changed by hand: what is not the registered experiment decides nothing."""
    cap = note("earlier_recipe")
    return dataclasses.replace(
        found,
        outcome=INCONCLUSIVE if found.outcome.decided else found.outcome,
        caps=(*found.caps, cap),
        qualifiers=(*found.qualifiers, cap),
    )


# --- what has changed ---------------------------------------------------------------------------


def _recipe_changes(
    experiment: TrainExperiment | AnalyticExperiment, entry: VerdictEntry, used: Sequence[Measured]
) -> Iterator[str]:
    """Where the experiment file now asks for other runs than those stored, setting by setting."""
    today: Mapping[str, Recipe | AnalyticArm]
    today = experiment.arms if isinstance(experiment, AnalyticExperiment) else recipes(experiment)
    by_change: dict[str, dict[str, None]] = defaultdict(dict)
    for (arm, _), (first, *_) in _by_recipe(used).items():
        for change in _config_changes(today.get(arm), first, entry):
            by_change[change][arm] = None
    everywhere = len(arm_names(experiment))
    for change, arms in by_change.items():
        which = "all arms" if len(arms) == everywhere > 1 else f"arm{'s' * (len(arms) > 1)} {', '.join(arms)}"
        yield f"experiment {experiment.id}, {which}: {change}"


def _by_recipe(used: Iterable[Measured]) -> dict[tuple[str, str], list[Record]]:
    """The records of each arm, those of one recipe together: seeds differ in nothing else."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for m in used:
        if m.record is not None:
            groups[m.arm, m.record.config_hash].append(m.record)
    return groups


def _config_changes(today: Recipe | AnalyticArm | None, record: Record, entry: VerdictEntry) -> Iterator[str]:
    if today is None:
        yield "is no longer in the experiment file"
        return
    try:
        stored = type(today).model_validate(record.config)
    except ValidationError:
        yield "the stored recipe is of another form"
        return
    now = today.model_dump(mode="json")
    by_hand = {d.path for d in entry.deviations}
    if by_hand & {"train.steps", "train.epochs"}:
        by_hand |= {"train.steps", "train.epochs"}  # one replaces the other
    if isinstance(today, Recipe) and today.train.precision == "auto":
        by_hand.add("train.precision")  # resolved by the device
    if isinstance(today, AnalyticArm):
        by_hand.add("quantities")  # one more does not change the others
    for path, was, is_now in differences(stored.model_dump(mode="json"), now):
        if not any(path == p or path.startswith(f"{p}.") for p in by_hand):
            yield sentence(path, was, is_now)


def _identity_changes(used: Iterable[Measured]) -> Iterator[str]:
    """Runs that this version of vitrepro would store under other ids, though their recipes are the same."""
    other = 0
    for first, *rest in _by_recipe(used).values():
        config = (Recipe if first.type == "train" else AnalyticArm).model_validate(first.config)
        as_now = config.model_dump(mode="json") == first.config
        other += sum(not as_now or r.engine != ENGINE for r in (first, *rest))  # the store holds ids against records
    if other:
        yield f"{other} of the runs are by another version of vitrepro; `vitrepro verify` would make them anew"
