import subprocess
import sys

import pytest

from vitrepro.catalog import DATASETS
from vitrepro.data.locate import hub_entry, locate, missing_message


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_digits_are_bundled():
    assert locate("digits", None).kind == "bundled"


def test_files_are_found_per_split_in_reading_order(tmp_path):
    folder = tmp_path / "cifar10"
    shards = [f"train-{i:05d}-of-00006.parquet" for i in range(6)]
    touch(folder, *(shards[i] for i in (3, 0, 5, 1, 4, 2)), "test-00000-of-00001.parquet")
    touch(folder, "README.md", "trainer.parquet", "validation-00000-of-00001.parquet")
    found = locate("cifar10", tmp_path)
    assert found.kind == "files"
    assert found.train == tuple(folder / name for name in shards)
    assert found.test == (folder / "test-00000-of-00001.parquet",)


def test_the_test_split_has_the_name_the_catalogue_gives_it(tmp_path):
    touch(tmp_path / "imagenette", "train-0.parquet", "validation-0.parquet", "test-0.parquet")
    found = locate("imagenette", tmp_path)
    assert [path.name for path in found.test] == ["validation-0.parquet"]


@pytest.mark.parametrize("data_dir", [None, "nowhere", "empty"])
def test_missing_data_names_the_paths_looked_at_and_the_command(tmp_path, data_dir):
    (tmp_path / "empty" / "cifar10").mkdir(parents=True)
    found = locate("cifar10", tmp_path / data_dir if data_dir else None, tmp_path / "cache")
    assert found.kind == "missing"
    message = missing_message(found)
    assert "vitrepro data fetch cifar10" in message
    assert str(tmp_path / "cache" / hub_entry("cifar10")) in message
    if data_dir:
        assert str(tmp_path / data_dir / "cifar10" / "test-*.parquet") in message


def test_a_missing_shard_is_named(tmp_path):
    touch(tmp_path / "cifar10", "train-00000-of-00002.parquet", "test-00000-of-00001.parquet")
    found = locate("cifar10", tmp_path)
    assert found.kind == "missing"
    assert "train-00001-of-00002.parquet is missing" in missing_message(found)


def test_a_folder_with_one_split_only_is_incomplete(tmp_path):
    touch(tmp_path / "cifar10", "train.parquet")
    found = locate("cifar10", tmp_path)
    assert found.kind == "missing"
    assert "holds no test-*.parquet" in missing_message(found)


def test_an_earlier_download_is_found_and_local_files_win_over_it(tmp_path):
    touch(tmp_path / "cache" / hub_entry("cifar10"), "meta.json")
    assert locate("cifar10", None, tmp_path / "cache").kind == "cached"
    touch(tmp_path / "data" / "cifar10", "train.parquet", "test.parquet")
    assert locate("cifar10", tmp_path / "data", tmp_path / "cache").kind == "files"


def test_every_data_set_can_be_located():
    for name in DATASETS:
        assert locate(name, None).kind in ("bundled", "missing")


def test_locating_loads_neither_torch_nor_pyarrow():
    code = "import sys; import vitrepro.data.locate; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_preparing_and_splitting_load_no_torch():
    code = "import sys, vitrepro.data.splits, vitrepro.data.batches; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
