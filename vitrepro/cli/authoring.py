"""Commands for claims of your own: validate and new-claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vitrepro.cli.main import app
from vitrepro.cli.options import ClaimsOption


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
