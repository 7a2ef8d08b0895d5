"""Commands that decide claims: plan, verify and judge."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from vitrepro.cli.main import app
from vitrepro.cli.options import (
    DEFAULT_STORE,
    BudgetOption,
    ClaimsOption,
    DataOption,
    DevicesOption,
    JsonOption,
    Patterns,
    PrecisionOption,
    ScaleOption,
    SeedsOption,
    SetOption,
    StoreOption,
)
from vitrepro.cli.shared import find_places, known_scale, one_of, print_json, read_registry, warn_of_problems
from vitrepro.errors import UsageError

if TYPE_CHECKING:
    from vitrepro.claims import Registry
    from vitrepro.cost import Timings
    from vitrepro.plan import ClaimPlan
    from vitrepro.recipe import Arithmetic
    from vitrepro.session import Request
    from vitrepro.store import Places


DEFAULT_BUDGET = 15 * 60.0


@app.command("plan")
def plan_command(
    patterns: Patterns,
    scale: ScaleOption = None,
    devices: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
    seeds: SeedsOption = None,
    settings: SetOption = None,
    budget: BudgetOption = None,
    peak_tflops: Annotated[
        float | None,
        typer.Option(
            "--peak-tflops",
            min=0.001,
            metavar="X",
            help="Plan for one GPU that is not here, by the TFLOP/s of its data sheet in the precision used.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataOption = None,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a verdict would cost, whether a PASS is possible, and with --budget which claims fit, cheapest first."""
    from vitrepro import budget as budgets
    from vitrepro import session
    from vitrepro.plan import unique_runs
    from vitrepro.report import planned, terminal

    if peak_tflops is not None and devices != "auto":
        raise UsageError("--peak-tflops is of a GPU that is not here, and --devices of those that are; give one")
    registry, places, request, timings, plans = _plans(
        patterns,
        scale,
        devices,
        precision,
        seeds,
        settings,
        budget,
        store,
        data_dir,
        claims_dir,
        elsewhere=peak_tflops is not None,
    )
    if peak_tflops is not None:
        clock, room = budgets.Clock(timings, (), "cuda", products_per_second=1e12 * peak_tflops), None
        slots = [f"a GPU of {peak_tflops:g} TFLOP/s"]
    else:
        records = places.store.readable_records()
        memories = session.memories(records, request)
        missing = [r for r in unique_runs(plans) if places.store.state(r.id) != "finished"]
        groups = session.arrange(missing, places.store, request, memories, planned=len(unique_runs(plans)))
        fewest = session.fewest_slots(groups, request)
        slots = [slot.device for slot in fewest]
        clock = budgets.Clock(timings.at(fewest[0].threads), records, request.devices[0])
        room = session.room(groups, memories) if groups else None
    made = planned.cost_plans(plans, places.store, clock, len(slots), room)
    picked = None
    if budget is not None and request.budget_seconds is not None:
        picked = budgets.pick(
            plans,
            clock.seconds,
            stored=lambda run: places.store.state(run.id) == "finished",
            slots=len(slots),
            budget_seconds=request.budget_seconds,
        )
    if as_json:
        print_json(**planned.as_json(made, picked), devices=slots, budget_seconds=request.budget_seconds)
        return
    planned.print_plans(terminal.console(), made, picked, slots, request.budget_seconds, clock.basis)
    warn_of_problems(registry)


@app.command()
def verify(
    ctx: typer.Context,
    patterns: Patterns,
    scale: ScaleOption = None,
    devices: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
    seeds: SeedsOption = None,
    settings: SetOption = None,
    budget: BudgetOption = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Forbid the network to every library as well; verify itself never downloads."),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set stored runs aside and make them anew.")] = False,
    checkpoint_every: Annotated[
        float, typer.Option("--checkpoint-every", min=0.0, metavar="SECONDS", help="Between checkpoints of a run.")
    ] = 30.0,
    allow_inconclusive: Annotated[
        bool, typer.Option("--allow-inconclusive", help="Run also what cannot PASS as planned, such as fewer seeds.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataOption = None,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run what is missing, judge, and print the verdict table.

    Exit code: 0 all PASS; 1 a FAIL; 2 usage or claim file; 3 something EXCEEDS, INCONCLUSIVE, INFEASIBLE or NOT_RUN;
    4 run error; 130 or 143 interrupted, and resumable by the same command.
    """
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    from dataclasses import replace

    from vitrepro import launch, torchrun

    ctx.with_resource(torchrun.joined(devices))
    if not torchrun.asked():
        launch.warm_up()
    launch.load()
    from vitrepro import session
    from vitrepro.changes import earlier_changes
    from vitrepro.cost import duration
    from vitrepro.judge.correction import adjusted
    from vitrepro.plan import unique_runs
    from vitrepro.report import terminal
    from vitrepro.report.families import sentences
    from vitrepro.report.progress import RunProgress
    from vitrepro.report.rows import as_json as verdict_json
    from vitrepro.report.rows import rows
    from vitrepro.report.text import outcome
    from vitrepro.report.verdicts import print_reasons, print_verdicts

    registry, places, request, timings, plans = _plans(
        patterns,
        scale,
        devices,
        precision,
        seeds,
        settings,
        budget,
        store,
        data_dir,
        claims_dir,
        fresh,
        allow_inconclusive,
    )
    request = replace(request, checkpoint_seconds=checkpoint_every)
    warn_of_problems(registry)
    errors = terminal.console(stderr=True)
    memories = session.memories(places.store.readable_records(), request)
    pending = {r.id: r for r in unique_runs(plans) if fresh or places.store.state(r.id) != "finished"}
    if pending and not quiet:
        places_of_runs = session.fewest_slots(
            session.arrange(list(pending.values()), places.store, request, memories, planned=len(unique_runs(plans))),
            request,
        )
        slots = f"{len(places_of_runs)} x {places_of_runs[0].device}"
        errors.print(f"{len(pending)} runs to do ({slots}); results go to {places.store.root}", markup=False)

    def on_data(name: str, done: int, total: int) -> None:
        if not quiet and done == total:
            errors.print(f"{name}: {total:,} images decoded and checked", markup=False)

    progress = RunProgress(pending, errors, quiet)
    try:
        with progress:
            verdicts = session.verify(
                plans, places, request, timings, memories=memories, on_event=progress, on_data=on_data
            )
    except launch.Interrupted as stopped:
        typer.echo(
            f"{stopped}: stopped; finished runs are stored, the others go on from their last checkpoint "
            "when the same command is run again.",
            err=True,
        )
        if as_json:
            print_json(verdicts=[], interrupted=str(stopped), exit_code=128 + stopped.number)
        raise typer.Exit(128 + stopped.number) from None
    if not torchrun.first():
        raise typer.Exit(0)  # the first process says how it went
    code = session.exit_code(verdicts)
    judged = [(p.claim, v) for p, v in zip(plans, verdicts, strict=True)]
    if as_json:
        documents = [verdict_json(*pair, p) for pair, p in zip(judged, adjusted(judged), strict=True)]
        print_json(verdicts=documents, exit_code=code, problems=list(registry.problems))
        raise typer.Exit(code)
    out = terminal.console()
    print_verdicts(out, rows(judged))
    out.print(terminal.counts([outcome(v.outcome, v.ours) for v in verdicts]) + ".", markup=False)
    print_reasons(out, verdicts)
    for sentence in sentences(judged):
        out.print(sentence, markup=False, soft_wrap=True)
    kept = {(e.claim_id, e.scale): e for e in places.store.verdicts()[0]}
    for p in plans:
        entry = kept.get((p.claim.id, p.choice.scale or ""))
        for change in earlier_changes(entry, p.claim, p.choice.entry) if entry and p.choice.entry else ():
            out.print(f"{p.claim.id}: changed: {change}", markup=False, soft_wrap=True)
    not_run = [v for p, v in zip(plans, verdicts, strict=True) if v.outcome.value == "NOT_RUN" and p.held_back is None]
    if not_run and request.budget_seconds is not None:
        out.print(
            f"The budget of {duration(request.budget_seconds)} left runs undone; run again to go on, or give --budget.",
            markup=False,
        )
    if any(v.fidelity == "proxy" and v.outcome.decided for v in verdicts):
        out.print(
            "A proxy tests the same statement in a smaller experiment: its PASS supports the claim, it does not "
            "reproduce the paper's number.",
            markup=False,
        )
    raise typer.Exit(code)


@app.command("judge")
def judge_command(
    claim_id: Annotated[str, typer.Argument(metavar="CLAIM[/CELL]")],
    accuracy: Annotated[
        list[str] | None,
        typer.Option("--accuracy", metavar="[NAME=]A,...", help="Percent, one a training run; repeat for names."),
    ] = None,
    correct: Annotated[
        list[str] | None,
        typer.Option("--correct", metavar="[NAME=]K,...", help="The same in images."),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            "--predictions",
            metavar="[NAME=]FILE,...",
            help="csv (id,predicted,label or id,correct), npz or safetensors; one for each training run.",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="CLAIM", help="The numbers that another claim reports.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", help="Test images, where the claim does not say it.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="With --sd: runs behind the one accuracy.")] = None,
    sd: Annotated[
        list[str] | None,
        typer.Option("--sd", metavar="[NAME=]SD", help="Standard deviation of these runs, in points."),
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Where the claim registers none; the verdict says so.")
    ] = None,
    same_weights: Annotated[
        bool, typer.Option("--same-weights", help="The weights the source evaluated, so that nothing is random.")
    ] = False,
    fine_tuned: Annotated[
        bool | None,
        typer.Option(
            "--fine-tuned/--from-scratch",
            help="How the runs were trained; else as the claim says.",
        ),
    ] = None,
    scale: ScaleOption = None,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """The verdict for numbers obtained elsewhere, by the claim's own rule and margin; nothing is run or stored.

    NAME is a reported cell, or an arm of a claim that compares arms. Exit codes as for verify.
    """
    from vitrepro import claims, session
    from vitrepro.judge import elsewhere
    from vitrepro.judge.correction import adjusted
    from vitrepro.judge.given import gather
    from vitrepro.report import terminal
    from vitrepro.report.rows import as_json as verdict_json
    from vitrepro.report.rows import rows
    from vitrepro.report.verdicts import print_findings, print_verdicts

    registry = read_registry(claims_dir)
    claim, cell = claims.one(registry, claim_id)
    origin = claims.one(registry, source)[0] if source is not None else None
    regime: Any = None if fine_tuned is None else "fine-tuned" if fine_tuned else "scratch"
    asked = elsewhere.Asked(known_scale(scale), n, margin, same_weights, origin.id if origin else None, regime)
    given = gather(
        {"--accuracy": accuracy or (), "--correct": correct or (), "--predictions": predictions or ()}, sd or (), seeds
    )
    left: dict[str, str] = {}
    if origin is not None:
        if given or seeds is not None:
            raise UsageError(
                "--from brings its own numbers; leave out --accuracy, --correct, --predictions and --seeds"
            )
        given, left = elsewhere.from_claim(origin, claim, cell, asked.scale)
    result = elsewhere.judge(registry, claim, cell, given, asked)
    not_judged = {**result.not_judged, **left}
    code = session.exit_code([result.verdict])
    judged = [(claim, result.verdict)]
    if as_json:
        print_json(verdict=verdict_json(*judged[0], adjusted(judged)[0]), not_judged=not_judged, exit_code=code)
        raise typer.Exit(code)
    out = terminal.console()
    print_verdicts(out, rows(judged))
    print_findings(out, claim, result.verdict, origin)
    for why in dict.fromkeys(not_judged.values()):
        names = ", ".join(name for name, own in not_judged.items() if own == why)
        out.print(f"{names}: not judged: {why}", markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _plans(
    patterns: list[str],
    scale: str | None,
    devices: str,
    precision: str,
    seeds: int | None,
    settings: list[str] | None,
    budget: str | None,
    store: Path,
    data_dir: Path | None,
    claims_dir: list[Path] | None,
    fresh: bool = False,
    allow_inconclusive: bool = True,
    elsewhere: bool = False,
) -> tuple[Registry, Places, Request, Timings, list[ClaimPlan]]:
    """What `plan` and `verify` share: read the command line and plan the claims.

    Args:
        elsewhere: for one GPU that is not here, as the newer ones are: with bfloat16.
    """
    from vitrepro import claims, launch, session, torchrun
    from vitrepro.cost import Timings
    from vitrepro.plan import Override
    from vitrepro.recipe import Precision

    one_of("--precision", precision, get_args(Precision))
    wanted = known_scale(scale)
    overrides = tuple(Override.parse(text) for text in settings or [])
    if precision != "auto" and any(o.path == "train.precision" for o in overrides):
        raise UsageError("--precision and --set train.precision name the same setting; give one")
    seconds = parse_budget(budget) if budget is not None else (None if wanted else DEFAULT_BUDGET)
    registry = read_registry(claims_dir)
    chosen, group = claims.select(registry, patterns)

    from vitrepro.distributed import device_name, resolve_precision
    from vitrepro.distributed import devices as find_devices

    if elsewhere:
        used: tuple[str, ...] = ("cuda:0",)
    else:
        used = (torchrun.device(devices),) if torchrun.asked() else find_devices(devices)
    request = session.Request(
        scales=(wanted,) if wanted else group.scale if group else (),
        devices=used,
        slots_named=devices.startswith("cpu:"),
        precision=precision,  # type: ignore[arg-type]
        seeds=seeds,
        overrides=overrides,
        budget_seconds=seconds,
        fresh=fresh,
        allow_inconclusive=allow_inconclusive,
        elsewhere=elsewhere,
    )
    places = find_places(store, data_dir)
    if elsewhere:
        timings = Timings((), "", 0)
    else:
        threads = torchrun.threads() if torchrun.asked() else launch.slots(used)[0].threads
        timings = Timings(places.store.readable_records(), device_name(used[0]), threads)

    def resolve(wanted: Precision) -> Arithmetic:
        if elsewhere:
            return "bf16" if wanted == "auto" else wanted
        return resolve_precision(wanted, used)

    plans = session.make_plans(registry, chosen, places, request, resolve=resolve, timings=timings)
    return registry, places, request, timings, plans


def parse_budget(text: str) -> float | None:
    """Seconds of `90s`, `20m`, `1.5h`, or None for `none`.

    Raises:
        UsageError: not of this form, or not positive.
    """
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise UsageError(f"--budget {text!r}: expected a time such as 90s, 20m or 2h, or none")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
