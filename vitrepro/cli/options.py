"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitrepro.errors import UsageError

DEFAULT_STORE = Path("vitrepro-runs")


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
