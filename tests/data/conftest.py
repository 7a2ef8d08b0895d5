from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitrepro.catalog import DATASETS
from vitrepro.data.prepare import Prepared, prepare

TRAIN, TEST = 40, 20


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@dataclass
class TinyCifar10:
    """A CIFAR-10 of 40 + 20 random images, as parquet files that a test may spoil."""

    data_dir: Path
    cache_dir: Path
    pixels: dict[str, np.ndarray]
    labels: dict[str, list]
    files: dict[str, list] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.data_dir / "cifar10"

    def write(self, column: str = "img", shards: int = 1) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for split, files in self.files.items():
            for i in range(shards):
                rows = [{"bytes": f, "path": None} for f in files[i::shards]]
                images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
                table = pa.table({column: images, "label": pa.array(self.labels[split][i::shards])})
                pq.write_table(table, self.folder / f"{split}-{i:05d}-of-{shards:05d}.parquet", row_group_size=7)

    def prepare(self, **options) -> Prepared:
        options = {"data_dir": self.data_dir, "cache_dir": self.cache_dir, "offline": True, **options}
        return prepare("cifar10", **options)

    def spoil(self, split: str, row: int, file: bytes | None) -> None:
        self.files[split][row] = file
        self.write()

    def images(self, prepared: Prepared, split: str) -> np.ndarray:
        return np.load(prepared.directory / f"{split}-images.npy", mmap_mode="r")


@pytest.fixture
def tiny(monkeypatch, tmp_path) -> TinyCifar10:
    info = replace(DATASETS["cifar10"], train=TRAIN, test=TEST)
    monkeypatch.setitem(DATASETS, "cifar10", info)
    monkeypatch.setattr("vitrepro.data.prepare.CHUNK_ROWS", 16)  # several chunks per file
    random = np.random.default_rng(0)
    pixels = {s: random.integers(0, 256, (n, 32, 32, 3), np.uint8) for s, n in (("train", TRAIN), ("test", TEST))}
    labels = {split: [i % 10 for i in range(len(p))] for split, p in pixels.items()}
    made = TinyCifar10(tmp_path / "data", tmp_path / "cache", pixels, labels)
    made.files = {split: [encoded(p) for p in images] for split, images in pixels.items()}
    made.write()
    return made
