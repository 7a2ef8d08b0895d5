"""What is kept on disk: one write-once directory per run, one file per verdict.

    STORE/runs/<run id>/config.json       what the run is; written first
                        checkpoint-*.pt   while it trains
                        metrics.jsonl     learning curve, one line per logged step
                        predictions.safetensors   what it said of every test image: ids, predicted, labels
                        record.json       written last: a run with a record is finished and never changes
                        error.json        why the last attempt failed
    STORE/verdicts/<claim>@<scale>.json   the latest request for a verdict, and what it came to
    STORE/looks.jsonl                     every judging, one line each, never rewritten

The state of a run is read off its files and its lock, never off a flag that a dead process cannot clear.
An export (`vitrepro.export`) is read as a store whose files are held in memory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from vitrepro.errors import StoreError
from vitrepro.record import Deviation, Measured, Predictions, Record, Stored, TrainResult, run_identity
from vitrepro.spec import Cell, ClaimId, Reported, Scale

RunState = Literal["finished", "failed", "running", "interrupted", "absent"]
CURVE_STEPS = 200  # of a learning curve that a report draws and an export keeps
CURVE_KEYS = ("step", "loss", "train_top1")
# how a line of the log of judgings begins
LOOK = re.compile(rb'^{.*?"claim_id": ?"([\w./+-]+)", ?"scale": ?"([\w-]+)"')


class RunRef(Stored):
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    arm: str
    seed: int


class Earlier(Stored):
    """How a claim read when it was judged before."""

    claim_hash: str
    entry: Scale
    reported: Reported | None
    outcome: str
    judged_at: str


class Last(NamedTuple):
    """The newest verdict of a claim."""

    outcome: str
    scale: str
    fidelity: str


class VerdictEntry(Stored):
    """A request for a verdict, so that a report can be made from the store alone.

    Attributes:
        scale, expect etc. as they stood when the runs were made, to show what has changed since.
        earlier: other wordings by which the claim was judged before, oldest first.
    """

    schema_version: Literal[1] = 1
    claim_id: ClaimId
    claim_hash: str
    scale: str
    entry: Scale
    reported: Reported | None
    runs: tuple[RunRef, ...]
    registered_seeds: int
    deviations: tuple[Deviation, ...]
    outcome: str
    reason: str
    judged_at: str
    cells: dict[str, Cell] = Field(default_factory=dict, description="printed numbers it was held against, by address")
    earlier: tuple[Earlier, ...] = ()
    looks: int | None = Field(None, description="judgings in the log when this was written; None: there was no log")

    @property
    def whole(self) -> bool:
        """With all registered seeds, and nothing changed by hand."""
        return not self.deviations and len({r.seed for r in self.runs}) >= self.registered_seeds


@dataclass(frozen=True)
class Store:
    """Results on disk.

    Attributes:
        exported: name below the root -> content, of a store that was read from an export and is never written.
    """

    root: Path
    exported: Mapping[str, bytes] | None = field(default=None, repr=False)

    def _read(self, path: Path) -> bytes:
        if self.exported is None:
            return path.read_bytes()
        try:
            return self.exported[path.relative_to(self.root).as_posix()]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "not in the export", str(path)) from None

    def _exists(self, path: Path) -> bool:
        return path.exists() if self.exported is None else path.relative_to(self.root).as_posix() in self.exported

    # --- runs

    def run_dir(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def lock_path(self, run_id: str) -> Path:
        return self.root / "locks" / f"{run_id}.lock"

    def prepare(self) -> None:
        """Make the store's folders.

        Raises:
            StoreError: the place is a file or cannot be written.
        """
        for folder in ("runs", "verdicts", "locks"):
            with explain(self.root):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
        with explain(self.root):
            write_atomic(self.root / "store.json", json.dumps({"schema_version": 1}).encode() + b"\n")

    def state(self, run_id: str) -> RunState:
        folder = self.run_dir(run_id)
        if self._exists(folder / "record.json"):
            return "finished"
        if self._locked(run_id):
            return "running"
        if self._exists(folder / "error.json"):
            return "failed"
        return "interrupted" if self._exists(folder / "config.json") else "absent"

    def run_ids(self) -> list[str]:
        """Every run that left anything, sorted."""
        if self.exported is not None:
            return sorted({name.split("/")[1] for name in self.exported if name.startswith("runs/")})
        runs = self.root / "runs"
        return sorted(p.name for p in runs.iterdir() if p.is_dir()) if runs.is_dir() else []

    def record(self, run_id: str) -> Record | None:
        """The record of a finished run, or None.

        Raises:
            StoreError: the file is damaged; it is named and nothing is deleted.
        """
        path = self.run_dir(run_id) / "record.json"
        try:
            record = Record.model_validate_json(self._read(path))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StoreError(f"{path}: damaged record: {first_fault(error)}; {self._advice(run_id)}") from None
        if (record.type == "train") != isinstance(record.result, TrainResult):
            raise StoreError(
                f"{path}: damaged record: of type {record.type} with another's result; {self._advice(run_id)}"
            )
        if record.run_id != run_id:
            raise StoreError(f"{path}: holds the record of run {record.run_id}; {self._advice(run_id)}")
        if run_identity(record.engine, record.type, record.config, record.seed) != run_id:
            raise StoreError(f"{path}: its recipe and seed are not those of this run; {self._advice(run_id)}")
        return record

    def predictions(self, run_id: str, record: Record | None = None) -> Predictions:
        """What a finished training run said of every test image.

        Args:
            record: of the run, where it was read already.

        Raises:
            StoreError: missing, damaged, or not those of the run's record.
        """
        path = self.run_dir(run_id) / "predictions.safetensors"
        record = record or self.record(run_id)
        try:
            try:
                content = self._read(path)
            except FileNotFoundError:
                path = path.with_suffix(".npz")  # as they were stored at first
                content = self._read(path)
            expected = record.predictions_sha256 if record else None
            if expected is not None and hashlib.sha256(content).hexdigest() != expected:
                raise StoreError(f"{path}: not what the run's record says was written")
            return read_predictions(path, content)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror or error}); {self._advice(run_id)}") from None
        except StoreError as error:
            raise StoreError(f"{error}; {self._advice(run_id)}") from None

    def measured(self, ref: RunRef) -> Measured:
        """A run as the verdict needs it; damage and failures become its error."""
        try:
            record = self.record(ref.run_id)
            if record is None:
                return Measured(ref.run_id, ref.arm, ref.seed, error=self.error(ref.run_id))
            trained = isinstance(record.result, TrainResult)
            predictions = self.predictions(ref.run_id, record) if trained else None
        except StoreError as error:
            return Measured(ref.run_id, ref.arm, ref.seed, error=str(error))
        return Measured(ref.run_id, ref.arm, ref.seed, record, predictions)

    def error(self, run_id: str) -> str | None:
        """Why the last attempt failed, if it did."""
        path = self.run_dir(run_id) / "error.json"
        try:
            return str(json.loads(self._read(path))["message"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return f"{path}: damaged"

    def write_error(self, run_id: str, message: str) -> None:
        self._write(self.run_dir(run_id) / "error.json", {"message": message})

    def begun_on(self, run_id: str) -> str | None:
        """Hash of the data that an unfinished run has trained on so far, if it has."""
        found = self._begun(run_id, "data_sha256")
        return str(found) if found else None

    def begun_threads(self, run_id: str) -> int | None:
        """CPU threads with which an unfinished run has trained so far, if it has."""
        found = self._begun(run_id, "threads")
        return found if isinstance(found, int) and found > 0 else None

    def _begun(self, run_id: str, what: str) -> Any:
        """What an unfinished run that has a checkpoint noted when it began."""
        folder = self.run_dir(run_id)
        if not any(folder.glob("checkpoint-*.pt")):
            return None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return json.loads((folder / "config.json").read_bytes()).get(what)
        return None

    def clear_error(self, run_id: str) -> None:
        (self.run_dir(run_id) / "error.json").unlink(missing_ok=True)

    def sweep(self, run_id: str) -> None:
        """Remove what a process that died while writing left half done; only for the holder of the run's lock."""
        for leftover in self.run_dir(run_id).glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def write_config(self, run_id: str, config: dict[str, Any]) -> None:
        self._write(self.run_dir(run_id) / "config.json", config)

    def finish(self, record: Record, predictions: Predictions | None) -> None:
        """Store a result for good: predictions, then the record; then the checkpoints go.

        Raises:
            StoreError: no space or no permission; what was stored before stays.
        """
        folder = self.run_dir(record.run_id)
        with explain(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if predictions is not None:
                content = predictions_file(predictions)
                write_atomic(folder / "predictions.safetensors", content)
                record = record.model_copy(update={"predictions_sha256": hashlib.sha256(content).hexdigest()})
            write_atomic(folder / "record.json", record.model_dump_json(indent=1).encode() + b"\n")
            for leftover in (*folder.glob("checkpoint-*"), folder / "error.json"):
                leftover.unlink(missing_ok=True)

    def curve(self, run_id: str) -> list[dict[str, float]]:
        """Logged steps in order; a line torn by a kill is left out, a step logged twice counts once."""
        path = self.run_dir(run_id) / "metrics.jsonl"
        steps: dict[float, dict[str, float]] = {}
        if self._exists(path):
            for line in self._read(path).decode(errors="replace").splitlines():
                try:
                    row = json.loads(line)
                    steps[float(row["step"])] = row
                except (ValueError, KeyError, TypeError):
                    continue
        return [steps[s] for s in sorted(steps)]

    def short_curve(self, run_id: str) -> list[dict[str, float]]:
        """A learning curve as it is drawn and exported: finite numbers of five digits, at most CURVE_STEPS steps.

        The same for a store and its export; empty for a file that cannot be read.
        """
        try:
            rows = self.curve(run_id)
        except (OSError, ValueError, TypeError):
            return []
        kept = [
            {k: float(f"{r[k]:.5g}") for k in CURVE_KEYS if isinstance(r.get(k), int | float) and math.isfinite(r[k])}
            for r in rows
        ]
        return thin([r for r in kept if "step" in r and "loss" in r], CURVE_STEPS)

    def archive(self, run_id: str) -> None:
        """Set a run aside so that it is made anew; nothing is deleted."""
        folder = self.run_dir(run_id)
        if folder.exists():
            with explain(folder):
                aside = self.root / "archive"
                aside.mkdir(exist_ok=True)
                names = (aside / f"{run_id}-{n}" for n in itertools.count())
                shutil.move(folder, next(name for name in names if not name.exists()))

    def _locked(self, run_id: str) -> bool:
        from filelock import FileLock, Timeout

        path = self.lock_path(run_id)
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False  # a read-only store has no writer

    def _advice(self, run_id: str) -> str:
        if self.exported is not None:
            return "export it again from its store"
        return f"move {self.run_dir(run_id)} away and run `vitrepro verify` again"

    # --- verdicts

    def write_verdict(self, entry: VerdictEntry) -> bool:
        """Keep a request and what it came to; a trial never takes the place of a whole one.

        Returns:
            False if an entry with all registered seeds and no setting changed by hand stands there and this one
            has less.
        """
        path = self.root / "verdicts" / f"{entry.claim_id.replace('/', '--')}@{entry.scale}.json"
        try:
            old = VerdictEntry.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            old = None
        if old is not None and old.whole and not entry.whole:
            return False
        if old is not None:
            entry = entry.model_copy(update={"earlier": _wordings(old, entry)})
        self._write(path, entry.model_dump(mode="json"))
        return True

    def verdicts(self) -> tuple[list[VerdictEntry], list[str]]:
        """All requests for verdicts, by claim, and the faults of files that cannot be read."""
        entries, faults = [], []
        for path in self._verdict_files():
            try:
                entries.append(VerdictEntry.model_validate_json(self._read(path)))
            except (OSError, ValidationError) as error:
                faults.append(f"{path}: damaged: {first_fault(error)}")
        return entries, faults

    def _verdict_files(self) -> list[Path]:
        if self.exported is not None:
            return [self.root / name for name in sorted(self.exported) if name.startswith("verdicts/")]
        return sorted((self.root / "verdicts").glob("*.json"))

    def readable_records(self) -> list[Record]:
        """Every finished run whose record can be read; the others are named where the run itself is needed."""
        records = []
        for run_id in self.run_ids():
            with contextlib.suppress(StoreError):
                record = self.record(run_id)
                records += [record] if record is not None else []
        return records

    def looks(self) -> tuple[dict[tuple[str, str], list[bytes]], list[str]]:
        """Lines of the log of judgings by claim and scale, oldest first, and the faults of lines that are torn.

        What stands in a line is read where it is needed: a store has thousands.
        """
        path = self.root / "looks.jsonl"
        try:
            content = self._read(path)
        except FileNotFoundError:
            return {}, []
        lines: dict[tuple[str, str], list[bytes]] = {}
        faults = []
        for number, text in enumerate(content.splitlines(), 1):
            named = LOOK.search(text)
            if named is None or not text.endswith(b"}"):
                faults.append(f"{path}:{number}: a torn line, left out")
            else:
                lines.setdefault((named[1].decode(), named[2].decode()), []).append(text)
        return lines, faults

    def add_look(self, line: dict[str, Any]) -> None:
        """Write one judging behind the others, whole, whatever was torn before it."""
        path = self.root / "looks.jsonl"
        with explain(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:
                torn = b""
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    torn = b"" if file.read(1) == b"\n" else b"\n"
                file.write(torn + json.dumps(line, separators=(",", ":"), allow_nan=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def last_outcomes(self) -> dict[str, Last]:
        """Claim id -> newest verdict, read without checking it."""
        newest: dict[str, tuple[str, Last]] = {}
        for path in self._verdict_files():
            try:
                entry = json.loads(self._read(path))
                last = Last(str(entry["outcome"]), str(entry["scale"]), str(entry["entry"]["fidelity"]))
                stamp = (str(entry["judged_at"]), last)
                newest[entry["claim_id"]] = max(stamp, newest.get(entry["claim_id"], ("", last)))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return {claim: last for claim, (_, last) in newest.items()}

    def _write(self, path: Path, value: dict[str, Any]) -> None:
        with explain(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(value, indent=1, allow_nan=False).encode() + b"\n")


def predictions_file(predictions: Predictions) -> bytes:
    """What predictions.safetensors holds of them; the record has its hash."""
    import numpy as np
    from safetensors.numpy import save

    kind = np.uint16 if max(a.max(initial=0) for a in vars(predictions).values()) < 2**16 else np.uint32
    return save({name: a.astype(kind) for name, a in vars(predictions).items()})


def read_predictions(path: Path, content: bytes) -> Predictions:
    """What a run said of every test image, from a .safetensors or .npz file with ids, predicted and labels.

    Args:
        path: for messages, and its suffix for the format.

    Raises:
        StoreError: damaged, or arrays of different length.
    """
    import numpy as np
    from safetensors.numpy import load

    try:
        arrays = load(content) if path.suffix == ".safetensors" else np.load(io.BytesIO(content), allow_pickle=False)
        found = [arrays[k] for k in ("ids", "predicted", "labels")]
        if any(a.dtype.kind not in "iu" for a in found):
            raise TypeError("whole numbers are expected")
        if any(a.size and not 0 <= int(a.min()) <= int(a.max()) < 2**31 for a in found):
            raise ValueError("numbers from 0 to 2147483647 are expected")
        ids, predicted, labels = (a.astype(np.int64) for a in found)
    except Exception as error:  # the readers raise a dozen kinds for a damaged file
        raise StoreError(f"{path}: cannot be read ({error})") from None
    if not ids.shape == predicted.shape == labels.shape or ids.ndim != 1:
        raise StoreError(f"{path}: arrays of different length")
    return Predictions(ids, predicted, labels)


def thin(rows: Sequence[dict[str, float]], most: int) -> list[dict[str, float]]:
    """At most this many, evenly spread, with both ends."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


# two parts or more, and not of an address such as https://a/b
_PATH = re.compile(r"(?<![\w/.:~-])(?:/(?:[\w.@+~-]+/)+|[A-Za-z]:[\\/](?:[\w.@+~ -]+[\\/])*)([\w.@+~-]+)")


def portable(text: str, root: Path | None = None) -> str:
    """A message as others can read it: paths below `root` as they stand there, other full paths by their last part."""
    if root is not None:
        text = text.replace(f"{root}{os.sep}", "")
    return _PATH.sub(r"\1", text)


def _wordings(old: VerdictEntry, new: VerdictEntry) -> tuple[Earlier, ...]:
    """The other wordings by which a claim was judged, with that of `old` where `new` expects something else."""
    if (old.entry, old.reported) == (new.entry, new.reported):
        return old.earlier
    last = Earlier(
        claim_hash=old.claim_hash,
        entry=old.entry,
        reported=old.reported,
        outcome=old.outcome,
        judged_at=old.judged_at,
    )
    return (*old.earlier, last)


@contextlib.contextmanager
def explain(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into messages that name the place."""
    try:
        yield
    except TimeoutError:  # a lock that somebody holds is no refusal
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
            raise StoreError(
                f"{path}: no space left ({free:,} bytes free); make room or use --store, then run the same command "
                "again: finished runs are kept"
            ) from None
        raise StoreError(f"{path}: {error.strerror or error}; choose another place to write to") from None


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Any]:
    """A file that appears under its name whole or not at all, even through a kill or a power cut."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, 0o666 & ~_umask())  # as if it had been opened by name
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if hasattr(os, "O_DIRECTORY"):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_atomic(path: Path, content: bytes) -> None:
    with atomic_file(path) as file:
        file.write(content)


def first_fault(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(p) for p in fault["loc"])
        return f"{where}: {fault['msg']}" if where else fault["msg"]
    return str(error)


@dataclass(frozen=True)
class Places:
    """Where things are: results, data, caches."""

    store: Store
    data_dir: Path | None
    cache_dir: Path

    @staticmethod
    def of(store: Path, data_dir: Path | None) -> Places:
        """The folders of the command line, and the cache of VITREPRO_CACHE or of this user."""
        from platformdirs import user_cache_path

        cache = os.environ.get("VITREPRO_CACHE")
        return Places(Store(store), data_dir, Path(cache) if cache else user_cache_path("vitrepro"))
