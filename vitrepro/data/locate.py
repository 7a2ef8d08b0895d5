"""Where a data set is on this machine, found out by looking at file names only."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vitrepro.catalog import DATASETS, DatasetName

FORMAT = 1  # of a prepared folder; raise it when its content would differ for the same source
META = "meta.json"


@dataclass(frozen=True)
class Location:
    """Where a data set was found.

    Attributes:
        kind: `bundled` with a dependency, `files` in the data folder, `cached` from an earlier
            download, or `missing`.
        train, test: parquet files in reading order, for `files`.
        looked_at: paths that would have held the data, for `missing`.
        problem: what is wrong with files that are there but cannot be all of it, or nothing.
    """

    name: DatasetName
    kind: Literal["bundled", "files", "cached", "missing"]
    train: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    looked_at: tuple[Path, ...] = field(default=())
    problem: str = ""


def locate(name: DatasetName, data_dir: Path | None, cache_dir: Path | None = None) -> Location:
    """Where the data set is: in `<data_dir>/<name>/<split>*.parquet`, or fetched into the cache before.

    Opens no file. Local files win over the cache.
    """
    info = DATASETS[name]
    if info.hub is None:
        return Location(name, "bundled")
    looked_at, problems = [], []
    if data_dir is not None:
        folder = Path(data_dir) / name
        train = _split_files(folder, "train")
        test = _split_files(folder, info.test_split)
        problems = [p for p in (_missing_shard(train), _missing_shard(test)) if p]
        if train and test and not problems:
            return Location(name, "files", train, test)
        looked_at += [folder / "train-*.parquet", folder / f"{info.test_split}-*.parquet"]
        if bool(train) != bool(test):
            absent = info.test_split if train else "train"
            problems.append(f"{folder} holds no {absent}-*.parquet")
    if cache_dir is not None:
        entry = Path(cache_dir) / hub_entry(name)
        if (entry / META).is_file():
            return Location(name, "cached")
        looked_at.append(entry)
    return Location(name, "missing", looked_at=tuple(looked_at), problem="; ".join(problems))


def missing_message(location: Location) -> str:
    """What was looked at, and how to get the data set."""
    name = location.name
    lines = [f"{name} ({DATASETS[name].title}) is not on this machine."]
    if location.problem:
        lines.append(f"  incomplete: {location.problem}")
    lines += [f"  looked at: {path}" for path in location.looked_at]
    lines.append(
        f"Fetch it with `vitrepro data fetch {name}`, or give --data-dir (VITREPRO_DATA) a folder"
        f" that holds {name}/*.parquet."
    )
    return "\n".join(lines)


def entry_name(name: DatasetName, *source: str) -> str:
    """Folder, in the cache, of a data set prepared from a source with this content."""
    info = DATASETS[name]
    text = "/".join((str(FORMAT), name, str(info.image_size), str(info.channels), info.fit, *source))
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def hub_entry(name: DatasetName) -> str:
    """Folder, in the cache, of a data set fetched from the hub."""
    info = DATASETS[name]
    return entry_name(name, "hub", str(info.hub), info.hub_files, str(info.hub_revision))


def _split_files(folder: Path, split: str) -> tuple[Path, ...]:
    return tuple(sorted([*folder.glob(f"{split}-*.parquet"), *folder.glob(f"{split}.parquet")]))


def _missing_shard(files: tuple[Path, ...]) -> str:
    """The first file that the names `...-00000-of-00003...` promise and that is not there, or nothing."""
    for file in files:
        match = re.search(r"-(\d+)-of-(\d+)", file.name)
        if match is None:
            continue
        index, total = match.groups()
        for i in range(int(total)):
            shard = file.name.replace(match[0], f"-{i:0{len(index)}d}-of-{total}")
            if not file.with_name(shard).exists():
                return f"{file.with_name(shard)} is missing"
    return ""
