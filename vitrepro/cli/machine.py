"""Commands about rules and machines: calibrate, bench and doctor."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer

from vitrepro.cli.main import app
from vitrepro.cli.options import (
    DEFAULT_STORE,
    ClaimsOption,
    DataOption,
    DevicesOption,
    JsonOption,
    PrecisionOption,
    StoreOption,
)
from vitrepro.cli.shared import find_places, one_of, print_json, read_registry


@app.command()
def calibrate(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the tables here; else to stdout.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1_000, max=1_000_000, help="Simulated experiments a study.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """How often verdicts are wrong, by simulation: false PASS and FAIL, coverage, and what is left to tell.

    Exit code: 0 all promised worlds within the limits; 1 a limit is missed.
    """
    from vitrepro.audit import calibration
    from vitrepro.report import calibrated, terminal
    from vitrepro.report.progress import StepProgress
    from vitrepro.store import explain, write_atomic

    number = trials or calibration.TRIALS
    chosen = [*calibration.promised(), *calibration.shown()]
    rates = []
    with StepProgress("calibration", len(chosen), terminal.console(stderr=True), quiet) as progress:
        for study in chosen:
            rates.append(study.run(number))
            progress.advance(1, study.kind)
    useful, pairs = list(calibration.usefulness(number)), list(calibration.one_against_another())
    text = calibrated.document(rates, useful, pairs, number)
    if out is None:
        typer.echo(text)
    else:
        with explain(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out, text.encode())
        typer.echo(f"{out}: {calibrated.summary(rates, useful, pairs)}", err=True)
    if any(calibrated.missing(rates, useful, pairs)):
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
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write a document, workload by workload.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    claims_dir: ClaimsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Images/s, FLOP/s, memory and input share of training and evaluation, ours and others', on this machine.

    Images are random and made in memory; nothing is downloaded or stored.
    """
    from vitrepro import launch
    from vitrepro.bench import pairs as turns
    from vitrepro.bench.results import Result
    from vitrepro.bench.workloads import changed, chosen, suited
    from vitrepro.recipe import Precision
    from vitrepro.report import benched, terminal
    from vitrepro.report.progress import StepProgress
    from vitrepro.store import explain, write_atomic

    one_of("--precision", precision, get_args(Precision))
    rivals = turns.opponents(against or [])
    named = chosen(workloads or [], read_registry(claims_dir))

    from vitrepro.distributed import devices as find_devices
    from vitrepro.distributed import resolve_precision

    used = find_devices(devices)
    picked = suited(named, used)
    timed = {name: changed(name, w, precision=precision, batch_size=batch) for name, w in picked.items()}
    turns.check(timed, rivals)
    machine = turns.machine(used)
    results: list[Result] = []
    command = shlex.join(["vitrepro", *_what_was_asked(sys.argv[1:])])

    def write() -> None:
        if out is None:
            return
        text = benched.document(results, machine, command=command, pairs=pairs, seconds=seconds)
        with explain(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(out, text.encode())

    try:
        work = turns.work(timed, rivals, pairs)
        with StepProgress("benchmark", work, terminal.console(stderr=True), quiet) as progress:
            for found in turns.measure(
                timed,
                rivals,
                devices=used,
                resolve=lambda wanted: resolve_precision(wanted, used),
                pairs=pairs,
                seconds=seconds,
                cache_dir=find_places(DEFAULT_STORE, None).cache_dir,
                slots_named=devices.startswith("cpu:"),
                advance=lambda note: progress.advance(1, note),
            ):
                results += found
                write()
    except (KeyboardInterrupt, launch.Interrupted) as stopped:
        number = stopped.number if isinstance(stopped, launch.Interrupted) else 2
        done = len({r.workload for r in results})
        kept = f"{out} has {done} of {len(timed)} workloads." if out and done else "Nothing was stored."
        typer.echo(f"Interrupted. {kept}", err=True)
        raise typer.Exit(128 + number) from None
    if as_json:
        print_json(**benched.as_json(results, machine, pairs=pairs, seconds=seconds))
        return
    benched.print_results(terminal.console(), results, machine, pairs)


def _what_was_asked(words: Sequence[str]) -> list[str]:
    """Of a command line, without where and in which form its answer goes."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in ("-o", "--out"):
            next(rest, None)
        elif word not in ("--json", "-q", "--quiet") and not word.startswith(("--out=", "-o")):
            kept.append(word)
    return kept


@app.command()
def doctor(store: StoreOption = DEFAULT_STORE, data_dir: DataOption = None, as_json: JsonOption = False) -> None:
    """What this machine can do: devices, precision, versions, data, disk."""
    from vitrepro.report import terminal
    from vitrepro.report.doctor import examine

    facts = examine(find_places(store, data_dir))
    if as_json:
        print_json(**facts)
        return
    rows = [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in facts.items()]
    terminal.console().print(terminal.table(("what", "found"), rows))
