"""How often a claim was judged before, and what a later look may still spend: the log against retries.

The first judging of a claim at a scale has 5%; all later ones together have 1%, each half of what is left. Looks at the
same runs by the same wording are one. Against a forger nothing is promised: who writes the files writes the log.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vitrepro.judge import verdict
from vitrepro.judge.finding import ALPHA, INCONCLUSIVE, Note, Outcome, note
from vitrepro.judge.verdict import History, Verdict
from vitrepro.record import Deviation, Measured, Record, TrainResult
from vitrepro.spec import Claim, Edge, Scale, content_hash
from vitrepro.store import Store, VerdictEntry

LATER = 0.01  # what all looks after the first may spend together
VERSION = 1


@dataclass(frozen=True)
class Look:
    """One judging of one claim at one scale.

    Attributes:
        said: hash of what is expected and reported, the wording that decides; not of keys that it does not use.
        recipes: hash of each arm's recipe, sorted.
        runs: hash of the runs and their answers; a run made anew that answers otherwise is another.
        precision: arithmetic of the runs.
        overrides: settings changed by hand.
        intervals: of each comparison with chance in it, label, low and high.
        unused: seeds of the recipes that are stored and not among these runs.
        other_precisions: arithmetic of stored runs that differ from these in nothing else.
    """

    at: str
    claim_id: str
    scale: str
    claim_hash: str
    said: str
    recipes: tuple[str, ...]
    runs: str
    run_ids: str
    seeds: tuple[int, ...]
    precision: tuple[str, ...]
    overrides: tuple[str, ...]
    outcome: str = ""
    alpha: float = ALPHA
    intervals: tuple[tuple[str, float, float], ...] = ()
    unused: tuple[int, ...] = ()
    other_precisions: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What makes it another look: equal inputs are one."""
        return self.claim_id, self.scale, self.said, self.runs, self.overrides

    def line(self) -> dict[str, Any]:
        """Plain values, as the log keeps them."""
        return {"v": VERSION, **asdict(self)}

    @staticmethod
    def read(text: bytes | str) -> Look:
        """From a line of the log.

        Raises:
            ValueError: damaged, of another version, or no such entry.
        """
        line: dict[str, Any] = json.loads(text)
        if line.get("v") != VERSION:
            raise ValueError(f"version {line.get('v')!r}, this vitrepro reads {VERSION}")
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in line.items() if k != "v"}
            return replace(
                Look(**values), intervals=tuple((str(a), float(b), float(c)) for a, b, c in line["intervals"])
            )
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from None


def look_at(
    claim: Claim, scale_name: str, scale: Scale, measured: Sequence[Measured], deviations: Iterable[Deviation], at: str
) -> Look:
    """The look that judging these runs is."""
    records = [m.record for m in measured if m.record]
    results = [r.result for r in records if isinstance(r.result, TrainResult)]
    said = scale.model_dump(mode="json", include={"expect", "experiment"}, exclude_defaults=True)
    reported = claim.reported and claim.reported.model_dump(mode="json", exclude_defaults=True)
    answers = sorted(f"{r.run_id} {r.predictions_sha256}" for r in records)
    return Look(
        at=at,
        claim_id=claim.id,
        scale=scale_name,
        claim_hash=claim.hash,
        said=content_hash([scale.expect and scale.expect.kind, said, reported]),
        recipes=tuple(sorted({r.config_hash for r in records})),
        runs=hashlib.sha256("\n".join(answers).encode()).hexdigest()[:16],
        run_ids=hashlib.sha256("\n".join(sorted(m.run_id for m in measured)).encode()).hexdigest()[:16],
        seeds=tuple(sorted({m.seed for m in measured})),
        precision=tuple(sorted({r.precision for r in results})),
        overrides=tuple(sorted(f"{d.path}={d.used}" for d in deviations)),
    )


def came_to(look: Look, verdict: Verdict) -> Look:
    """The look with what it came to."""
    found = [(f.label, f.deciding) for f in verdict.findings]
    intervals = tuple((label, round(i.low, 4), round(i.high, 4)) for label, i in found if i is not None)
    return replace(look, outcome=verdict.outcome.value, alpha=verdict.history.alpha, intervals=intervals)


def counts(look: Look) -> bool:
    """Whether something was seen: runs that failed or are missing tell nothing."""
    return Outcome(look.outcome).decided or look.outcome == INCONCLUSIVE.value


def level(number: int) -> float:
    """Level of the look with this number, from 1 on."""
    return ALPHA if number == 1 else LATER / 2 ** (number - 1)


def distinct(looks: Iterable[Look]) -> list[Look]:
    """Those that count, by their place in the log (a clock may go back), the same inputs once."""
    found: dict[tuple[Any, ...], Look] = {}
    for look in filter(counts, looks):
        found.setdefault(look.inputs, look)
    return list(found.values())


def history(
    looks: Sequence[Look],
    now: Look,
    *,
    stored_looks: int | None = None,
    faults: Sequence[str] = (),
) -> History:
    """Which look this is, its level, and what must be said of those before.

    Args:
        looks: of this claim at this scale, as the log has them.
        stored_looks: how many the claim's own file says there were; None where there is no such file.
        faults: what could not be read of the log.
    """
    kept = distinct(looks)
    before = [k for k in kept if k.inputs != now.inputs]
    place = next((i for i, k in enumerate(kept) if k.inputs == now.inputs), len(kept))
    earlier = kept[:place]
    first = (earlier or [now])[0]
    notes: list[Note] = []
    if faults:
        notes.append(note("log_damaged", faults=tuple(faults)))
    if now.precision and stored_looks is not None and len(kept) < stored_looks:  # counted quantities have no looks
        notes.append(note("log_shortened", had=stored_looks, has=len(kept)))
    if first.seeds != now.seeds:
        notes.append(note("seeds_changed", first=first.seeds, now=now.seeds))
    if any(k.precision != now.precision for k in earlier):
        notes.append(note("precision_changed", seen=tuple(dict.fromkeys(p for k in before for p in k.precision))))
    if any(k.said != now.said for k in earlier):
        notes.append(note("claim_changed"))
    if any(k.run_ids == now.run_ids and k.runs != now.runs for k in earlier):
        notes.append(note("made_anew"))
    if now.unused:
        notes.append(note("unused_runs", seeds=now.unused))
    if now.other_precisions:
        notes.append(note("other_precisions", precisions=now.other_precisions))
    return History(
        place + 1, level(place + 1), tuple(k.outcome for k in earlier), tuple(notes), len(first.seeds) if earlier else 0
    )


@dataclass(frozen=True)
class Log:
    """What a store tells of earlier looks, and of runs that could have been looked at.

    Attributes:
        lines: of the log, by claim and scale.
        general: faults of lines of no claim.
        seeds: recipe's hash -> seeds of finished runs.
        precisions: hash of a recipe without its precision -> arithmetic of finished runs.
    """

    lines: Mapping[tuple[str, str], Sequence[bytes]] = field(default_factory=dict)
    general: tuple[str, ...] = ()
    seeds: Mapping[str, Collection[int]] = field(default_factory=dict)
    precisions: Mapping[str, Collection[str]] = field(default_factory=dict)

    @staticmethod
    def of(store: Store, records: Iterable[Record]) -> Log:
        """Read a store's log.

        Args:
            records: its finished runs.
        """
        lines, general = store.looks()
        seeds: dict[str, set[int]] = defaultdict(set)
        precisions: dict[str, set[str]] = defaultdict(set)
        for r in records:
            if isinstance(r.result, TrainResult):
                seeds[r.config_hash].add(r.seed)
                precisions[_without_precision(r)].add(r.result.precision)
        return Log(lines, tuple(general), seeds, precisions)

    def looks(self, claim_id: str, scale: str) -> tuple[list[Look], list[str]]:
        """Earlier looks at a claim, and why lines of it cannot be read."""
        found, faults = [], []
        for line in self.lines.get((claim_id, scale), ()):
            try:
                found.append(Look.read(line))
            except ValueError as error:
                faults.append(str(error))
        return found, faults

    def judge(
        self,
        claim: Claim,
        scale: str,
        measured: Sequence[Measured],
        *,
        registered_seeds: int,
        deviations: Sequence[Deviation] = (),
        failed_if: Edge | None = None,
        entry: VerdictEntry | None = None,
        at: str = "",
    ) -> tuple[Verdict, Look]:
        """The verdict on stored runs, with what is known of earlier looks, and the look that it is.

        Args:
            entry: the claim's own file, which says how many looks there were; one, if it is older than the log.
            at: the time, UTC, ISO 8601.
        """
        now = look_at(claim, scale, claim.scales.entries()[scale], measured, deviations, at)
        looks, faults = self.looks(claim.id, scale)
        told = [k for k in looks if k.inputs == now.inputs]  # an export leaves out the runs that were not used
        records = [m.record for m in measured if m.record and isinstance(m.record.result, TrainResult)]
        used: dict[str, set[int]] = defaultdict(set)
        for r in records:
            used[r.config_hash].add(r.seed)
        others = {p for r in records for p in self.precisions.get(_without_precision(r), ())} - set(now.precision)
        unused = {s for recipe, mine in used.items() for s in set(self.seeds.get(recipe, ())) - mine}
        now = replace(
            now,
            unused=tuple(sorted(unused.union(*(k.unused for k in told)))),
            other_precisions=tuple(sorted(others.union(*(k.other_precisions for k in told)))),
        )
        past = history(
            looks,
            now,
            stored_looks=1 if entry and entry.looks is None else entry.looks if entry else None,
            faults=faults,
        )
        found = verdict.judge(
            claim, scale, measured, registered_seeds=registered_seeds, deviations=deviations, history=past,
            failed_if=failed_if,
        )  # fmt: skip
        return found, came_to(now, found)

    def new(self, look: Look) -> bool:
        """Whether the log does not hold such a look yet."""
        return all(k.inputs != look.inputs for k in distinct(self.looks(look.claim_id, look.scale)[0]))


def _without_precision(record: Record) -> str:
    train = {k: v for k, v in record.config.get("train", {}).items() if k != "precision"}
    return content_hash([{**record.config, "train": train}])
