"""The application, its errors and its entry point."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vitrepro import __version__
from vitrepro.errors import VitreproError


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


def run() -> None:
    """Entry point of the `vitrepro` command; a fault of the program itself never looks like a verdict."""
    try:
        app()
    except Exception:
        traceback.print_exc()
        typer.echo("This is a fault of vitrepro, not of the claim; nothing stored is lost.", err=True)
        sys.exit(70)
