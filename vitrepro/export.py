"""A store as a folder of small text files, from which every verdict can be judged again, without data or weights.

    DIR/export.json             what it is about, and the SHA-256 of every other file
        verdicts/<claim>@<scale>.json   as the store has them
        runs/<run id>.json      the record, the class predicted for every test image, the learning curve in 200 steps
        images/<hash>.json      ids and labels of test images, once for all runs that saw them

The predictions of a run are kept as packed bits; from them the file is rebuilt whose hash stands in the run's record.
`read` gives a `Store` of these files, so that a store and its export are judged and reported by the same code.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitrepro.arrays import Ints
from vitrepro.errors import StoreError, UsageError
from vitrepro.record import Predictions, Record
from vitrepro.store import CURVE_KEYS, Store, explain, portable, predictions_file, write_atomic

MANIFEST = "export.json"
FOLDERS = ("images", "looks", "runs", "verdicts")
LOG = "looks/looks.jsonl"


# --- writing ------------------------------------------------------------------------------------


def write(store: Store, folder: Path, about: Sequence[str] = (), chosen: Callable[[str], bool] | None = None) -> int:
    """Export a store; the same store gives the same bytes.

    Args:
        about: the patterns by which claims were chosen, kept for the report.
        chosen: whether a claim's verdicts are exported, with their runs; None for all that the store holds.

    Returns:
        How many bytes the files have together.

    Raises:
        UsageError: there is nothing to export, or the folder holds something else.
        StoreError: the store is damaged, a run is being made, or a text would tell of this machine.
    """
    entries, faults = store.verdicts()
    if faults:
        raise StoreError("\n".join([*faults, "a damaged store is not exported"]))
    entries = [e for e in entries if chosen is None or chosen(e.claim_id)]
    if not entries:
        raise UsageError(f"{store.root}: holds no verdict of these claims; `vitrepro verify` makes one")
    asked = sorted({ref.run_id for e in entries for ref in e.runs})
    left_something = set(store.run_ids())
    run_ids = sorted(left_something) if chosen is None else [r for r in asked if r in left_something]
    files: dict[str, bytes] = {}
    for entry in entries:
        name = f"verdicts/{entry.claim_id.replace('/', '--')}@{entry.scale}.json"
        files[name] = _json(entry.model_copy(update={"reason": portable(entry.reason)}).model_dump(mode="json"))
    for run_id in run_ids:
        run, images = _run(store, run_id)
        files |= images
        files[f"runs/{run_id}.json"] = _json(run)
    lines, faults = store.looks()
    if faults:
        raise StoreError("\n".join([*faults, "a damaged log is not exported"]))
    kept = [line for e in entries for line in lines.get((e.claim_id, e.scale), ())]
    if kept:
        files[LOG] = b"".join(line + b"\n" for line in kept)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    files[MANIFEST] = _json({"schema_version": 1, "about": list(about), "files": hashes})
    _put(folder, files)
    return sum(map(len, files.values()))


def _run(store: Store, run_id: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A run as plain values, and the file of the test images it saw."""
    if store.state(run_id) == "running":
        raise StoreError(f"run {run_id} is being made; export the store when it has ended")
    record = store.record(run_id)
    error = store.error(run_id)
    made: dict[str, Any] = {"schema_version": 1, "state": store.state(run_id)}
    if error is not None:
        made["error"] = portable(error, store.root)
    images: dict[str, bytes] = {}
    if record is not None:
        made["record"] = record.model_dump(mode="json")
        if record.type == "train":
            images, made["predictions"] = _packed_predictions(store, record)
        curve = store.short_curve(run_id)
        if curve:
            made["curve"] = {key: [row.get(key) for row in curve] for key in CURVE_KEYS}
    environment = [record.environment.model_dump(mode="json")] if record else []
    _tells_of_this_machine(run_id, [v for k, v in made.items() if k in ("error", "record")], [error, *environment])
    return made, images


def _packed_predictions(store: Store, record: Record) -> tuple[dict[str, bytes], dict[str, Any]]:
    found = store.predictions(record.run_id, record)
    rebuilt = hashlib.sha256(predictions_file(found)).hexdigest()
    if record.predictions_sha256 != rebuilt:
        raise StoreError(
            f"run {record.run_id}: its predictions are not bound to its record by a hash, as those of earlier versions "
            "are not; make it again with `vitrepro verify --fresh`"
        )
    seen = _json({"schema_version": 1, "ids": _ranges(found.ids), "labels": _pack(found.labels)})
    name = hashlib.sha256(seen).hexdigest()[:16]
    return {f"images/{name}.json": seen}, {"images": name, "predicted": _pack(found.predicted)}


def _tells_of_this_machine(run_id: str, texts: Any, named: Any) -> None:
    """Refuse what has a full path in it, or the name of this machine in a message or the description of a device."""
    for text in _texts(texts):
        if portable(text) != text:
            raise StoreError(f"run {run_id}: {text!r} holds a path of the machine it was made on; it is not exported")
    node = platform.node()
    if len(node) > 3 and node != "localhost":
        for text in _texts(named):
            if re.search(rf"(?<![\w-]){re.escape(node)}(?![\w-])", text):
                raise StoreError(f"run {run_id}: {text!r} holds the name of this machine; it is not exported")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (key, *_texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _put(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write these files and take away those of an earlier export; the list of files comes last."""
    with explain(folder):
        old = [p for name in FOLDERS for p in (folder / name).glob("*.json*")]
        if not (folder / MANIFEST).exists() and folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder}: neither empty nor an export; choose another folder")
        (folder / MANIFEST).unlink(missing_ok=True)
        for path in old:
            if path.relative_to(folder).as_posix() not in files:
                path.unlink()
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / name, content)


def _json(value: dict[str, Any]) -> bytes:
    """One line for every key of the first two levels: small, and a difference shows where it is."""
    return (_lines(value) + "\n").encode()


def _lines(value: dict[str, Any], depth: int = 0) -> str:
    pad = " " * (depth + 1)
    parts = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner and depth < 1:
            text = _lines(inner, depth + 1)
        else:  # keys in their own order, in which a report shows them
            text = json.dumps(inner, separators=(",", ":"), allow_nan=False)
        parts.append(f"{pad}{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n" + " " * depth + "}"


# --- reading ------------------------------------------------------------------------------------


def read(folder: Path) -> tuple[Store, tuple[str, ...]]:
    """The store that was exported, and the patterns of claims that it is about.

    Raises:
        UsageError: the folder is no export.
        StoreError: a file is missing, was added, or is not what was written; every one is named.
    """
    manifest = _manifest(folder)
    listed: dict[str, str] = manifest["files"]
    there = {f"{name}/{p.name}" for name in FOLDERS for p in (folder / name).glob("*")}
    faults = [f"{folder / name}: not of this export" for name in sorted(there - listed.keys())]
    contents: dict[str, bytes] = {}
    for name, expected in sorted(listed.items()):
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            faults.append(f"{folder / name}: cannot be read ({error.strerror or error})")
            continue
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            faults.append(f"{folder / name}: has changed since it was exported")
    if faults:
        raise StoreError("\n".join([*faults, "nothing is judged by a damaged export; export it again from its store"]))
    exported = {name: content for name, content in contents.items() if name.startswith("verdicts/")}
    if LOG in contents:
        exported["looks.jsonl"] = contents[LOG]
    for name, content in contents.items():
        if name.startswith("runs/"):
            try:
                exported |= _files_of_run(Path(name).stem, json.loads(content), contents)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
                raise StoreError(f"{folder / name}: damaged ({type(error).__name__}: {error})") from None
    return Store(folder, exported), tuple(manifest["about"])


def is_export(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_bytes())
        version, about, files = found["schema_version"], found["about"], found["files"]
        names = [*about, *files, *files.values()]
        sound = all(isinstance(n, str) for n in names) and isinstance(about, list)
        if version != 1 or not sound or not all(re.fullmatch(rf"({'|'.join(FOLDERS)})/[^/\\]+", n) for n in files):
            raise ValueError("not of a form that this version writes")
    except FileNotFoundError:
        raise UsageError(f"{folder}: no export (it has no {MANIFEST}); `vitrepro export` makes one") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: damaged ({type(error).__name__}: {error})") from None
    return {"about": about, "files": files}


def _files_of_run(run_id: str, run: dict[str, Any], contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files that a store has of this run."""
    files = {"": b""}
    if run["state"] != "absent":
        files["config.json"] = b"{}"
    if "error" in run:
        files["error.json"] = json.dumps({"message": run["error"]}).encode()
    if "record" in run:
        files["record.json"] = json.dumps(run["record"]).encode()
    if "predictions" in run:
        seen = json.loads(contents[f"images/{run['predictions']['images']}.json"])
        ids, labels = _ids(seen["ids"]), _unpack(seen["labels"])
        predictions = Predictions(ids, _unpack(run["predictions"]["predicted"]), labels)
        if not len(ids) == len(labels) == len(predictions.predicted):
            raise ValueError("not one prediction and one label for each test image")
        files["predictions.safetensors"] = predictions_file(predictions)
    if "curve" in run:
        columns = run["curve"]
        rows = zip(*(columns[key] for key in CURVE_KEYS), strict=True)
        lines = [{k: v for k, v in zip(CURVE_KEYS, row, strict=True) if v is not None} for row in rows]
        files["metrics.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return {f"runs/{run_id}/{name}": content for name, content in files.items()}


# --- numbers in few bits ------------------------------------------------------------------------


def _pack(values: Ints) -> dict[str, Any]:
    """Whole numbers in as many bits each as the largest needs, highest bit first."""
    bits = max(1, int(values.max(initial=0)).bit_length())
    rows = np.unpackbits(values.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)[:, 32 - bits :]
    return {"n": len(values), "bits": bits, "packed": base64.b64encode(np.packbits(rows).tobytes()).decode()}


def _unpack(packed: dict[str, Any]) -> Ints:
    """Raises ValueError for anything but what `_pack` makes."""
    n, bits = packed["n"], packed["bits"]
    try:
        content = base64.b64decode(packed["packed"], validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if not (isinstance(n, int) and isinstance(bits, int) and n >= 0 and 1 <= bits <= 32):
        raise ValueError(f"{n} numbers of {bits} bits")
    if len(content) != (n * bits + 7) // 8:
        raise ValueError(f"{len(content)} bytes are not {n} numbers of {bits} bits")
    rows = np.unpackbits(np.frombuffer(content, np.uint8), count=n * bits).reshape(n, bits)
    powers = 1 << np.arange(bits - 1, -1, -1, dtype=np.int64)
    values: Ints = rows.astype(np.int64) @ powers
    return values


def _ranges(ids: Ints) -> list[list[int]]:
    """[first, last] of every stretch of ids that follow one another, in their order."""
    if not len(ids):
        return []
    starts = np.flatnonzero(np.diff(ids, prepend=ids[0] - 2) != 1)
    ends = np.append(starts[1:], len(ids)) - 1
    return np.stack([ids[starts], ids[ends]], 1).tolist()


def _ids(ranges: list[list[int]]) -> Ints:
    if any(not 0 <= first <= last < 2**31 for first, last in ranges) or sum(b - a + 1 for a, b in ranges) > 10**8:
        raise ValueError("not ranges of ids")
    parts = [np.arange(first, last + 1, dtype=np.int64) for first, last in ranges]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
