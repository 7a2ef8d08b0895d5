"""From the claims somebody named to their verdicts: the one path, with everything it needs at hand.

select -> choose a scale -> plan runs -> prepare data -> run what is missing -> judge -> store the verdict
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from vitrepro import plan, torchrun
from vitrepro.claims import Registry
from vitrepro.cost import Timings, duration, pass_flops, total
from vitrepro.errors import StoreError, UsageError
from vitrepro.forecast import outlook
from vitrepro.judge.finding import Outcome, note
from vitrepro.judge.looks import Log, Look, counts, distinct
from vitrepro.judge.printed import judge_literal
from vitrepro.judge.verdict import Verdict, infeasible
from vitrepro.memory import Memories, Room, free_bytes, measured
from vitrepro.plan import Choice, ClaimPlan, Override, Run
from vitrepro.recipe import Precision, Recipe
from vitrepro.record import Record, TrainResult
from vitrepro.report import words
from vitrepro.spec import SCALES, CheckName, Claim, Scale
from vitrepro.store import Places, RunRef, Store, VerdictEntry

if TYPE_CHECKING:
    from vitrepro.launch import Event, Group, Slot


@dataclass(frozen=True)
class Request:
    """What a person asked for, beside the claims.

    Attributes:
        scales: none: the most faithful that can run; one: that or INFEASIBLE; several: each that a claim has.
        devices: `cpu` once per slot, or CUDA devices.
        slots_named: the user said how many slots the CPU has, however few runs there are.
        allow_inconclusive: run plans that cannot PASS as well.
        elsewhere: planned for a machine that is not this one.
    """

    scales: tuple[CheckName, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    slots_named: bool = False
    precision: Precision = "auto"
    seeds: int | None = None
    overrides: tuple[Override, ...] = ()
    budget_seconds: float | None = None
    checkpoint_seconds: float = 30.0
    fresh: bool = False
    allow_inconclusive: bool = True
    elsewhere: bool = False


def make_plans(
    registry: Registry,
    chosen: Sequence[Claim],
    places: Places,
    request: Request,
    *,
    resolve: Callable[[Precision], Any],
    timings: Timings,
) -> list[ClaimPlan]:
    """A plan for each claim, with no runs where it cannot be checked here.

    Args:
        resolve: the arithmetic that a recipe's precision stands for on the devices of the request.
        timings: unless a scale is asked for, one known to take longer than the budget gives way to a cheaper one.

    Raises:
        UsageError: an override fits none or not all of the recipes, or there is nothing to train with the seeds or
            precision asked for.
    """
    cuda = any(d.startswith("cuda") for d in request.devices)
    here = plan.obstacles(registry, places.data_dir, places.cache_dir, cuda=cuda, elsewhere=request.elsewhere)

    def expand(choice: Choice) -> ClaimPlan:
        return plan.plan_claim(
            registry,
            choice,
            resolve=resolve,
            precision=request.precision,
            seeds=request.seeds,
            overrides=request.overrides,
        )

    def too_long(claim: Claim, scale: CheckName, entry: Scale) -> str | None:
        if request.scales or request.budget_seconds is None:
            return None
        runs = expand(Choice(claim, scale, entry, {})).runs
        missing = [r for r in runs if request.fresh or places.store.state(r.id) != "finished"]
        seconds = total(missing, timings, len(request.devices)).seconds
        if seconds is None or seconds <= request.budget_seconds:
            return None
        return f"would take about {duration(seconds)}, over the budget of {duration(request.budget_seconds)}"

    def stored(claim: Claim, scale: CheckName, entry: Scale) -> bool:
        """Whether nothing is left to run: such a claim is judged wherever its runs were made."""
        runs = expand(Choice(claim, scale, entry, {})).runs
        return bool(runs) and not request.fresh and all(places.store.state(r.id) == "finished" for r in runs)

    def choose(claim: Claim, wanted: CheckName | None) -> Choice:
        def obstacle(scale: CheckName, entry: Scale) -> str | None:
            reason = here(scale, entry)
            return None if reason and stored(claim, scale, entry) else reason

        if claim.scales.any is not None:
            return plan.choose_scale(claim, wanted, why_not=obstacle)
        choice = plan.choose_scale(
            claim, wanted, why_not=lambda scale, entry: obstacle(scale, entry) or too_long(claim, scale, entry)
        )
        if (
            choice.scale in (None, "literal") and wanted is None
        ):  # too long, all of them: the cheapest that can run goes as far as the budget does
            for scale in reversed(SCALES):
                cheaper = plan.choose_scale(claim, scale, why_not=obstacle)
                if cheaper.scale is not None and scale in choice.reasons:
                    return replace(cheaper, reasons={s: r for s, r in choice.reasons.items() if s != scale})
        return choice

    if len(request.scales) > 1:
        plans = [
            expand(choose(c, s))
            for c in chosen
            for s in request.scales
            if (e := c.scales.entries().get(s)) and not e.infeasible
        ]
    else:
        plans = [expand(choose(claim, next(iter(request.scales), None))) for claim in chosen]
    trains = any(run.type == "train" for p in plans for run in p.runs)
    changed = request.seeds is not None or request.precision != "auto" or request.overrides
    if not trains and changed and any(p.runs or p.checked for p in plans):
        raise UsageError("--seeds, --precision and --set: nothing is trained for these claims")
    return plans if request.allow_inconclusive else [_held_back(p, places.store, request) for p in plans]


def _held_back(claim_plan: ClaimPlan, store: Store, request: Request) -> ClaimPlan:
    """The plan, not to be run where runs are missing that could not bring a PASS."""
    if all(store.state(r.id) == "finished" for r in claim_plan.runs) and not request.fresh:
        return claim_plan
    return replace(claim_plan, held_back=doubt(claim_plan, store))


def doubt(claim_plan: ClaimPlan, store: Store) -> str | None:
    """Why a plan cannot be expected to PASS, or None."""
    claim, scale = claim_plan.claim, claim_plan.choice.scale
    seen = seen_accuracies(claim_plan, store)
    return outlook.cannot_pass(claim, scale, claim_plan.runs, claim_plan.registered_seeds, seen)


def outlooks(claim_plan: ClaimPlan, store: Store) -> list[outlook.Outlook]:
    """What the runs of a plan can tell, comparison by comparison."""
    entry = claim_plan.choice.entry
    trained = [r for r in claim_plan.runs if r.type == "train"]
    if entry is None or entry.expect is None or not trained:
        return []
    return outlook.outlook(claim_plan.claim, entry.expect, trained, seen_accuracies(claim_plan, store))


def seen_accuracies(claim_plan: ClaimPlan, store: Store) -> dict[str, float]:
    """Mean accuracy in percent of the arms of which runs are stored."""
    found: dict[str, list[float]] = {}
    for run in claim_plan.runs:
        with contextlib.suppress(StoreError):  # named where the run itself is needed
            record = store.record(run.id)
            if record is not None and isinstance(record.result, TrainResult):
                found.setdefault(run.arm, []).append(100 * record.result.correct / record.result.n)
    return {arm: sum(values) / len(values) for arm, values in found.items()}


def verify(
    plans: Sequence[ClaimPlan],
    places: Places,
    request: Request,
    timings: Timings,
    *,
    memories: Memories | None = None,
    on_event: Callable[[Event], None],
    on_data: Callable[[str, int, int], None],
) -> list[Verdict]:
    """Run what is missing, judge every plan, and store the verdicts.

    Args:
        memories: how much runs take, for packing several on a CUDA device; by formula unless given.
        on_event: told of every run's start, progress and end.
        on_data: told of data being decoded: name, images done, images in all.

    Raises:
        Interrupted: a signal came; finished runs are stored and the rest can be resumed.
        DataError, StoreError: nothing could be loaded or stored.
    """
    store = places.store
    store.prepare()
    runs = plan.unique_runs(plans)
    missing = [r for r in runs if request.fresh or store.state(r.id) != "finished"]
    if missing:
        _execute(missing, plans, places, request, timings, memories, on_event, on_data)
    return judge_all(plans, store)


def judge_all(plans: Sequence[ClaimPlan], store: Store) -> list[Verdict]:
    """Judge every plan by its stored runs; write the verdicts, and to the log those that are a new look."""
    log = Log.of(store, store.readable_records())
    kept = {(e.claim_id, e.scale): e for e in store.verdicts()[0]}
    verdicts = []
    for claim_plan in plans:
        decided, look = judge(claim_plan, store, log, kept)
        if claim_plan.choice.scale is not None and claim_plan.held_back is None and torchrun.first():
            if look is not None and log.new(look):
                store.add_look(look.line())
            store.write_verdict(entry_of(claim_plan, decided, log, look))
        verdicts.append(decided)
    return verdicts


def judge(
    claim_plan: ClaimPlan,
    store: Store,
    log: Log | None = None,
    kept: Mapping[tuple[str, str], VerdictEntry] | None = None,
) -> tuple[Verdict, Look | None]:
    """The verdict that the stored runs give now, and the look at the claim that it is, where it rests on runs.

    Args:
        log, kept: earlier looks and requests; none unless given.
    """
    choice, claim = claim_plan.choice, claim_plan.claim
    if claim_plan.held_back is not None:
        why = f"{claim_plan.held_back}; nothing was run, --allow-inconclusive runs it all the same"
        fidelity = choice.entry.fidelity if choice.entry else None
        return Verdict(claim.id, Outcome.NOT_RUN, choice.scale, fidelity, note("told", text=why), ours=claim.ours), None
    if claim_plan.checked:
        return judge_literal(claim, claim_plan.checked), None
    if choice.scale is None or not claim_plan.runs:
        return infeasible(claim, choice.why_not), None
    measured = [store.measured(RunRef(run_id=r.id, arm=r.arm, seed=r.seed)) for r in claim_plan.runs]
    deviations = tuple({str(d): d for r in claim_plan.runs for d in r.deviations}.values())
    found, look = (log or Log()).judge(
        claim,
        choice.scale,
        measured,
        registered_seeds=claim_plan.registered_seeds,
        deviations=deviations,
        failed_if=claim_plan.failed_if,
        entry=(kept or {}).get((claim.id, choice.scale)),
        at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    trained = any(r.type == "train" for r in claim_plan.runs)
    return found, look if trained and counts(look) else None


def entry_of(claim_plan: ClaimPlan, decided: Verdict, log: Log | None = None, look: Look | None = None) -> VerdictEntry:
    """What the store keeps of a verdict: enough to judge it again anywhere, and to see what has changed."""
    claim, choice = claim_plan.claim, claim_plan.choice
    assert choice.scale is not None
    assert choice.entry is not None
    known, _ = (log or Log()).looks(claim.id, choice.scale)
    return VerdictEntry(
        claim_id=claim.id,
        claim_hash=claim.hash,
        scale=choice.scale,
        entry=choice.entry,
        reported=claim.reported,
        runs=tuple(RunRef(run_id=r.id, arm=r.arm, seed=r.seed) for r in claim_plan.runs),
        registered_seeds=claim_plan.registered_seeds,
        deviations=tuple({str(d): d for r in claim_plan.runs for d in r.deviations}.values()),
        outcome=decided.outcome.value,
        reason=words.reason(decided),
        judged_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        cells={address: cell for c in claim_plan.checked for address, cell in c.cells.items()},
        looks=len(distinct([*known, *([look] if look else [])])),
    )


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """0 all PASS; 1 a FAIL; 4 a run error; 3 anything else undecided or exceeded."""
    outcomes = {v.outcome for v in verdicts}
    if Outcome.FAIL in outcomes:
        return 1
    if Outcome.ERROR in outcomes:
        return 4
    return 0 if outcomes == {Outcome.PASS} else 3


def arrange(
    missing: Sequence[Run],
    store: Store,
    request: Request,
    memories: Memories | None = None,
    *,
    planned: int | None = None,
) -> tuple[Group, ...]:
    """The runs to do in groups, one after another, and the slots of each.

    Args:
        planned: runs of the whole command, finished ones too; those to do unless given.
    """
    from vitrepro import launch

    known = memories or Memories(request.devices[0])

    def need(run: Run) -> launch.Need:
        return launch.Need(known.bytes(run.config) if isinstance(run.config, Recipe) else 0, pass_flops(run))

    return launch.arrange(
        missing,
        request.devices,
        planned=planned,
        named=request.slots_named,
        need=need,
        begun=lambda run: None if request.fresh else store.begun_threads(run.id),
        free_bytes=free_bytes,
    )


def memories(records: Sequence[Record], request: Request) -> Memories:
    """How much memory runs take on the devices of a request, as far as these records tell."""
    from vitrepro.distributed import device_name  # brings in torch

    device = request.devices[0]
    return Memories(device, measured(records, device_name(device), device))


def fewest_slots(groups: Sequence[Group], request: Request) -> tuple[Slot, ...]:
    """Those of the group that has fewest, by which times are told: no less than what groups of several sizes take."""
    from vitrepro import launch

    everywhere = launch.slots(request.devices)
    return min((group.places for group in groups), key=len, default=everywhere)


def room(groups: Sequence[Group], memories: Memories) -> Room:
    """What the tightest of these slots has, if nothing else comes to its device."""
    shared = max(Counter(slot.device for slot in group.places).most_common(1)[0][1] for group in groups)
    free = min(free_bytes(device) for device in {slot.device for group in groups for slot in group.places})
    return Room(memories, free // shared)


def _execute(
    missing: Sequence[Run],
    plans: Sequence[ClaimPlan],
    places: Places,
    request: Request,
    timings: Timings,
    memories: Memories | None,
    on_event: Callable[[Event], None],
    on_data: Callable[[str, int, int], None],
) -> None:
    from vitrepro import launch
    from vitrepro.data.prepare import prepare
    from vitrepro.runner import Task

    data = {}
    for name in dict.fromkeys(r.config.data.name for r in missing if isinstance(r.config, Recipe)):
        data[name] = prepare(
            name,
            data_dir=places.data_dir,
            cache_dir=places.cache_dir,
            offline=True,  # `vitrepro data fetch` downloads, verify never does
            progress=partial(on_data, name),
        )
    asked = {r.id: {p.claim.id: p.claim.hash for p in plans if any(q.id == r.id for q in p.runs)} for r in missing}
    tasks = [
        Task(
            run=r,
            store=places.store,
            data=data[r.config.data.name] if isinstance(r.config, Recipe) else None,
            device="cpu",
            threads=1,
            claims=asked[r.id],
            checkpoint_seconds=request.checkpoint_seconds,
            fresh=request.fresh,
            data_dir=places.data_dir,
        )
        for r in missing
    ]
    began = time.monotonic()

    def left() -> float:
        budget = request.budget_seconds
        return float("inf") if budget is None else budget - (time.monotonic() - began)

    def fits(task: Task) -> bool:
        return (timings.seconds(task.run) or 0.0) < left()

    def overdue(_: Task, share: float, seconds: float) -> bool:
        """Whether a run's own pace says that it will end well after the budget does."""
        if share < 0.05:
            return left() < -0.25 * (request.budget_seconds or 0.0)
        return seconds / share - seconds > left() + 0.1 * (request.budget_seconds or 0.0)

    if torchrun.asked():
        torchrun.run_all(tasks, request.devices[0], on_event, fits)
        return
    by_run = {task.run.id: task for task in tasks}
    for group in arrange(missing, places.store, request, memories, planned=len(plan.unique_runs(plans))):
        timings = timings.at(group.places[0].threads)
        launch.run_all([by_run[r.id] for r in group.runs], group.places, on_event, fits=fits, overdue=overdue)
