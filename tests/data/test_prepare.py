import errno
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitrepro.catalog import DATASETS
from vitrepro.data import prepare as module
from vitrepro.data.locate import hub_entry, locate
from vitrepro.data.prepare import prepare
from vitrepro.errors import DataError, DataMissing


def encode(pixels, mode="RGB", format="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format, **options)
    return file.getvalue()


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# What a prepared data set holds


def test_pixels_and_labels_are_those_of_the_files(tiny):
    prepared = tiny.prepare()
    for split in ("train", "test"):
        np.testing.assert_array_equal(tiny.images(prepared, split), tiny.pixels[split])
        labels = np.load(prepared.directory / f"{split}-labels.npy")
        assert labels.dtype == np.int64
        assert labels.tolist() == tiny.labels[split]
    assert (prepared.train.images, prepared.test.images) == (40, 20)
    assert prepared.train.class_counts == (4,) * 10
    assert prepared.changes == ()


@pytest.mark.usefixtures("no_sockets")
def test_the_digits_are_all_there_and_split_by_class(tmp_path):
    from sklearn.datasets import load_digits

    prepared = prepare("digits", data_dir=None, cache_dir=tmp_path, offline=True)
    train, test = (np.load(prepared.directory / f"{s}-images.npy") for s in ("train", "test"))
    assert train.shape == (1000, 8, 8, 1)
    assert test.shape == (797, 8, 8, 1)
    assert train.max() == 255
    original = np.rint(load_digits().images * 255 / 16).astype(np.uint8).reshape(1797, 64)
    both = np.concatenate([train, test]).reshape(1797, 64)
    assert sorted(map(bytes, both)) == sorted(map(bytes, original))
    for count, share in zip(prepared.test.class_counts, np.bincount(load_digits().target), strict=True):
        assert abs(count - share * 797 / 1797) < 1


def test_the_digits_split_never_changes(tmp_path):
    prepared = prepare("digits", data_dir=None, cache_dir=tmp_path, offline=True)
    assert prepared.sha256 == "87d144143fe3b3ef67ca97bcc42e741cd894114fb16dee846d1fc3a6cf2f7913"


def test_the_image_column_may_have_either_name(tiny):
    first = tiny.prepare()
    tiny.write(column="image")
    assert tiny.prepare().sha256 == first.sha256


def test_shards_are_read_in_order(tiny):
    tiny.write(shards=3)
    (tiny.folder / "train-00000-of-00001.parquet").unlink()
    (tiny.folder / "test-00000-of-00001.parquet").unlink()
    images = tiny.images(tiny.prepare(), "train")
    np.testing.assert_array_equal(images, np.concatenate([tiny.pixels["train"][i::3] for i in range(3)]))


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_keep_the_order(tiny, monkeypatch, workers):
    monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    prepared = tiny.prepare(workers=workers)
    np.testing.assert_array_equal(tiny.images(prepared, "train"), tiny.pixels["train"])


def test_progress_ends_at_the_number_of_images(tiny):
    calls = []
    tiny.prepare(progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (60, 60)
    assert calls == sorted(set(calls))


def test_a_prepared_data_set_can_be_pickled(tiny):
    prepared = tiny.prepare()
    assert pickle.loads(pickle.dumps(prepared)) == prepared


# Images that are not of the catalogue's shape


def test_other_sizes_are_resized_by_the_shorter_side_and_cropped_at_the_centre(tiny):
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, :32], wide[:, 32:96], wide[:, 96:] = 50, 200, 90
    tiny.spoil("train", 3, encode(wide))
    prepared = tiny.prepare()
    assert (tiny.images(prepared, "train")[3, :, 2:-2] == 200).all()  # bicubic rings at the edges
    assert prepared.train.resized == 1
    assert prepared.changes == ("1 of 40 train images resized to 32x32",)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 31), (31, 200), (200, 1)])
def test_any_size_ends_as_the_catalogues(tiny, height, width):
    tiny.spoil("test", 0, encode(np.full((height, width, 3), 77, np.uint8)))
    prepared = tiny.prepare()
    assert (tiny.images(prepared, "test")[0] == 77).all()
    assert prepared.test.resized == 1


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("CMYK", "JPEG")]
)
def test_other_colour_modes_become_rgb_and_are_counted(tiny, mode, format):
    tiny.spoil("train", 0, encode(np.full((32, 32, 3), 255, np.uint8), mode, format))
    prepared = tiny.prepare()
    assert (tiny.images(prepared, "train")[0] == 255).all()
    assert prepared.train.converted == 1


def test_a_transparent_palette_becomes_rgb_without_a_warning(tiny):
    image = encode(np.full((32, 32, 3), 255, np.uint8), "P", "PNG", transparency=b"\x00\x80")
    tiny.spoil("train", 0, image)
    assert tiny.prepare().train.converted == 1


def test_images_are_turned_upright_as_exif_says(tiny):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    tiny.spoil("train", 0, encode(tiny.pixels["train"][0], exif=exif))
    prepared = tiny.prepare()
    np.testing.assert_array_equal(tiny.images(prepared, "train")[0], tiny.pixels["train"][0][::-1, ::-1])
    assert prepared.train.rotated == 1


def parquet_of(folder, name, sizes, columns, monkeypatch):
    """A data set of the catalogue cut down to a few images of one colour each, of these sizes (width, height)."""
    info = replace(DATASETS[name], train=len(sizes), test=len(sizes), num_classes=2)
    monkeypatch.setitem(DATASETS, name, info)
    (folder / name).mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"bytes": encode(np.full((h, w, 3), 40 * i, np.uint8)), "path": None} for i, (w, h) in enumerate(sizes)]
        images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        pq.write_table(pa.table({"image": images, **columns}), folder / name / f"{split}-00000-of-00001.parquet")
    return prepare(name, data_dir=folder, cache_dir=folder / "cache", offline=True)


def stored_labels(prepared):
    return np.load(prepared.directory / "train-labels.npy").tolist()


def test_labels_are_read_from_the_column_of_the_data_set(tmp_path, monkeypatch):
    columns = {"coarse_label": pa.array([7, 8, 9]), "fine_label": pa.array([1, 0, 1])}
    assert stored_labels(parquet_of(tmp_path, "cifar100", [(32, 32)] * 3, columns, monkeypatch)) == [1, 0, 1]


def test_labels_called_so_serve_where_the_data_sets_own_column_is_missing(tmp_path, monkeypatch):
    columns = {"label": pa.array([1, 0, 1])}
    assert stored_labels(parquet_of(tmp_path, "cifar100", [(32, 32)] * 3, columns, monkeypatch)) == [1, 0, 1]


def test_a_data_set_without_its_labels_is_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"columns image, coarse_label; expected img or image, and fine_label"):
        parquet_of(tmp_path, "cifar100", [(32, 32)] * 3, {"coarse_label": pa.array([0, 1, 0])}, monkeypatch)


def test_photographs_are_squashed_whole_and_the_record_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "pets", replace(DATASETS["pets"], image_size=16))
    drawn = []
    original = module._fit

    def fit(image, size, how):
        drawn.append((image.size, how))
        return original(image, size, how)

    monkeypatch.setattr(module, "_fit", fit)
    prepared = parquet_of(tmp_path, "pets", [(16, 16), (40, 20), (5, 30)], {"label": pa.array([0, 1, 0])}, monkeypatch)
    images = np.load(prepared.directory / "train-images.npy")
    assert images.shape == (3, 16, 16, 3)
    assert [int(image.mean()) for image in images] == [0, 40, 80]
    assert sorted(set(drawn)) == [((5, 30), "squash"), ((16, 16), "squash"), ((40, 20), "squash")]
    assert prepared.changes[0] == "2 of 3 train images squashed to 16x16"


def test_a_squashed_image_keeps_what_a_crop_would_lose():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 36:] = 200  # at the edge
    squashed = np.asarray(module._fit(Image.fromarray(pixels), 20, "squash"))
    cropped = np.asarray(module._fit(Image.fromarray(pixels), 20, "crop"))
    assert squashed.shape == cropped.shape == (20, 20, 3)
    assert (squashed[:, -1] > 190).all()
    assert (cropped < 5).all()


def test_large_images_are_decoded_in_smaller_chunks():
    for info in DATASETS.values():
        rows = module._chunk_rows(info)
        assert 1 <= rows <= module.CHUNK_ROWS
        assert rows * info.image_size**2 * info.channels <= module.CHUNK_BYTES


# Data that is wrong


def assert_refused(tiny, *words):
    with pytest.raises(DataError) as caught:
        tiny.prepare()
    for word in words:
        assert word in str(caught.value)
    assert [p for p in tiny.cache_dir.glob("*") if not p.name.startswith(".")] == []
    assert list(tiny.cache_dir.glob(".*tmp*")) == []


@pytest.mark.parametrize(
    ("file", "found"),
    [
        (b"", "the image is empty"),
        (None, "the image is empty"),
        (b"<html>404</html>", "16 bytes that do not decode"),
        (encode(np.zeros((32, 32, 3), np.uint8), format="BMP")[:1000], "do not decode"),
        (encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))[:1500], "do not decode"),
    ],
)
def test_an_image_that_does_not_decode_is_named(tiny, file, found):
    tiny.spoil("train", 17, file)
    assert_refused(tiny, "train-00000-of-00001.parquet, row 17", found)


def test_sixteen_bits_are_refused_rather_than_clipped(tiny):
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32), 60_000, np.uint16)).save(file, "PNG")
    tiny.spoil("test", 2, file.getvalue())
    assert_refused(tiny, "test-00000-of-00001.parquet, row 2", "more than 8 bits")


@pytest.mark.parametrize("label", [10, -1, None])
def test_a_label_out_of_range_is_named(tiny, label):
    tiny.labels["train"][25] = label
    tiny.write()
    assert_refused(tiny, "train-00000-of-00001.parquet, row 25", f"label is {label}", "0 to 9")


def test_labels_must_be_integers(tiny):
    tiny.labels["test"] = [str(label) for label in tiny.labels["test"]]
    tiny.write()
    assert_refused(tiny, "test-00000-of-00001.parquet", "label is string", "integer")


def test_every_class_must_occur(tiny):
    tiny.labels["test"] = [max(label, 1) for label in tiny.labels["test"]]
    tiny.write()
    assert_refused(tiny, "test-00000-of-00001.parquet", "no test image has label 0")


def test_split_sizes_must_be_the_catalogues(tiny):
    del tiny.files["train"][5], tiny.labels["train"][5]
    tiny.write()
    assert_refused(tiny, "train-00000-of-00001.parquet", "39 train images", "40")


def test_train_and_test_files_in_each_others_place_are_refused(tiny):
    train, test = (tiny.folder / f"{s}-00000-of-00001.parquet" for s in ("train", "test"))
    shutil.copy(train, tiny.folder / "spare")
    shutil.copy(test, train)
    shutil.copy(tiny.folder / "spare", test)
    assert_refused(tiny, "20 train images")


@pytest.mark.parametrize("columns", [{"picture": [b"x"], "label": [0]}, {"img": [b"x"], "label": [0]}, {"img": [b"x"]}])
def test_other_columns_are_refused(tiny, columns):
    pq.write_table(pa.table(columns), tiny.folder / "train-00000-of-00001.parquet")
    assert_refused(tiny, "train-00000-of-00001.parquet", "expected")


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "folder"])
def test_a_file_that_is_not_parquet_is_named(tiny, damage):
    file = tiny.folder / "test-00000-of-00001.parquet"
    content = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"<html>" * 100}[damage])
    assert_refused(tiny, str(file))


def test_damage_inside_a_parquet_file_is_named(tiny):
    file = tiny.folder / "train-00000-of-00001.parquet"
    content = bytearray(file.read_bytes())
    content[4:400] = bytes(396)  # the header of the first page
    file.write_bytes(content)
    assert_refused(tiny, str(file))


# The cache


def test_the_second_time_nothing_is_decoded(tiny, monkeypatch):
    first = tiny.prepare()
    monkeypatch.setattr(module, "_write_entry", None)
    assert tiny.prepare() == first


def test_other_content_gets_another_entry(tiny):
    first = tiny.prepare()
    tiny.spoil("train", 0, encode(np.zeros((32, 32, 3), np.uint8)))
    second = tiny.prepare()
    assert second.directory != first.directory
    assert second.sha256 != first.sha256
    assert second.test.sha256 == first.test.sha256


def test_meta_json_says_what_is_there(tiny):
    prepared = tiny.prepare()
    meta = json.loads((prepared.directory / "meta.json").read_text())
    assert meta["source"] == str(tiny.folder)
    assert meta["train"]["images"] == 40
    assert meta["train"]["sha256"] == prepared.train.sha256


@pytest.mark.parametrize("damage", ["gone", "short", "long", "no meta", "bad meta"])
def test_a_damaged_entry_is_prepared_again(tiny, damage):
    first = tiny.prepare()
    images, meta = first.directory / "train-images.npy", first.directory / "meta.json"
    if damage == "gone":
        images.unlink()
    elif damage == "short":
        os.truncate(images, 100)
    elif damage == "long":
        images.write_bytes(images.read_bytes() + b"x")
    elif damage == "no meta":
        meta.unlink()
    else:
        meta.write_text(meta.read_text()[:50])
    assert tiny.prepare() == first
    np.testing.assert_array_equal(tiny.images(first, "train"), tiny.pixels["train"])


def test_what_a_killed_process_left_is_removed(tiny):
    name = tiny.prepare().directory.name
    shutil.rmtree(tiny.cache_dir / name)
    left_over = tiny.cache_dir / f".{name}.tmp-abc" / "entry"
    left_over.mkdir(parents=True)
    (left_over / "train-images.npy").write_bytes(b"half")
    tiny.prepare()
    assert {p.name for p in tiny.cache_dir.iterdir()} == {name, f".{name}.lock"}


def test_a_cache_that_cannot_be_made_is_named(tiny, tmp_path):
    tiny.cache_dir = tmp_path / "a file"
    tiny.cache_dir.touch()
    with pytest.raises(DataError, match="a file"):
        tiny.prepare()


def test_a_disk_too_small_is_told_before_decoding(tiny, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    assert_refused(tiny, str(tiny.cache_dir), "184,320 bytes needed", "1,000 are free")


def test_a_disk_that_fills_up_leaves_nothing_behind(tiny, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    assert_refused(tiny, str(tiny.cache_dir), "No space left on device")


LIMITED = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from vitrepro.catalog import DATASETS
from vitrepro.data.prepare import prepare
from vitrepro.errors import DataError

DATASETS["cifar10"] = replace(DATASETS["cifar10"], train=40, test=20)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the training images have 122,880 bytes
try:
    prepare("cifar10", data_dir=Path(sys.argv[1]), cache_dir=Path(sys.argv[2]), offline=True)
except DataError as error:
    print(error)
"""


def test_a_write_that_really_fails_half_way_names_the_file(tiny):
    command = [sys.executable, "-c", LIMITED, str(tiny.data_dir), str(tiny.cache_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "train-images.npy: the data cache cannot be written (File too large)" in done.stdout
    assert [p.suffix for p in tiny.cache_dir.iterdir()] == [".lock"]


TEN = """
import sys, time
from dataclasses import replace
from pathlib import Path
from vitrepro.catalog import DATASETS
from vitrepro.data.prepare import prepare

DATASETS["cifar10"] = replace(DATASETS["cifar10"], train=40, test=20)
data, cache, start = sys.argv[1:]
print("waiting", flush=True)
while not Path(start).exists():  # all at once
    time.sleep(0.01)
decoded = []
def slowly(done, total):
    decoded.append(done)
    time.sleep(0.3)
prepared = prepare("cifar10", data_dir=Path(data), cache_dir=Path(cache), offline=True, progress=slowly)
print(len(decoded) > 0, prepared.sha256)
"""


def test_of_ten_processes_at_once_exactly_one_prepares(tiny, tmp_path):
    start = tmp_path / "start"
    command = [sys.executable, "-W", "error", "-c", TEN, str(tiny.data_dir), str(tiny.cache_dir), str(start)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(10)]
    assert [process.stdout.readline() for process in running] == ["waiting\n"] * 10
    start.touch()
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * 10
    assert sorted(decoded for decoded, _ in said) == ["False"] * 9 + ["True"]
    assert len({sha256 for _, sha256 in said}) == 1
    assert len(list(tiny.cache_dir.iterdir())) == 2  # the entry and its lock


def test_a_process_killed_while_it_prepares_frees_the_lock(tiny, tmp_path):
    start = tmp_path / "start"
    start.touch()
    command = [sys.executable, "-c", TEN.replace("0.3", "60"), str(tiny.data_dir), str(tiny.cache_dir), str(start)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not list(tiny.cache_dir.glob(".*tmp-*/entry/train-images.npy")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert list(tiny.cache_dir.glob(".*tmp-*"))
    prepared = tiny.prepare()
    np.testing.assert_array_equal(tiny.images(prepared, "train"), tiny.pixels["train"])
    assert list(tiny.cache_dir.glob(".*tmp-*")) == []


# Data that is not there, and the hub


@pytest.mark.usefixtures("no_sockets")
def test_missing_data_offline_opens_no_socket(tiny):
    shutil.rmtree(tiny.folder)
    with pytest.raises(DataMissing) as caught:
        tiny.prepare()
    assert str(tiny.folder / "train-*.parquet") in str(caught.value)
    assert "vitrepro data fetch cifar10" in str(caught.value)


@pytest.mark.usefixtures("no_sockets")
def test_incomplete_local_files_are_not_replaced_by_a_download(tiny):
    (tiny.folder / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataMissing, match=r"holds no test-\*\.parquet"):
        tiny.prepare(offline=False)


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    """A hub that is a folder: the `datasets` library itself reads it, and the network is shut."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hf"))
    datasets.disable_progress_bars()
    repository = tmp_path / "repository"
    shutil.move(tiny.folder, repository / "plain_text")
    monkeypatch.setitem(DATASETS, "cifar10", replace(DATASETS["cifar10"], hub=str(repository)))
    return repository


@pytest.mark.usefixtures("no_sockets")
def test_what_is_missing_comes_from_the_hub_once(tiny, hub):
    prepared = tiny.prepare(offline=False)
    np.testing.assert_array_equal(tiny.images(prepared, "train"), tiny.pixels["train"])
    assert prepared.source == f"hub:{hub}"
    assert prepared.directory.name == hub_entry("cifar10")

    shutil.rmtree(hub)
    assert tiny.prepare(offline=True) == prepared
    assert locate("cifar10", None, tiny.cache_dir).kind == "cached"


@pytest.mark.usefixtures("hub")
def test_hub_and_files_of_the_same_content_have_the_same_hash(tiny):
    fetched = tiny.prepare(offline=False)
    tiny.write()
    assert tiny.prepare().sha256 == fetched.sha256


@pytest.mark.usefixtures("hub")
def test_a_damaged_download_is_missing_offline(tiny):
    prepared = tiny.prepare(offline=False)
    (prepared.directory / "test-labels.npy").unlink()
    with pytest.raises(DataMissing, match="damaged"):
        tiny.prepare(offline=True)
    assert tiny.prepare(offline=False) == prepared


def test_a_hub_out_of_reach_is_missing_data_with_the_reason(tiny, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = {}

    def unreachable(repository, **options):
        asked.update(options, repository=repository)
        raise ConnectionError(f"Couldn't reach '{repository}' on the Hub (ConnectError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    shutil.rmtree(tiny.folder)
    with pytest.raises(DataMissing) as caught:
        tiny.prepare(offline=False)
    assert "Couldn't reach 'uoft-cs/cifar10'" in str(caught.value)
    assert "vitrepro data fetch cifar10" in str(caught.value)
    assert asked == {
        "repository": "uoft-cs/cifar10",
        "data_files": {"train": "plain_text/train-*.parquet", "test": "plain_text/test-*.parquet"},
        "revision": None,
    }


# The real files


def real(name):
    folder = os.environ.get("VITREPRO_DATA")
    if not folder or not (Path(folder) / name).is_dir():
        pytest.skip(f"VITREPRO_DATA names no folder with {name}")
    return Path(folder)


@pytest.mark.data
@pytest.mark.usefixtures("no_sockets")
def test_cifar10_is_the_published_one(tmp_path):
    prepared = prepare("cifar10", data_dir=real("cifar10"), cache_dir=tmp_path, offline=True)
    assert prepared.train.class_counts == (5000,) * 10
    assert prepared.test.class_counts == (1000,) * 10
    assert prepared.changes == ()
    train = np.load(prepared.directory / "train-images.npy", mmap_mode="r")
    values = np.arange(256) / 255
    for channel, mean, std in ((0, 0.49140, 0.24703), (1, 0.48216, 0.24349), (2, 0.44653, 0.26159)):
        share = np.bincount(train[..., channel].ravel(), minlength=256) / train[..., channel].size
        found = share @ values
        assert found == pytest.approx(mean, abs=1e-5)
        assert np.sqrt(share @ (values - found) ** 2) == pytest.approx(std, abs=1e-5)
    test = np.load(prepared.directory / "test-images.npy", mmap_mode="r")
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("no_sockets")
def test_imagenette_is_complete(tmp_path):
    prepared = prepare("imagenette", data_dir=real("imagenette"), cache_dir=tmp_path, offline=True)
    assert sum(prepared.train.class_counts) == 9469
    assert sum(prepared.test.class_counts) == 3925
    assert prepared.changes == ()


def test_a_cache_of_the_right_size_and_other_content_is_made_again(tmp_path):
    first = prepare("digits", data_dir=None, cache_dir=tmp_path, offline=True)
    file = first.directory / "test-labels.npy"
    labels = np.load(file)
    np.save(file, np.zeros_like(labels))
    again = prepare("digits", data_dir=None, cache_dir=tmp_path, offline=True)
    assert again.sha256 == first.sha256
    np.testing.assert_array_equal(np.load(file), labels)
