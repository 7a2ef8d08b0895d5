"""Commands that look at claims: list-claims and show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from vitrepro.cli.main import app
from vitrepro.cli.options import (
    DEFAULT_STORE,
    ClaimsOption,
    DataOption,
    DevicesOption,
    JsonOption,
    ScaleOption,
    StoreOption,
)
from vitrepro.cli.shared import find_places, known_scale, one_of, print_json, read_registry, warn_of_problems
from vitrepro.errors import UsageError

if TYPE_CHECKING:
    from vitrepro.claims import Registry
    from vitrepro.spec import Claim


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

    one_of("--kind", kind, get_args(Kind))
    one_of("--outcome", outcome, tuple(terminal.STYLES))
    registry = read_registry(claims_dir)
    chosen = claims.select(registry, patterns)[0] if patterns else list(registry.claims.values())
    filters = listing.Filters(kind, source, known_scale(scale), tag, outcome)
    rows = listing.listed(registry, chosen, find_places(store, data_dir), filters, cuda=cuda_likely())
    if as_json:
        print_json(
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
    warn_of_problems(registry)


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

    registry = read_registry(claims_dir)
    places = find_places(store, data_dir)
    chosen, _ = claims.select(registry, [claim_id])
    entries, faults = places.store.verdicts()
    reason = plan.obstacles(registry, places.data_dir, places.cache_dir, cuda=cuda_likely())
    if (scale is not None or devices != "auto") and not engine:
        raise UsageError("--scale and --devices of show go with --engine")
    computed = (
        {c.id: _engine_choices(c, registry, known_scale(scale), devices, reason) for c in chosen} if engine else {}
    )
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
        print_json(claims=described, problems=faults)
        return
    out = terminal.console()
    named, _, cell = claim_id.rpartition("/")
    for claim in chosen:
        choice = plan.choose_scale(claim, None, why_not=reason)
        mine = [e for e in entries if e.claim_id == claim.id]
        judged = []
        if mine:
            from vitrepro.judge.rejudge import rejudge  # brings in numpy

            judged = rejudge(registry, places.store, mine)
        describe(out, claim, registry, choice, mine, cell if named == claim.id else None, judged)
        if engine:
            from vitrepro.report.engines import print_choices

            print_choices(out, *computed[claim.id])
    for fault in faults:
        typer.echo(fault, err=True)


def _engine_choices(claim: Claim, registry: Registry, scale: Any, devices: str, reason: Any) -> tuple[Any, Any]:
    """The scale looked at, the one asked for or the most faithful that can run, and each arm's choices there."""
    from vitrepro import plan
    from vitrepro.distributed import devices as find_devices
    from vitrepro.report import engines

    choice = plan.choose_scale(claim, scale, why_not=reason if scale is None else lambda *_: None)
    return choice.scale, engines.choices(choice, registry, find_devices(devices))
