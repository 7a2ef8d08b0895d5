"""A data set decoded once: memory-mapped uint8 arrays in the cache, checked against the catalogue.

Layout of a cache entry, one per data set and content of its source:

    <cache_dir>/cifar10-0f3a.../train-images.npy   uint8 (N, H, W, C)
                                train-labels.npy   int64 (N,)
                                test-images.npy, test-labels.npy
                                meta.json          sizes, class counts, hashes, what was resized

An entry appears complete or not at all: it is written to a temporary folder under a lock, then renamed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, ValidationError

from vitrepro.catalog import DATASETS, Dataset, DatasetName
from vitrepro.data.locate import FORMAT, META, Location, entry_name, hub_entry, locate, missing_message
from vitrepro.data.shuffle import proportional_order
from vitrepro.errors import DataError, DataMissing
from vitrepro.randomness import derive

SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, SplitName] = ("train", "test")
Progress = Callable[[int, int], None]

CHUNK_ROWS = 256
CHUNK_BYTES = 32 << 20  # of decoded pixels; several chunks per thread are held at once
MAX_THREADS = 8  # beyond these, small images only fight for Python's lock
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LAB")


class PreparedSplit(BaseModel):
    """What is known of one decoded split.

    Attributes:
        sha256: of the decoded pixels and labels, in order.
        class_counts: images of each label.
        resized: images that were not of the catalogue's size.
        converted: images that were not of the catalogue's number of channels.
        rotated: images turned upright as their EXIF orientation says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int
    sha256: str
    class_counts: tuple[int, ...]
    resized: int = 0
    converted: int = 0
    rotated: int = 0
    files: dict[str, int]  # size in bytes


class _Meta(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    name: str
    source: str
    train: PreparedSplit
    test: PreparedSplit


@dataclass(frozen=True)
class Prepared:
    """A data set that is decoded, checked and ready to be mapped into memory.

    Attributes:
        sha256: of the content of both splits: the same pixels and labels in the same order, the same hash.
        source: the files or the repository it was made from.
    """

    name: DatasetName
    directory: Path
    sha256: str
    source: str
    train: PreparedSplit
    test: PreparedSplit

    @property
    def changes(self) -> tuple[str, ...]:
        """What was done to the images beyond decoding them, for the record's deviations."""
        size, fit = DATASETS[self.name].image_size, DATASETS[self.name].fit
        how = "resized" if fit == "crop" else "squashed"
        said = []
        for name, split in (("train", self.train), ("test", self.test)):
            if split.resized:
                said.append(f"{split.resized} of {split.images} {name} images {how} to {size}x{size}")
            if split.converted:
                said.append(f"{split.converted} of {split.images} {name} images converted to other channels")
            if split.rotated:
                said.append(f"{split.rotated} of {split.images} {name} images turned upright")
        return tuple(said)


def prepare(
    name: DatasetName,
    *,
    data_dir: Path | None,
    cache_dir: Path,
    offline: bool,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """The data set, decoded now or taken from the cache.

    Local files come first, then what was fetched before, then the hub. Of several processes that ask at
    once, one prepares and the others wait for it.

    Args:
        offline: open no socket.
        workers: threads that decode; one per core, up to eight, unless given.
        progress: called with (images done, images in all) while decoding.

    Raises:
        DataMissing: not here, and offline or not to be had.
        DataError: the data is not what the catalogue says, or the cache cannot be written.
    """
    location = locate(name, data_dir, cache_dir)
    if location.kind == "missing" and (offline or location.problem):
        raise DataMissing(missing_message(location))
    entry = Path(cache_dir) / _entry(location)
    found = _open_entry(name, entry)
    if found:
        return found
    if location.kind == "cached" and offline:
        raise DataMissing(f"{entry} is damaged.\n{missing_message(location)}")
    with _writing_to(entry):
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_name(f".{entry.name}.lock")):
            found = _open_entry(name, entry)  # by the process that held the lock before us
            if not found:
                _write_entry(location, entry, workers, progress)
                found = _open_entry(name, entry)
    assert found is not None
    return found


def _entry(location: Location) -> str:
    name = location.name
    if location.kind == "bundled":
        return entry_name(name, "scikit-learn", importlib.metadata.version("scikit-learn"))
    if location.kind == "files":
        hashes = [_file_sha256(path) for path in (*location.train, *location.test)]
        return entry_name(name, *hashes[: len(location.train)], "test", *hashes[len(location.train) :])
    return hub_entry(name)


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def _open_entry(name: DatasetName, entry: Path) -> Prepared | None:
    """The entry, or None if it is not there or not whole."""
    try:
        meta = _Meta.model_validate_json((entry / META).read_bytes())
        sizes = {**meta.train.files, **meta.test.files}
        whole = all((entry / file).stat().st_size == size for file, size in sizes.items())
    except (OSError, ValidationError):
        return None
    if not whole or meta.format != FORMAT or meta.name != name:
        return None
    if not all(_content_is(entry, name, split) for name, split in (("train", meta.train), ("test", meta.test))):
        return None  # of the right size, with other content
    both = hashlib.sha256(f"{meta.train.sha256}/{meta.test.sha256}".encode()).hexdigest()
    return Prepared(name, entry, both, meta.source, meta.train, meta.test)


def _content_is(entry: Path, name: str, split: PreparedSplit) -> bool:
    """Whether pixels and labels are those that were decoded; once for each command, a second for a gigabyte."""
    try:
        images = np.load(entry / f"{name}-images.npy", mmap_mode="r")
        labels = np.load(entry / f"{name}-labels.npy").astype("<i8")
    except (OSError, ValueError):
        return False
    digest = hashlib.sha256(str(images.shape).encode())
    for start in range(0, len(images), CHUNK_ROWS):
        digest.update(np.ascontiguousarray(images[start : start + CHUNK_ROWS]).data)
    digest.update(labels.tobytes())
    return digest.hexdigest() == split.sha256


def _write_entry(location: Location, entry: Path, workers: int | None, progress: Progress | None) -> None:
    """Decode into a temporary folder and rename it; the caller holds the entry's lock."""
    info = DATASETS[location.name]
    for left_over in entry.parent.glob(f".{entry.name}.tmp-*"):  # whoever wrote it is dead: we hold the lock
        shutil.rmtree(left_over)
    needed = (info.train + info.test) * info.image_size**2 * info.channels
    free = shutil.disk_usage(entry.parent).free
    if free < needed:
        raise DataError(f"{entry.parent}: {needed:,} bytes needed for {location.name}, {free:,} are free")

    with tempfile.TemporaryDirectory(dir=entry.parent, prefix=f".{entry.name}.tmp-") as temporary:
        folder = Path(temporary) / "entry"
        folder.mkdir()
        source, splits = _open_source(location, workers)
        for split in SPLITS:
            expected = info.train if split == "train" else info.test
            if splits[split].rows != expected:
                raise DataError(
                    f"{splits[split].where}: {splits[split].rows:,} {split} images, {info.title} has {expected:,}"
                )
        done = 0

        def advance(images: int) -> None:
            nonlocal done
            done += images
            if progress:
                progress(done, info.train + info.test)

        train, test = (_write_split(folder, split, splits[split], info, advance) for split in SPLITS)
        meta = _Meta(format=FORMAT, name=location.name, source=source, train=train, test=test)
        with _durable(folder / META) as file:
            file.write(meta.model_dump_json(indent=1).encode())
        if entry.exists():  # damaged, or we would not be here
            os.replace(entry, Path(temporary) / "damaged")
        os.replace(folder, entry)


@contextmanager
def _writing_to(entry: Path) -> Iterator[None]:
    """Name the path when the cache cannot be written."""
    try:
        yield
    except OSError as error:
        path = error.filename or entry.parent
        raise DataError(
            f"{path}: the data cache cannot be written ({error.strerror or error}). Free some space, or"
            " choose another cache folder."
        ) from error


@contextmanager
def _durable(path: Path) -> Iterator[IO[bytes]]:
    """A new file that is on the disk, not on its way there, when the block ends."""
    with open(path, "wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            error.filename = error.filename or str(path)
            raise


# Decoded images of a split and how they are written


@dataclass(frozen=True)
class _Decoded:
    pixels: NDArray[np.uint8]  # (n, H, W, C)
    labels: NDArray[np.int64]
    resized: int = 0
    converted: int = 0
    rotated: int = 0


@dataclass(frozen=True)
class _Source:
    """A split before it is decoded; `where` names it in messages."""

    where: str
    rows: int
    decode: Callable[[], Iterator[_Decoded]]


def _write_split(
    folder: Path, split: SplitName, source: _Source, info: Dataset, advance: Callable[[int], None]
) -> PreparedSplit:
    shape = (source.rows, info.image_size, info.image_size, info.channels)
    images_file, labels_file = folder / f"{split}-images.npy", folder / f"{split}-labels.npy"
    digest = hashlib.sha256(str(shape).encode())
    labels, resized, converted, rotated = [], 0, 0, 0
    # Written front to back: in a memory map a full disk would be a SIGBUS instead of an error.
    with _durable(images_file) as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in source.decode():
            file.write(part.pixels.data)
            digest.update(part.pixels.data)
            labels.append(part.labels)
            resized += part.resized
            converted += part.converted
            rotated += part.rotated
            advance(len(part.labels))
    all_labels = np.concatenate(labels).astype("<i8")
    assert len(all_labels) == source.rows
    digest.update(all_labels.tobytes())
    counts = np.bincount(all_labels, minlength=info.num_classes)
    if (counts == 0).any():
        absent = ", ".join(str(c) for c in np.flatnonzero(counts == 0))
        raise DataError(
            f"{source.where}: no {split} image has label {absent}; {info.title} has labels 0 to {info.num_classes - 1}"
        )
    with _durable(labels_file) as file:
        np.save(file, all_labels)
    return PreparedSplit(
        images=source.rows,
        sha256=digest.hexdigest(),
        class_counts=tuple(counts.tolist()),
        resized=resized,
        converted=converted,
        rotated=rotated,
        files={path.name: path.stat().st_size for path in (images_file, labels_file)},
    )


# Sources: scikit-learn, parquet files, the hub


def _open_source(location: Location, workers: int | None) -> tuple[str, dict[SplitName, _Source]]:
    """Where the images come from, in words, and the two splits."""
    name, info = location.name, DATASETS[location.name]
    if location.kind == "bundled":
        return f"scikit-learn {importlib.metadata.version('scikit-learn')}", _digits()
    if location.kind == "files":
        files: dict[SplitName, tuple[Path, ...]] = {"train": location.train, "test": location.test}
        folder = location.train[0].parent
        return str(folder), {split: _parquet(files[split], info, workers) for split in SPLITS}
    return f"hub:{info.hub}", _hub(name, workers)


def _digits() -> dict[SplitName, _Source]:
    """scikit-learn's digits: 0..16 becomes 0..255 by 255/16, rounded; split once and for all, by class."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    order = proportional_order(labels, derive(0, "digits test split"))
    test = DATASETS["digits"].test

    def part(rows: NDArray[np.int64]) -> _Source:
        return _Source("scikit-learn", len(rows), lambda: iter([_Decoded(pixels[rows], labels[rows])]))

    return {"train": part(np.sort(order[test:])), "test": part(np.sort(order[:test]))}


def _parquet(files: tuple[Path, ...], info: Dataset, workers: int | None) -> _Source:
    opened = [(path, _open_parquet(path, info)) for path in files]

    def batches() -> Iterator[tuple[str, int, pa.RecordBatch]]:
        for path, file in opened:
            first = 0
            try:
                for batch in file.iter_batches(_chunk_rows(info), columns=_columns(file.schema_arrow, info, str(path))):
                    yield str(path), first, batch
                    first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: damaged after row {first} ({_first_line(error)})") from error

    where = ", ".join(str(path) for path in files)
    rows = sum(file.metadata.num_rows for _, file in opened)
    return _Source(where, rows, lambda: _decode_all(batches(), info, workers))


def _chunk_rows(info: Dataset) -> int:
    return min(CHUNK_ROWS, max(1, CHUNK_BYTES // (info.image_size**2 * info.channels)))


def _open_parquet(path: Path, info: Dataset) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        size = path.stat().st_size
        raise DataError(f"{path}: not a readable parquet file of {size:,} bytes ({_first_line(error)})") from error
    _columns(file.schema_arrow, info, str(path))
    return file


def _columns(schema: pa.Schema, info: Dataset, where: str) -> list[str]:
    """The names of the columns of images and labels, once both are of a type that can be read."""
    image = next((name for name in ("img", "image") if name in schema.names), None)
    label = next((name for name in (info.label, "label") if name in schema.names), None)
    if image is None or label is None:
        raise DataError(f"{where}: columns {', '.join(schema.names)}; expected img or image, and {info.label}")
    kind = schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{where}: column {image} is {kind}; expected a struct with the image file's bytes")
    if not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"{where}: column {label} is {schema.field(label).type}; expected an integer")
    return [image, label]


def _hub(name: DatasetName, workers: int | None) -> dict[SplitName, _Source]:
    """Both splits from the Hugging Face hub, through its own download cache."""
    import datasets

    info = DATASETS[name]
    assert info.hub is not None
    hub_names: dict[SplitName, str] = {"train": "train", "test": info.test_split}
    files = {hub: info.hub_files.format(split=hub) for hub in hub_names.values()}
    try:
        loaded = datasets.load_dataset(info.hub, data_files=files, revision=info.hub_revision)
    except Exception as error:  # whatever the library, its HTTP client or the file system raises
        raise DataMissing(
            f"{name} ({info.title}) could not be fetched from the hub, {info.hub}:"
            f" {type(error).__name__}: {_first_line(error)}\n"
            f"Try again with `vitrepro data fetch {name}`, or give --data-dir (VITREPRO_DATA) a folder that"
            f" holds {name}/*.parquet."
        ) from error
    return {split: _hub_split(f"{info.hub} {hub}", loaded[hub], info, workers) for split, hub in hub_names.items()}


def _hub_split(where: str, dataset: Any, info: Dataset, workers: int | None) -> _Source:
    table = dataset.with_format("arrow")

    def batches() -> Iterator[tuple[str, int, pa.RecordBatch]]:
        first = 0
        for part in table.iter(_chunk_rows(info)):
            for batch in part.select(_columns(part.schema, info, where)).combine_chunks().to_batches():
                yield where, first, batch
                first += batch.num_rows

    return _Source(where, len(dataset), lambda: _decode_all(batches(), info, workers))


# Decoding


def _decode_all(
    batches: Iterator[tuple[str, int, pa.RecordBatch]], info: Dataset, workers: int | None
) -> Iterator[_Decoded]:
    """Decoded batches in their order, a few of them at a time ahead of the reader."""
    workers = workers or min(MAX_THREADS, os.cpu_count() or 1)
    pending: deque[Future[_Decoded]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for where, first, batch in batches:
            pending.append(pool.submit(_decode, where, first, batch, info))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(where: str, first_row: int, batch: pa.RecordBatch, info: Dataset) -> _Decoded:
    image_column, label_column = _columns(batch.schema, info, where)
    labels = batch.column(label_column).to_pylist()
    files = batch.column(image_column).field("bytes").to_pylist()
    size = info.image_size
    pixels = np.empty((len(files), size, size, info.channels), np.uint8)
    resized = converted = rotated = 0
    for i, (file, label) in enumerate(zip(files, labels, strict=True)):
        row = f"{where}, row {first_row + i}"
        if label is None or not 0 <= label < info.num_classes:
            raise DataError(f"{row}: label is {label}, {info.title} has labels 0 to {info.num_classes - 1}")
        if not file:
            raise DataError(f"{row}: the image is empty")
        try:
            with Image.open(io.BytesIO(file), formats=FORMATS) as image:
                upright = ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image
                coloured = _with_channels(upright, info.channels)
                fitted = _fit(coloured, size, info.fit)
                pixels[i] = np.asarray(fitted).reshape(size, size, info.channels)
        except Exception as error:  # PIL's decoders raise anything from OSError to SyntaxError and struct.error
            raise DataError(
                f"{row}: {len(file):,} bytes that do not decode as an image ({_first_line(error)})"
            ) from error
        rotated += upright is not image
        converted += coloured is not upright
        resized += fitted is not coloured
    return _Decoded(pixels, np.array(labels, np.int64), resized, converted, rotated)


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    mode = "RGB" if channels == 3 else "L"
    if image.mode == mode:
        return image
    if image.mode not in MODES:  # 16 and 32 bits: converting would clip
        raise ValueError(f"mode {image.mode} has more than 8 bits per channel")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # the one way to RGB that keeps quiet about transparency
    return image.convert(mode)


def _fit(image: Image.Image, size: int, how: Literal["crop", "squash"]) -> Image.Image:
    """The image, or its central square, at size x size (bicubic)."""
    if image.size == (size, size):
        return image
    if how == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + size, top + size))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
