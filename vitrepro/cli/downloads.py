"""Commands for data sets and released weights."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from vitrepro.cli.main import app
from vitrepro.cli.options import DEFAULT_STORE, ClaimsOption, DataOption, JsonOption
from vitrepro.cli.shared import find_places, print_json, read_registry
from vitrepro.errors import UsageError, did_you_mean

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, fetch and check data sets.")
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list(data_dir: DataOption = None, as_json: JsonOption = False) -> None:
    """Data sets, and where they are on this machine."""
    from vitrepro.catalog import DATASETS
    from vitrepro.data.locate import locate
    from vitrepro.report import terminal

    places = find_places(DEFAULT_STORE, data_dir)
    found = {name: locate(name, places.data_dir, places.cache_dir) for name in DATASETS}
    if as_json:
        print_json(
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

    places = find_places(DEFAULT_STORE, data_dir)
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


weights_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List and fetch released weights.")
app.add_typer(weights_app, name="weights")


@weights_app.command("list")
def weights_list(data_dir: DataOption = None, claims_dir: ClaimsOption = None, as_json: JsonOption = False) -> None:
    """Released weights that experiments start from, and where they are on this machine."""
    from vitrepro import claims, weights
    from vitrepro.report import terminal
    from vitrepro.spec import TrainExperiment

    registry = read_registry(claims_dir)
    places = find_places(DEFAULT_STORE, data_dir)
    users: dict[str, dict[str, None]] = {}
    for experiment in registry.experiments.values():
        if isinstance(experiment, TrainExperiment):
            for recipe in claims.recipes(experiment).values():
                if recipe.weights is not None:
                    users.setdefault(recipe.weights, {})[experiment.id] = None
    found = {name: weights.locate(name, places.data_dir) for name in sorted(users)}
    if as_json:
        print_json(
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

    places = find_places(DEFAULT_STORE, data_dir)
    for name in names:
        typer.echo(f"{name}: {weights.fetch(name, places.data_dir, offline=offline)}")
