"""What plans cost, and which of them fit into a budget, for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rich.console import Console

from vitrepro import cost, session
from vitrepro.budget import Clock, Pick
from vitrepro.cost import Cost, duration
from vitrepro.forecast.outlook import Outlook, joint
from vitrepro.memory import Room, across_images, size
from vitrepro.plan import ClaimPlan, Run, unique_runs
from vitrepro.recipe import Recipe
from vitrepro.report.terminal import table
from vitrepro.store import Store

Picked: TypeAlias = tuple[list[Pick], list[tuple[ClaimPlan, float]]]


@dataclass(frozen=True)
class Costed:
    """A plan with its cost.

    Attributes:
        seconds: wall time on all slots; infinite where nothing tells.
        rough: some of its models were never timed here.
        doubt: why no PASS can be expected, or None.
        outlooks: what its runs can tell, comparison by comparison.
        states: run id -> state in the store.
    """

    plan: ClaimPlan
    cost: Cost
    seconds: float
    rough: bool
    doubt: str | None
    outlooks: list[Outlook]
    states: dict[str, str]

    @property
    def time(self) -> str:
        if not self.cost.runs:
            return "none"
        return _time(self.seconds, self.rough)


@dataclass(frozen=True)
class Memory:
    """What a run takes of its slot's memory.

    Attributes:
        nbytes: None where nothing tells.
        fits: None where nothing tells.
        micro_batch: the largest that fits, where the recipe's does not; None if none does, or if another would be
            another experiment.
    """

    run: Run
    nbytes: int | None
    fits: bool | None
    micro_batch: int | None


@dataclass(frozen=True)
class CostedPlans:
    """Plans, and all of them together with shared runs counted once.

    Attributes:
        room: what a slot has, if it was asked.
        memory: run id -> what it takes, of the runs to do where there is a room.
    """

    plans: tuple[Costed, ...]
    to_run: int
    flops: float | None
    seconds: float
    rough: bool
    room: Room | None = None
    memory: Mapping[str, Memory] = field(default_factory=dict)


def cost_plans(
    plans: Sequence[ClaimPlan], store: Store, clock: Clock, slots: int, room: Room | None = None
) -> CostedPlans:
    """Each plan and all together, on that many slots, each with that much room for a run."""

    def missing(runs: Sequence[Run]) -> list[Run]:
        return [r for r in runs if store.state(r.id) != "finished"]

    def seconds(runs: Sequence[Run]) -> float:
        each = [clock.seconds(r) for r in runs]
        return max(sum(each) / slots, max(each, default=0.0))

    def costed(plan: ClaimPlan) -> Costed:
        todo = missing(plan.runs)
        return Costed(
            plan,
            cost.total(todo, clock.timings, slots),
            seconds(todo),
            not all(clock.timed(r) for r in todo),
            session.doubt(plan, store),
            session.outlooks(plan, store),
            {r.id: store.state(r.id) for r in plan.runs},
        )

    todo = missing(unique_runs(plans))
    return CostedPlans(
        tuple(costed(p) for p in plans),
        len(todo),
        cost.total(todo, clock.timings, slots).flops,
        seconds(todo),
        not all(clock.timed(r) for r in todo),
        room,
        {r.id: _memory(r, room) for r in todo} if room else {},
    )


def _memory(run: Run, room: Room) -> Memory:
    if not isinstance(run.config, Recipe):
        return Memory(run, None, None, None)
    recipe = run.config
    holds = room.holds(recipe)
    # fewer images at a time would change what is computed across them
    smaller = None if holds is not False or across_images(recipe.model) else room.micro_batch(recipe)
    return Memory(run, room.needed(recipe), holds, smaller)


def as_json(made: CostedPlans, picked: Picked | None) -> dict[str, Any]:
    """Plain values; a time that nothing tells is null."""
    documents = [
        {
            "claim": c.plan.claim.id,
            "scale": c.plan.choice.scale,
            "why_not": dict(c.plan.choice.reasons),
            "runs": [
                {"run_id": r.id, "name": r.name, "state": c.states[r.id], **_memory_json(made.memory.get(r.id))}
                for r in c.plan.runs
            ],
            "deviations": sorted({str(d) for r in c.plan.runs for d in r.deviations}),
            "to_run": c.cost.runs,
            "train_images": c.cost.train_images,
            "test_images": c.cost.test_images,
            "flops": c.cost.flops,
            "seconds": _finite(c.seconds),
            "seconds_are_rough": c.rough,
            "cannot_pass": c.doubt,
            "power": [_outlook_json(o) for o in c.outlooks],
            "joint_power": _worlds(joint(c.outlooks)),
        }
        for c in made.plans
    ]
    whole = {
        "to_run": made.to_run,
        "flops": made.flops,
        "seconds": _finite(made.seconds),
        "rough": made.rough,
        "slot_memory_bytes": made.room.slot_bytes if made.room else None,
    }
    if picked is None:
        return {"plans": documents, "total": whole}
    fits, left = picked
    return {
        "plans": documents,
        "total": whole,
        "fits": [
            {
                "claim": f.plan.claim.id,
                "scale": f.plan.choice.scale,
                "added_seconds": f.added_seconds,
                "until_seconds": f.until_seconds,
            }
            for f in fits
        ],
        "left_out": [
            {"claim": p.claim.id, "scale": p.choice.scale, "added_seconds": _finite(seconds)} for p, seconds in left
        ],
    }


def _outlook_json(o: Outlook) -> dict[str, Any]:
    return {
        "label": o.label,
        "power": _worlds(o.power),
        "detectable": {"steady": _finite(o.steady.detectable), "unsteady": _finite(o.unsteady.detectable)},
        "assumed": o.assumed,
        "least": o.least,
        "seeds_needed": o.needs or None,
        "margin_needed": o.margin,
    }


def _worlds(power: tuple[float, float] | None) -> dict[str, float] | None:
    """In the world of steady and of unsteady seeds."""
    return None if power is None else {"steady": power[0], "unsteady": power[1]}


def _memory_json(memory: Memory | None) -> dict[str, Any]:
    """Plain values; null of stored runs, and where nothing tells."""
    if memory is None:
        return dict.fromkeys(("memory_bytes", "fits", "micro_batch_that_fits"))
    return {"memory_bytes": memory.nbytes, "fits": memory.fits, "micro_batch_that_fits": memory.micro_batch}


def print_plans(
    out: Console, made: CostedPlans, picked: Picked | None, devices: Sequence[str], budget: float | None, basis: str
) -> None:
    """A line for each plan, all together, and what fits into the budget.

    Args:
        basis: what rough times come from.
    """
    rows = [
        (
            c.plan.claim.id,
            c.plan.choice.scale or "INFEASIBLE",
            _runs(c),
            f"{c.cost.train_images:,}" if c.plan.runs else "",
            "" if not c.plan.runs else "?" if c.cost.flops is None else f"{c.cost.flops:.2g}",
            c.time if c.plan.choice.scale else "",
            c.doubt or _outlook(c.outlooks) or ("" if c.plan.choice.scale else c.plan.choice.why_not),
        )
        for c in made.plans
    ]
    out.print(table(("claim", "scale", "runs", "train images", "FLOPs", "time", "notes"), rows))
    doubtful = [c.plan.claim.id for c in made.plans if c.doubt]
    if doubtful:
        out.print(
            f"No PASS is possible as planned: {', '.join(doubtful)}; see the notes. verify runs none of these without "
            "--allow-inconclusive.",
            markup=False,
        )
    if any(c.outlooks and not c.doubt for c in made.plans):
        out.print("Of two powers or differences one is with unsteady seeds, the other with steady ones.", markup=False)
    if any(o.assumed for c in made.plans for o in c.outlooks):
        out.print(
            "Gaps are for accuracies near 50%, where chance is largest, until runs of these arms are stored; clearer "
            "models need less.",
            markup=False,
        )
    together = [p for c in made.plans if (p := joint(c.outlooks))]
    if len(together) > 1:
        whole = (math.prod(p[0] for p in together), math.prod(p[1] for p in together))
        out.print(f"That all {len(together)} claims with a power PASS: {_span(whole)} if all are true.", markup=False)
    slots = f"{len(devices)} slot{'s' if len(devices) > 1 else ''} ({devices[0]})"
    out.print(f"In all {made.to_run} runs to do on {slots}; runs that claims share are counted once.", markup=False)
    if not made.to_run:
        possible = any(c.plan.choice.scale for c in made.plans)
        left = "Nothing is left to run; these verdicts cost nothing." if possible else "None can be checked here."
        out.print(left, markup=False)
        return
    known = ", from throughput measured here" if not made.rough else ""
    out.print(f"Time: {'about ' if not made.rough else ''}{_time(made.seconds, made.rough)}{known}.", markup=False)
    if made.rough and math.isfinite(made.seconds):
        out.print(f"~: {basis}", markup=False)
    if made.room is not None:
        for line in _memory_lines(made.room, list(made.memory.values())):
            out.print(line, markup=False)
    if picked is not None and budget is not None:
        _print_picked(out, made, picked, budget)
    elif budget is not None and made.seconds > budget:
        out.print(f"Over the budget of {duration(budget)}: verify would run what fits.", markup=False)


def _memory_lines(room: Room, memories: Sequence[Memory]) -> list[str]:
    """How much the largest run takes, and which arms do not fit; one line for all seeds of an arm."""
    arms = {(m.run.experiment, m.run.arm, m.nbytes): m for m in memories if isinstance(m.run.config, Recipe)}
    known = [m.nbytes for m in arms.values() if m.nbytes is not None]
    available = f"{size(room.slot_bytes)} per slot"
    lines = [f"Memory: up to {size(max(known))} of {available}."] if known else []
    for m in arms.values():
        if m.nbytes is None or m.fits is not False or not isinstance(m.run.config, Recipe):
            continue
        train = m.run.config.train
        what = f"{m.run.experiment}/{m.run.arm} does not fit: {size(m.nbytes)} of {available}"
        if m.micro_batch is not None:
            what += f"; micro-batch {m.micro_batch} of {train.batch_size} fits"
        elif part := across_images(m.run.config.model):
            what += f"; its {part} would see other batches if they were cut"
        else:
            what += ", not even one image at a time"
        lines.append(f"{what}.")
    unknown = len(arms) - len(known)
    if unknown:
        lines.append(
            f"Memory: not known for {unknown} arm{'s' if unknown > 1 else ''}; a stored run of each will tell."
        )
    return lines


def _print_picked(out: Console, made: CostedPlans, picked: Picked, budget: float) -> None:
    fits, left = picked
    costed = {(c.plan.claim.id, c.plan.choice.scale): c for c in made.plans}
    rows = []
    rough = False  # once one of the times that add up is
    for i, f in enumerate(fits, 1):
        c = costed[f.plan.claim.id, f.plan.choice.scale]
        rough = rough or c.rough
        added = _time(f.added_seconds, c.rough) if f.added_seconds else "nothing"
        until = _time(f.until_seconds, rough) if f.until_seconds else "at once"
        note = "cannot PASS" if c.doubt else ""
        rows.append((str(i), f.plan.claim.id, f.plan.choice.scale or "", added, until, note))
    title = f"Within {duration(budget)}, the cheapest verdict first"
    out.print(table(("", "claim", "scale", "adds", "until", "note"), rows, title=title))
    if left:
        shown = [
            (p.claim.id, p.choice.scale or "", _time(seconds, costed[p.claim.id, p.choice.scale].rough))
            for p, seconds in left
        ]
        out.print(table(("claim", "scale", "would add"), shown, title="Does not fit"))
    if any(f.added_seconds for f in fits):
        command = f"vitrepro verify {_claims_and_scale(fits)} --budget {_option(budget)}"
        out.print(f"To run them, with the other options as here: {command}", markup=False, soft_wrap=True)


def _claims_and_scale(fits: Sequence[Pick]) -> str:
    """Words of a command that plans these runs, and no others, even if a group or --scale chose the scale."""
    run = [f.plan for f in fits if f.added_seconds]
    names = dict.fromkeys(p.claim.id for p in run)
    scales = {p.choice.scale for p in run} - {"any"}  # which stands for every scale
    return " ".join(names) + (f" --scale {scales.pop()}" if len(scales) == 1 else "")


def _outlook(outlooks: Sequence[Outlook]) -> str:
    """The hardest of the comparisons, and the power of all of them together, in both worlds."""
    if not outlooks:
        return ""
    hardest = min(outlooks, key=lambda o: (o.power[1] if o.power else 1.0, o.edge - o.unsteady.detectable))
    text = _told(hardest)
    if len(outlooks) == 1:
        return text
    together = joint(outlooks)
    whole = f"; all {len(outlooks)} together: {_span(together)} power to PASS" if together else ""
    return f"{text} (hardest of {len(outlooks)}){whole}"


def _told(o: Outlook) -> str:
    detectable = sorted((o.steady.detectable, o.unsteady.detectable))
    told = " to ".join(dict.fromkeys("any" if math.isinf(d) else f"{d:.2f}" for d in detectable))
    if o.power is None:
        return f"{o.label}: 80% power to PASS from a gap of {told} on"
    least, most = ("at least ", "at most ") if o.least else ("", "")
    return (
        f"{o.label}: {least}{_span(o.power)} power to PASS if equal, 80% to FAIL from a difference of {most}{told} on"
    )


def _span(power: tuple[float, float]) -> str:
    """Power with unsteady and with steady seeds."""
    return " to ".join(dict.fromkeys(_share(p) for p in sorted(power)))


def _share(p: float) -> str:
    return "<0.1%" if p < 1e-3 else f"{100 * p:.2g}%" if p < 0.1 else f"{100 * p:.0f}%"


def _runs(c: Costed) -> str:
    if not c.plan.runs:
        return "none, printed cells" if c.plan.checked else ""
    return f"{len(c.plan.runs)} ({len(c.plan.runs) - c.cost.runs} stored)"


def _time(seconds: float, rough: bool) -> str:
    return "?" if math.isinf(seconds) else f"{'~' if rough else ''}{duration(seconds)}"


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None


def _option(seconds: float) -> str:
    return f"{seconds:g}s" if seconds % 60 else f"{seconds / 60:.0f}m"
