"""Commands that read what is stored: report, export, audit and runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from vitrepro.cli.main import app
from vitrepro.cli.options import DEFAULT_STORE, ClaimsOption, FromOption, JsonOption, StoreOption
from vitrepro.cli.shared import given, open_results, open_store, print_json, read_registry, warn_of_problems
from vitrepro.errors import UsageError

if TYPE_CHECKING:
    from vitrepro.store import Store


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

    found, about = open_results(ctx, store, source)
    registry = read_registry(claims_dir)
    text, judged = markdown.write(registry, found, out, patterns or about)
    if out is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"{out}: {len(judged)} verdicts", err=True)
    warn_of_problems(registry)


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

    registry = read_registry(claims_dir)
    found, _ = open_store(store)
    size = export.write(found, folder, patterns or (), names(registry, patterns) if patterns else None)
    typer.echo(f"{folder}: {size:,} bytes", err=True)
    warn_of_problems(registry)


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
        _audit_verdicts(patterns, tables, everything, open_results(ctx, store, source)[0], claims_dir, as_json)
    if source is not None or given(ctx, "store"):
        option, what = ("--from", "an export") if source is not None else ("--store", "a store")
        raise UsageError(
            f"{option} names {what} of verdicts, at which only --verdicts looks; add it, or leave {option}"
        )
    registry = read_registry(claims_dir)
    chosen = claims.select(registry, patterns)[0] if patterns else list(registry.claims.values())
    found = audited.audited(chosen, tables or [])
    if as_json:
        print_json(**audited.as_json(found), problems=list(registry.problems))
        return
    audited.print_audit(terminal.console(), found, everything=everything)
    warn_of_problems(registry)


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
    registry = read_registry(claims_dir)
    chosen = {c.id for c in claims.select(registry, patterns)[0]} if patterns else None
    found = sensitive.audited(registry, store, chosen)
    faults = store.verdicts()[1]
    if as_json:
        print_json(**sensitive.as_json(found), problems=[*registry.problems, *faults])
    else:
        sensitive.print_audited(terminal.console(), found)
        for fault in faults:
            typer.echo(fault, err=True)
        warn_of_problems(registry)
    raise typer.Exit(sensitive.exit_code(found))


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
        print_json(runs=documents, problems=faults)
    else:
        out = terminal.console()
        out.print(terminal.table(("run", "state", "arm", "seed", "result", "device", "wall"), rows))
        out.print(f"{len(rows)} runs in {store}", markup=False)
        for fault in faults:
            typer.echo(fault, err=True)
    if faults:
        raise typer.Exit(StoreError.exit_code)
