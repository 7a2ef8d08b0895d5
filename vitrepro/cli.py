"""The command line: parse, call one function, print.

Only the commands that compute import torch, inside the command; `--help`, `list-claims` and `report` stay light.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args

import typer
from typer.core import TyperGroup

from vitrepro import __version__
from vitrepro.errors import UsageError, VitreproError, did_you_mean

if TYPE_CHECKING:
    from vitrepro.claims import Registry
    from vitrepro.cost import Timings
    from vitrepro.plan import ClaimPlan
    from vitrepro.session import Request
    from vitrepro.spec import Claim
    from vitrepro.store import Places, Store

SCHEMA_VERSION = 1
DEFAULT_BUDGET = 15 * 60.0


class Commands(TyperGroup):
    """Turns every error a user can meet into one message on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VitreproError as error:
            typer.echo(str(error), err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            typer.echo("Interrupted. Run the same command again to go on.", err=True)
            ctx.exit(130)
        except EOFError as error:  # or click would take it for an interrupt and end with 1, which means FAIL
            typer.echo(f"a helper process ended early ({error or 'no message'}); run the same command again", err=True)
            ctx.exit(4)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
    help="Check what a paper claims: list its claims, run the experiments that decide them, print the verdicts.",
    epilog="First steps: vitrepro verify quickstart; vitrepro list-claims; vitrepro show CLAIM-ID.",
)
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, fetch and check data sets.")
app.add_typer(data_app, name="data")
weights_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List and fetch released weights.")
app.add_typer(weights_app, name="weights")

Patterns = Annotated[
    list[str], typer.Argument(metavar="CLAIM...", help="Ids, globs such as 'vit/t8-*', or a group such as quickstart.")
]


def _no_export(store: Path) -> Path:
    """Refuse to take an export for a store: it would look empty, and be written to."""
    if (store / "export.json").is_file():
        raise UsageError(
            f"{store}: an export, not a store; `vitrepro report --from` and `audit --verdicts --from` read it"
        )
    return store


StoreOption = Annotated[
    Path,
    typer.Option(
        "--store", envvar="VITREPRO_STORE", metavar="DIR", callback=_no_export, help="Where results are kept."
    ),
]
FromOption = Annotated[
    Path | None, typer.Option("--from", metavar="DIR", help="An export (`vitrepro export`), instead of a store.")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="VITREPRO_DATA", metavar="DIR", help="Folder that holds NAME/*.parquet."),
]
ClaimsOption = Annotated[
    list[Path] | None, typer.Option("--claims-dir", metavar="DIR", help="Further claims; may be repeated.")
]
ScaleOption = Annotated[
    str | None,
    typer.Option("--scale", metavar="SCALE", help="any, paper, gpu, cpu, quick or literal; else the most faithful."),
]
DevicesOption = Annotated[
    str,
    typer.Option("--devices", "--device", metavar="LIST", help="auto, cpu, cpu:N, cuda, or cuda:0,cuda:1."),
]
PrecisionOption = Annotated[
    str, typer.Option("--precision", metavar="P", help="auto, bf16, fp16 or fp32, instead of the recipe's.")
]
SeedsOption = Annotated[
    int | None, typer.Option("--seeds", min=1, max=1000, help="How many seeds, instead of the registered ones.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, e.g. train.lr=0.01; the verdict says so."),
]
BudgetOption = Annotated[
    str | None, typer.Option("--budget", metavar="TIME", help="Most wall time, e.g. 90s, 20m, 2h, or none.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else.")]
DEFAULT_STORE = Path("vitrepro-runs")


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"vitrepro {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command("list-claims")
def list_claims(
    patterns: Annotated[list[str] | None, typer.Argument(metavar="[CLAIM...]")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind of claim.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Only claims whose id, source or place contains this text.")
    ] = None,
    scale: ScaleOption = None,
    tag: Annotated[str | None, typer.Option(help="Only claims with this tag.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only claims whose last outcome is this.")] = None,
    feasible: Annotated[
        bool, typer.Option("--feasible", help="Only claims that can be checked here, then why not the others.")
    ] = False,
    cells: Annotated[bool, typer.Option("--cells", help="Every reported number under its address.")] = False,
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataOption = None,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Table of claims: id, place, kind, cells, how each scale checks it, feasible here, last outcome."""
    from vitrepro import claims
    from vitrepro.provenance import cuda_likely
    from vitrepro.report import listing, terminal
    from vitrepro.spec import Kind

    _one_of("--kind", kind, get_args(Kind))
    _one_of("--outcome", outcome, tuple(terminal.STYLES))
    registry = _registry(claims_dir)
    chosen = claims.select(registry, patterns)[0] if patterns else list(registry.claims.values())
    filters = listing.Filters(kind, source, _scale(scale), tag, outcome)
    rows = listing.listed(registry, chosen, _places(store, data_dir), filters, cuda=cuda_likely())
    if as_json:
        _print_json(
            claims=[
                {
                    **r.claim.model_dump(mode="json"),
                    "hash": r.claim.hash,
                    "feasible_scale": r.choice.scale,
                    "why_not": dict(r.choice.reasons),
                    "last_outcome": r.outcome,
                    "last_scale": r.last.scale if r.last else None,
                    "last_fidelity": r.last.fidelity if r.last else None,
                }
                for r in rows
                if r.choice.scale is not None or not feasible
            ],
            problems=list(registry.problems),
            warnings=list(registry.warnings),
        )
        return
    out = terminal.console()
    if not rows:
        out.print("No claim passes these filters.", markup=False)
    else:
        listing.print_claims(out, rows, registry, feasible=feasible, cells=cells)
    _warn_of_problems(registry)


@app.command()
def show(
    claim_id: Annotated[str, typer.Argument(metavar="CLAIM")],
    engine: Annotated[
        bool, typer.Option("--engine", help="Also the choices made for speed on this device, each with its reason.")
    ] = False,
    scale: ScaleOption = None,
    devices: DevicesOption = "auto",
    store: StoreOption = DEFAULT_STORE,
    data_dir: DataOption = None,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Everything about one claim: statement, cells, scales, deviations, why feasible or not, verdicts stored."""
    from vitrepro import claims, plan
    from vitrepro.provenance import cuda_likely
    from vitrepro.report import terminal
    from vitrepro.report.questions import answers
    from vitrepro.report.show import describe

    registry = _registry(claims_dir)
    places = _places(store, data_dir)
    chosen, _ = claims.select(registry, [claim_id])
    entries, faults = places.store.verdicts()
    reason = plan.obstacles(registry, places.data_dir, places.cache_dir, cuda=cuda_likely())
    if (scale is not None or devices != "auto") and not engine:
        raise UsageError("--scale and --devices of show go with --engine")
    computed = {c.id: _engine_choices(c, registry, _scale(scale), devices, reason) for c in chosen} if engine else {}
    if as_json:
        described = []
        for claim in chosen:
            mine = [e for e in entries if e.claim_id == claim.id]
            choice = plan.choose_scale(claim, None, why_not=reason)
            described.append(
                {
                    **claim.model_dump(mode="json"),
                    "hash": claim.hash,
                    "feasible_scale": choice.scale,
                    "why_not": dict(choice.reasons),
                    "questions": dict(answers(claim, registry.papers.get(claim.source.paper), mine)),
                    "verdicts": [e.model_dump(mode="json") for e in mine],
                    **({"engine": computed[claim.id][1]} if engine else {}),
                }
            )
        _print_json(claims=described, problems=faults)
        return
    out = terminal.console()
    named, _, cell = claim_id.rpartition("/")
    for claim in chosen:
        choice = plan.choose_scale(claim, None, why_not=reason)
        mine = [e for e in entries if e.claim_id == claim.id]
        judged = []
        if mine:
            from vitrepro.report.judged import rejudge  # brings in numpy

            judged = rejudge(registry, places.store, mine)
        describe(out, claim, registry, choice, mine, cell if named == claim.id else None, judged)
        if engine:
            from vitrepro.report.engines import print_choices

            print_choices(out, *computed[claim.id])
    for fault in faults:
        typer.echo(fault, err=True)


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
        records = session.readable_records(places.store)
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
        _print_json(**planned.as_json(made, picked), devices=slots, budget_seconds=request.budget_seconds)
        return
    planned.print_plans(terminal.console(), made, picked, slots, request.budget_seconds, clock.basis)
    _warn_of_problems(registry)


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
    from vitrepro.plan import unique_runs
    from vitrepro.report import terminal
    from vitrepro.report.families import adjusted, sentences
    from vitrepro.report.progress import RunProgress
    from vitrepro.report.rows import as_json as verdict_json
    from vitrepro.report.rows import rows
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
    _warn_of_problems(registry)
    errors = terminal.console(stderr=True)
    memories = session.memories(session.readable_records(places.store), request)
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
            _print_json(verdicts=[], interrupted=str(stopped), exit_code=128 + stopped.number)
        raise typer.Exit(128 + stopped.number) from None
    if not torchrun.first():
        raise typer.Exit(0)  # the first process says how it went
    code = session.exit_code(verdicts)
    judged = [(p.claim, v) for p, v in zip(plans, verdicts, strict=True)]
    if as_json:
        documents = [verdict_json(*pair, p) for pair, p in zip(judged, adjusted(judged), strict=True)]
        _print_json(verdicts=documents, exit_code=code, problems=list(registry.problems))
        raise typer.Exit(code)
    out = terminal.console()
    print_verdicts(out, rows(judged))
    out.print(terminal.counts([v.outcome.value for v in verdicts]) + ".", markup=False)
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
    scale: ScaleOption = None,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """The verdict for numbers obtained elsewhere, by the claim's own rule and margin; nothing is run or stored.

    NAME is a reported cell, or an arm of a claim that compares arms. Exit codes as for verify.
    """
    from vitrepro import claims, elsewhere, session
    from vitrepro.given import gather
    from vitrepro.report import terminal
    from vitrepro.report.families import adjusted
    from vitrepro.report.rows import as_json as verdict_json
    from vitrepro.report.rows import rows
    from vitrepro.report.verdicts import print_findings, print_verdicts

    registry = _registry(claims_dir)
    claim, cell = claims.one(registry, claim_id)
    origin = claims.one(registry, source)[0] if source is not None else None
    asked = elsewhere.Asked(_scale(scale), n, margin, same_weights, origin.id if origin else None)
    given = gather(
        {"--accuracy": accuracy or (), "--correct": correct or (), "--predictions": predictions or ()}, sd or (), seeds
    )
    left: dict[str, str] = {}
    if origin is not None:
        if given:
            raise UsageError("--from brings its own numbers; leave out --accuracy, --correct and --predictions")
        given, left = elsewhere.from_claim(origin, claim, cell, asked.scale)
    result = elsewhere.judge(registry, claim, cell, given, asked)
    not_judged = {**result.not_judged, **left}
    code = session.exit_code([result.verdict])
    judged = [(claim, result.verdict)]
    if as_json:
        _print_json(verdict=verdict_json(*judged[0], adjusted(judged)[0]), not_judged=not_judged, exit_code=code)
        raise typer.Exit(code)
    out = terminal.console()
    print_verdicts(out, rows(judged))
    print_findings(out, claim, result.verdict, origin)
    for why in dict.fromkeys(not_judged.values()):
        names = ", ".join(name for name, own in not_judged.items() if own == why)
        out.print(f"{names}: not judged: {why}", markup=False, soft_wrap=True)
    raise typer.Exit(code)


@app.command()
def report(
    ctx: typer.Context,
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CLAIM...]", help="What it is about; else all claims of the sources in the store."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write here, plots beside it; else to stdout.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    source: FromOption = None,
    claims_dir: ClaimsOption = None,
) -> None:
    """Markdown report with plots, from the store or an export alone: every verdict, and what was not checked and why.

    The same store gives the same bytes, and so does its export.
    """
    from vitrepro.report import markdown

    found, about = _results(ctx, store, source)
    registry = _registry(claims_dir)
    text, judged = markdown.write(registry, found, out, patterns or about)
    if out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"{out}: {len(judged)} verdicts", err=True)
    _warn_of_problems(registry)


@app.command("export")
def export_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder, or an earlier export.")],
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="[CLAIM...]", help="Else all that the store holds.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    claims_dir: ClaimsOption = None,
) -> None:
    """Write a store as small text files, from which `report --from` and `audit --verdicts --from` judge again.

    Verdicts, records, the class predicted for every test image, learning curves and errors; no weights, no images, no
    paths of this machine.
    """
    from vitrepro import export
    from vitrepro.report.selection import names

    registry = _registry(claims_dir)
    found, _ = _stored(store)
    size = export.write(found, folder, patterns or (), names(registry, patterns) if patterns else None)
    typer.echo(f"{folder}: {size:,} bytes", err=True)
    _warn_of_problems(registry)


@app.command("audit")
def audit_command(
    ctx: typer.Context,
    patterns: Annotated[list[str] | None, typer.Argument(metavar="[CLAIM...]")] = None,
    tables: Annotated[
        list[Path] | None,
        typer.Option("--table", metavar="FILE", help="A table (csv, tsv, yaml, json) that restates reported numbers."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every number, not only what stands out.")] = False,
    verdicts: Annotated[
        bool,
        typer.Option(
            "--verdicts", help="Could the verdicts of --store have come out otherwise? Exit 1 if one could not."
        ),
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    source: FromOption = None,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Could the reported numbers have come about? As k/n, a mean of runs or of batches; copied rows; wrong digits.

    Information about the numbers themselves, never an outcome: the exit code is 0 whatever it finds.

    With --verdicts: every verdict of a store judged again, with its reported number moved by one, two and three
    margins both ways, its orders reversed, and as far as what was measured. Exit code: 1 if a decided verdict comes out
    the same whatever is changed, which is a defect of its claim; else 0.
    """
    from vitrepro import claims
    from vitrepro.report import audited, terminal

    if verdicts:
        _audit_verdicts(patterns, tables, everything, _results(ctx, store, source)[0], claims_dir, as_json)
    if source is not None or _given(ctx, "store"):
        option, what = ("--from", "an export") if source is not None else ("--store", "a store")
        raise UsageError(
            f"{option} names {what} of verdicts, at which only --verdicts looks; add it, or leave {option}"
        )
    registry = _registry(claims_dir)
    chosen = claims.select(registry, patterns)[0] if patterns else list(registry.claims.values())
    found = audited.audited(chosen, tables or [])
    if as_json:
        _print_json(**audited.as_json(found), problems=list(registry.problems))
        return
    audited.print_audit(terminal.console(), found, everything=everything)
    _warn_of_problems(registry)


def _audit_verdicts(
    patterns: list[str] | None,
    tables: list[Path] | None,
    everything: bool,
    store: Store,
    claims_dir: list[Path] | None,
    as_json: bool,
) -> NoReturn:
    """`audit --verdicts`; ends with its exit code."""
    from vitrepro import claims
    from vitrepro.report import sensitive, terminal

    if tables or everything:
        other = "--table" if tables else "--all"
        raise UsageError(f"{other} looks at reported numbers and --verdicts at the verdicts of a store; give one")
    registry = _registry(claims_dir)
    chosen = {c.id for c in claims.select(registry, patterns)[0]} if patterns else None
    found = sensitive.audited(registry, store, chosen)
    faults = store.verdicts()[1]
    if as_json:
        _print_json(**sensitive.as_json(found), problems=[*registry.problems, *faults])
    else:
        sensitive.print_audited(terminal.console(), found)
        for fault in faults:
            typer.echo(fault, err=True)
        _warn_of_problems(registry)
    raise typer.Exit(sensitive.exit_code(found))


@app.command()
def calibrate(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the tables here; else to stdout.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1_000, max=1_000_000, help="Simulated experiments a line.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, max=1024, help="At a time; else one a core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """How often verdicts are wrong, by simulation: false PASS and FAIL, power against the plan, coverage.

    Exit code: 0 all within the limits; 1 a limit is missed.
    """
    from vitrepro import calibration
    from vitrepro.report import calibrated, terminal
    from vitrepro.report.progress import StepProgress
    from vitrepro.store import explain, write_atomic

    number = trials or calibration.TRIALS
    chosen, beside = calibration.studies(number), calibration.comparisons(number)
    work = sum(s.work for s in (*chosen, *beside))
    with StepProgress("calibration", work, terminal.console(stderr=True), quiet) as progress:
        found = calibration.run(
            (*chosen, *beside),
            processes or os.cpu_count() or 1,
            lambda s: progress.advance(s.work, f"{s.kind}, {s.seeds} seeds"),
        )
    tallies = found[: len(chosen)]
    text = calibrated.document(chosen, tallies, number, found[len(chosen) :])
    if out is None:
        typer.echo(text)
    else:
        with explain(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out, text.encode())
        typer.echo(f"{out}: {calibrated.summary(tallies)}", err=True)
    if any(calibrated.missing(tallies)):
        raise typer.Exit(1)


@app.command()
def bench(
    workloads: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORKLOAD...]", help="Names, or EXPERIMENT/ARM; else those that suit the device."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="WHOM", help="timm, plain, or both with a comma; turn by turn with ours."),
    ] = None,
    pairs: Annotated[int, typer.Option("--pairs", min=1, max=1000, help="How many turns a side.")] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, max=3600.0, help="What a turn of the slowest side should last.")
    ] = 8.0,
    devices: DevicesOption = "auto",
    precision: PrecisionOption = "auto",
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Images a step, instead of the recipe's.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write a document as well.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Images/s, FLOP/s, memory and input share of training and evaluation, ours and others', on this machine.

    Images are random and made in memory; nothing is downloaded or stored.
    """
    from vitrepro import launch
    from vitrepro.bench import pairs as turns
    from vitrepro.bench.workloads import changed, chosen, suited
    from vitrepro.recipe import Precision
    from vitrepro.report import benched, terminal
    from vitrepro.report.progress import StepProgress
    from vitrepro.store import explain, write_atomic

    _one_of("--precision", precision, get_args(Precision))
    rivals = turns.opponents(against or [])
    named = chosen(workloads or [], _registry(claims_dir))

    from vitrepro.distributed import devices as find_devices
    from vitrepro.distributed import resolve_precision

    used = find_devices(devices)
    picked = suited(named, used)
    timed = {name: changed(name, w, precision=precision, batch_size=batch) for name, w in picked.items()}
    turns.check(timed, rivals)
    machine = turns.machine(used)
    try:
        work = turns.work(timed, rivals, pairs)
        with StepProgress("benchmark", work, terminal.console(stderr=True), quiet) as progress:
            results = turns.measure(
                timed,
                rivals,
                devices=used,
                resolve=lambda wanted: resolve_precision(wanted, used),
                pairs=pairs,
                seconds=seconds,
                cache_dir=_places(DEFAULT_STORE, None).cache_dir,
                slots_named=devices.startswith("cpu:"),
                advance=lambda note: progress.advance(1, note),
            )
    except (KeyboardInterrupt, launch.Interrupted) as stopped:
        number = stopped.number if isinstance(stopped, launch.Interrupted) else 2
        typer.echo("Interrupted; nothing was stored.", err=True)
        raise typer.Exit(128 + number) from None
    if out is not None:
        text = benched.document(
            results, machine, command=shlex.join(["vitrepro", *sys.argv[1:]]), pairs=pairs, seconds=seconds
        )
        with explain(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out, text.encode())
    if as_json:
        _print_json(**benched.as_json(results, machine, pairs=pairs, seconds=seconds))
        return
    benched.print_results(terminal.console(), results, machine, pairs)


@app.command()
def runs(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """What is stored: every run with its state, result and device."""
    from vitrepro.cost import duration
    from vitrepro.errors import StoreError
    from vitrepro.record import TrainResult
    from vitrepro.report import terminal
    from vitrepro.store import Store

    kept = Store(store)
    rows: list[tuple[str, ...]] = []
    documents: list[dict[str, Any]] = []
    faults = []
    for run_id in kept.run_ids():
        try:
            record = kept.record(run_id)
        except StoreError as error:
            faults.append(str(error))
            documents.append({"run_id": run_id, "state": "damaged"})
            rows.append((run_id, "ERROR", "", "", "damaged record", "", ""))
            continue
        if record is None:
            state = kept.state(run_id)
            documents.append({"run_id": run_id, "state": state, "error": kept.error(run_id)})
            rows.append((run_id, state, "", "", kept.error(run_id) or "", "", ""))
            continue
        result = record.result
        value, where = "counted", record.environment.device
        if isinstance(result, TrainResult):
            value = f"{100 * result.correct / result.n:.2f}% ({result.correct} of {result.n})"
            where += f", {result.precision}"
        documents.append({"run_id": run_id, "state": "finished", **record.model_dump(mode="json", exclude={"run_id"})})
        seconds = duration(record.wall_seconds)
        rows.append((run_id, "finished", f"{record.experiment}/{record.arm}", str(record.seed), value, where, seconds))
    if as_json:
        _print_json(runs=documents, problems=faults)
    else:
        out = terminal.console()
        out.print(terminal.table(("run", "state", "arm", "seed", "result", "device", "wall"), rows))
        out.print(f"{len(rows)} runs in {store}", markup=False)
        for fault in faults:
            typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(StoreError.exit_code)


@app.command()
def validate(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help="Files, or directories of claims.")
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of claim files for editors.")] = False,
    claims_dir: ClaimsOption = None,
) -> None:
    """Check claim files; every fault with its file, line and key."""
    from vitrepro import claims
    from vitrepro.errors import ClaimFileError

    if schema:
        typer.echo(json.dumps(claims.json_schema(), indent=2))
        return
    folders = [f for f in files or [] if f.is_dir()]
    single = [f for f in files or [] if not f.is_dir()]
    registry = claims.load([*(claims_dir or []), *folders])
    problems = [*registry.problems, *claims.check_files(single, registry)]
    if problems:
        raise ClaimFileError(problems)
    typer.echo(f"{len(registry.claims)} claims, {len(registry.experiments)} experiments: no faults")
    for file in single:
        typer.echo(f"{file}: no faults")


@app.command("new-claim")
def new_claim(
    claim_id: Annotated[str, typer.Argument(metavar="ID", help="paper/slug, lower case.")] = "my-paper/my-claim",
    kind: Annotated[
        str, typer.Option(help="ordering, value, trend, equivalence, exact, cost, qualitative or literal.")
    ] = "ordering",
    directory: Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the files go.")] = Path("my-claims"),
) -> None:
    """Write a claim and its experiment that work as they are, with comments, to be changed into yours."""
    from vitrepro import template

    for path in template.new_claim(directory, claim_id, kind):
        typer.echo(path)
    typer.echo(
        f"Change them, then: vitrepro validate {directory}; vitrepro verify {claim_id} --claims-dir {directory}",
        err=True,
    )


@app.command()
def doctor(store: StoreOption = DEFAULT_STORE, data_dir: DataOption = None, as_json: JsonOption = False) -> None:
    """What this machine can do: devices, precision, versions, data, disk."""
    from vitrepro.report import terminal
    from vitrepro.report.doctor import examine

    facts = examine(_places(store, data_dir))
    if as_json:
        _print_json(**facts)
        return
    rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in facts.items()]
    terminal.console().print(terminal.table(("what", "found"), rows))


@data_app.command("list")
def data_list(data_dir: DataOption = None, as_json: JsonOption = False) -> None:
    """Data sets, and where they are on this machine."""
    from vitrepro.catalog import DATASETS
    from vitrepro.data.locate import locate
    from vitrepro.report import terminal

    places = _places(DEFAULT_STORE, data_dir)
    found = {name: locate(name, places.data_dir, places.cache_dir) for name in DATASETS}
    if as_json:
        _print_json(
            datasets={
                name: {"state": f.kind, "looked_at": [str(p) for p in f.looked_at], "problem": f.problem}
                for name, f in found.items()
            }
        )
        return
    rows = [
        (name, i.title, f"{i.train:,} / {i.test:,}", f"{i.image_size} px", found[name].kind)
        for name, i in DATASETS.items()
    ]
    terminal.console().print(terminal.table(("name", "data set", "train / test", "size", "here"), rows))


@data_app.command("fetch")
def data_fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    data_dir: DataOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no socket.")] = False,
) -> None:
    """Make data sets ready: read local files or download, decode, check sizes, labels and content."""
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    from vitrepro.catalog import DATASETS
    from vitrepro.data.prepare import prepare

    places = _places(DEFAULT_STORE, data_dir)
    for name in names:
        if name not in DATASETS:
            raise UsageError(f"no data set {name!r}{did_you_mean(name, DATASETS)} (known: {', '.join(DATASETS)})")
    for name in names:
        ready = prepare(name, data_dir=places.data_dir, cache_dir=places.cache_dir, offline=offline)  # type: ignore[arg-type]
        typer.echo(
            f"{name}: {ready.train.images:,} training and {ready.test.images:,} test images, "
            f"content {ready.sha256[:16]}, from {ready.source}"
        )
        for change in ready.changes:
            typer.echo(f"{name}: {change}")


@weights_app.command("list")
def weights_list(data_dir: DataOption = None, claims_dir: ClaimsOption = None, as_json: JsonOption = False) -> None:
    """Released weights that experiments start from, and where they are on this machine."""
    from vitrepro import claims, weights
    from vitrepro.report import terminal
    from vitrepro.spec import TrainExperiment

    registry = _registry(claims_dir)
    places = _places(DEFAULT_STORE, data_dir)
    users: dict[str, dict[str, None]] = {}
    for experiment in registry.experiments.values():
        if isinstance(experiment, TrainExperiment):
            for recipe in claims.recipes(experiment).values():
                if recipe.weights is not None:
                    users.setdefault(recipe.weights, {})[experiment.id] = None
    found = {name: weights.locate(name, places.data_dir) for name in sorted(users)}
    if as_json:
        _print_json(
            weights={
                name: {
                    "path": str(f.path) if f.path else None,
                    "looked_at": [str(p) for p in f.looked_at],
                    "experiments": list(users[name]),
                }
                for name, f in found.items()
            }
        )
        return
    rows = [(name, str(f.path or "missing"), ", ".join(users[name])) for name, f in found.items()]
    terminal.console().print(terminal.table(("weights", "here", "experiments"), rows))


@weights_app.command("fetch")
def weights_fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="timm names with their full tag.")],
    data_dir: DataOption = None,
    offline: Annotated[bool, typer.Option("--offline", help="Open no socket.")] = False,
) -> None:
    """Download released weights, so that verify finds them; a name needs its full tag."""
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    from vitrepro import weights

    places = _places(DEFAULT_STORE, data_dir)
    for name in names:
        typer.echo(f"{name}: {weights.fetch(name, places.data_dir, offline=offline)}")


def run() -> None:
    """Entry point of the `vitrepro` command; a fault of the program itself never looks like a verdict."""
    try:
        app()
    except Exception:
        traceback.print_exc()
        typer.echo("This is a fault of vitrepro, not of the claim; nothing stored is lost.", err=True)
        sys.exit(70)


# --- shared by the commands ---------------------------------------------------------------------


def _registry(extra: list[Path] | None) -> Registry:
    from vitrepro import claims

    return claims.load(extra or [])


def _places(store: Path, data_dir: Path | None) -> Places:
    from vitrepro.store import Places

    return Places.of(store, data_dir)


def _stored(store: Path) -> tuple[Store, tuple[str, ...]]:
    from vitrepro.store import Store

    if not store.is_dir():
        raise UsageError(f"{store}: no such store; `vitrepro verify` makes one, --store names another")
    return Store(store), ()


def _results(ctx: typer.Context, store: Path, source: Path | None) -> tuple[Store, tuple[str, ...]]:
    """The store, or the export that --from names, with the patterns of claims that it is about."""
    if source is None:
        return _stored(store)
    if _given(ctx, "store"):
        raise UsageError("--store and --from name two places to read; give one")
    from vitrepro import export  # brings in numpy

    return export.read(source)


def _given(ctx: typer.Context, option: str) -> bool:
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


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

    _one_of("--precision", precision, get_args(Precision))
    wanted = _scale(scale)
    overrides = tuple(Override.parse(text) for text in settings or [])
    if precision != "auto" and any(o.path == "train.precision" for o in overrides):
        raise UsageError("--precision and --set train.precision name the same setting; give one")
    seconds = parse_budget(budget) if budget is not None else (None if wanted else DEFAULT_BUDGET)
    registry = _registry(claims_dir)
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
    places = _places(store, data_dir)
    if elsewhere:
        plans = session.make_plans(
            registry,
            chosen,
            places,
            request,
            resolve=lambda wanted: "bf16" if wanted == "auto" else wanted,
            timings=(timings := Timings((), "", 0)),
        )
        return registry, places, request, timings, plans
    threads = torchrun.threads() if torchrun.asked() else launch.slots(used)[0].threads
    timings = Timings(session.readable_records(places.store), device_name(used[0]), threads)
    plans = session.make_plans(
        registry,
        chosen,
        places,
        request,
        resolve=lambda wanted: resolve_precision(wanted, used),
        timings=timings,
    )
    return registry, places, request, timings, plans


def _engine_choices(claim: Claim, registry: Registry, scale: Any, devices: str, reason: Any) -> tuple[Any, Any]:
    """The scale looked at, the one asked for or the most faithful that can run, and each arm's choices there."""
    from vitrepro import plan
    from vitrepro.distributed import devices as find_devices
    from vitrepro.report import engines

    choice = plan.choose_scale(claim, scale, why_not=reason if scale is None else lambda *_: None)
    return choice.scale, engines.choices(choice, registry, find_devices(devices))


def _scale(text: str | None) -> Any:
    from vitrepro.spec import CHECKS

    _one_of("--scale", text, CHECKS)
    return text


def _one_of(option: str, value: str | None, allowed: Any) -> None:
    if value is not None and value not in allowed:
        raise UsageError(f"{option} {value!r} is not one of {', '.join(allowed)}{did_you_mean(value, allowed)}")


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


def _print_json(**content: Any) -> None:
    typer.echo(json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=1, allow_nan=False, ensure_ascii=False))


def _warn_of_problems(registry: Registry) -> None:
    for warning in registry.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    if registry.problems:
        typer.echo(f"{len(registry.problems)} faults in claim files; those claims are left out:", err=True)
        for problem in registry.problems:
            typer.echo(f"  {problem}", err=True)
