"""What several commands do: read the registry and a store, check an option, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vitrepro.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from vitrepro.claims import Registry
    from vitrepro.store import Places, Store


SCHEMA_VERSION = 1


def read_registry(extra: list[Path] | None) -> Registry:
    """The built-in claims, and those of further folders."""
    from vitrepro import claims

    return claims.load(extra or [])


def find_places(store: Path, data_dir: Path | None) -> Places:
    """Where results, data and caches are."""
    from vitrepro.store import Places

    return Places.of(store, data_dir)


def open_store(store: Path) -> tuple[Store, tuple[str, ...]]:
    """The store to read, and no patterns.

    Raises:
        UsageError: there is none.
    """
    from vitrepro.store import Store

    if not store.is_dir():
        raise UsageError(f"{store}: no such store; `vitrepro verify` makes one, --store names another")
    return Store(store), ()


def open_results(ctx: typer.Context, store: Path, source: Path | None) -> tuple[Store, tuple[str, ...]]:
    """The store, or the export that --from names, with the patterns of claims that it is about.

    Raises:
        UsageError: neither is there, or both are named.
        StoreError: the export is damaged.
    """
    if source is None:
        return open_store(store)
    if given(ctx, "store"):
        raise UsageError("--store and --from name two places to read; give one")
    from vitrepro import export  # brings in numpy

    return export.read(source)


def given(ctx: typer.Context, option: str) -> bool:
    """Whether an option was written on the command line, rather than left or set by the environment."""
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def known_scale(text: str | None) -> Any:
    """The scale of this name, or None for none.

    Raises:
        UsageError: no such scale.
    """
    from vitrepro.spec import CHECKS

    one_of("--scale", text, CHECKS)
    return text


def one_of(option: str, value: str | None, allowed: Any) -> None:
    """Refuse a value that an option does not know.

    Raises:
        UsageError: with those that it does.
    """
    if value is not None and value not in allowed:
        raise UsageError(f"{option} {value!r} is not one of {', '.join(allowed)}{did_you_mean(value, allowed)}")


def print_json(**content: Any) -> None:
    """One JSON document on stdout, with the version of its schema."""
    typer.echo(json.dumps({"schema_version": SCHEMA_VERSION, **content}, indent=1, allow_nan=False, ensure_ascii=False))


def warn_of_problems(registry: Registry) -> None:
    """Say on stderr which claims were left out, and why."""
    for warning in registry.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    if registry.problems:
        typer.echo(f"{len(registry.problems)} faults in claim files; those claims are left out:", err=True)
        for problem in registry.problems:
            typer.echo(f"  {problem}", err=True)
