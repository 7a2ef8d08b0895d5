import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitrepro.data.prepare import prepare
from vitrepro.data.shuffle import balanced_order, proportional_order
from vitrepro.data.splits import load_split
from vitrepro.errors import UsageError
from vitrepro.recipe import DataSpec, Recipe

seeds = st.integers(0, 2**40)
sizes = st.integers(10, 1000)
given_digits = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepare("digits", data_dir=None, cache_dir=tmp_path_factory.mktemp("cache"), offline=True)


def stored(prepared, split):
    return (np.load(prepared.directory / f"{split}-{what}.npy") for what in ("images", "labels"))


def counts(split, classes=10):
    return np.bincount(split.labels, minlength=classes)


@pytest.mark.parametrize("split", ["train", "test"])
def test_without_choices_a_split_is_the_whole_file_mapped_into_memory(digits, split):
    found = load_split(digits, DataSpec(name="digits"), split, seed=0)
    images, labels = stored(digits, split)
    assert isinstance(found.images, np.memmap)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.ids, np.arange(len(images)))
    assert found.complete_size == len(images)


@given_digits
@given(n=sizes, fraction=st.floats(0, 0.9), seed=seeds)
def test_images_and_labels_are_those_of_the_ids(digits, n, fraction, seed):
    spec = DataSpec(name="digits", train_images=n, dev_fraction=fraction)
    images, labels = stored(digits, "train")
    found = load_split(digits, spec, "train", seed)
    np.testing.assert_array_equal(found.images, images[found.ids])
    np.testing.assert_array_equal(found.labels, labels[found.ids])
    assert (np.diff(found.ids) > 0).all()
    assert found.images.dtype == np.uint8
    assert found.labels.dtype == found.ids.dtype == np.int64


@given_digits
@given(n=sizes, m=sizes, seed=seeds)
def test_a_smaller_subset_lies_within_a_larger_one(digits, n, m, seed):
    n, m = sorted((n, m))
    small, large = (load_split(digits, DataSpec(name="digits", train_images=k), "train", seed) for k in (n, m))
    assert len(small.ids) == n
    assert set(small.ids) <= set(large.ids)


@given_digits
@given(n=st.integers(10, 800), seed=seeds)
def test_a_subset_has_equally_many_of_each_class_as_far_as_that_divides(digits, n, seed):
    found = load_split(digits, DataSpec(name="digits", train_images=n), "train", seed)
    assert set(counts(found)) <= {n // 10, -(-n // 10)}


def test_subsets_differ_from_seed_to_seed(digits):
    spec = DataSpec(name="digits", train_images=100)
    a, b = (load_split(digits, spec, "train", seed) for seed in (0, 1))
    assert len(set(a.ids) & set(b.ids)) < 40
    assert a.sha256 != b.sha256


def test_every_image_is_as_likely_as_any_other_of_its_class(digits):
    spec = DataSpec(name="digits", train_images=500)
    times = np.zeros(1000)
    for seed in range(200):
        times[load_split(digits, spec, "train", seed).ids] += 1
    assert times.min() > 60  # 100 expected, standard deviation 7
    assert times.max() < 140


@given_digits
@given(n=sizes, fraction=st.floats(0.06, 0.9), seed=seeds)
def test_train_and_dev_are_disjoint_and_make_up_the_subset(digits, n, fraction, seed):
    spec = DataSpec(name="digits", train_images=n, dev_fraction=fraction)
    train, dev = (load_split(digits, spec, split, seed) for split in ("train", "dev"))
    refit = load_split(digits, DataSpec(name="digits", train_images=n), "train", seed)
    assert not set(train.ids) & set(dev.ids)
    np.testing.assert_array_equal(np.sort(np.concatenate([train.ids, dev.ids])), refit.ids)


@given_digits
@given(n=sizes, fraction=st.floats(0.06, 0.9), seed=seeds)
def test_dev_has_the_classes_in_the_shares_of_the_whole(digits, n, fraction, seed):
    spec = DataSpec(name="digits", train_images=n, dev_fraction=fraction)
    train, dev = (load_split(digits, spec, split, seed) for split in ("train", "dev"))
    share = (counts(train) + counts(dev)) * len(dev.ids) / n
    assert (np.abs(counts(dev) - share) <= 1).all()


@pytest.mark.parametrize("fraction", [0.0, 0.02, 0.1, 0.333])
@pytest.mark.parametrize("n", [None, 100, 333])
def test_the_training_split_has_the_size_the_recipe_announces(digits, fraction, n):
    spec = DataSpec(name="digits", train_images=n, dev_fraction=fraction)
    vit = {"family": "vit", "patch_size": 2, "embed_dim": 8, "depth": 1, "num_heads": 1}
    recipe = Recipe(data=spec, model=vit, train={"steps": 1, "batch_size": 8, "lr": 0.1})
    assert len(load_split(digits, spec, "train", seed=5).ids) == recipe.train_size


def test_the_test_split_is_the_same_for_every_seed_and_subset(digits):
    whole = load_split(digits, DataSpec(name="digits"), "test", seed=0)
    other = load_split(digits, DataSpec(name="digits", train_images=50, dev_fraction=0.2), "test", seed=9)
    assert whole.sha256 == other.sha256
    np.testing.assert_array_equal(whole.ids, other.ids)


def test_cutting_the_test_split_short_keeps_the_complete_size(digits):
    found = load_split(digits, DataSpec(name="digits", test_images=20), "test", seed=0)
    assert found.ids.tolist() == list(range(20))
    assert found.complete_size == 797


def test_training_never_opens_the_test_split(tiny):
    prepared = tiny.prepare()
    for path in prepared.directory.glob("test-*"):
        path.unlink()
    for split in ("train", "dev"):
        load_split(prepared, DataSpec(name="cifar10", dev_fraction=0.25), split, seed=0)
    with pytest.raises(FileNotFoundError):
        load_split(prepared, DataSpec(name="cifar10"), "test", seed=0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_kept_classes_are_renumbered_in_their_order(digits, split):
    found = load_split(digits, DataSpec(name="digits", classes=(7, 2, 5)), split, seed=0)
    images, labels = stored(digits, split)
    assert found.ids.tolist() == np.flatnonzero(np.isin(labels, (7, 2, 5))).tolist()
    assert np.array([7, 2, 5])[found.labels].tolist() == labels[found.ids].tolist()
    np.testing.assert_array_equal(found.images, images[found.ids])


def test_a_subset_of_kept_classes_is_balanced_among_them(digits):
    spec = DataSpec(name="digits", classes=(1, 8), train_images=51, dev_fraction=0.2)
    train, dev = (load_split(digits, spec, split, seed=3) for split in ("train", "dev"))
    assert sorted(counts(train, 2) + counts(dev, 2)) == [25, 26]
    assert len(dev.ids) == 10


def test_classes_and_test_images_cut_together(digits):
    found = load_split(digits, DataSpec(name="digits", classes=(0, 1), test_images=7), "test", seed=0)
    _, labels = stored(digits, "test")
    assert len(found.ids) == 7
    assert found.complete_size == np.isin(labels, (0, 1)).sum()


def test_more_images_than_the_kept_classes_have_are_refused(digits):
    spec = DataSpec(name="digits", classes=(0, 1), train_images=500)
    with pytest.raises(UsageError, match="train_images is 500, the kept classes have 200"):
        load_split(digits, spec, "train", seed=0)


@pytest.mark.parametrize("fraction", [0.0, 0.0001])
def test_an_empty_dev_split_is_refused(digits, fraction):
    with pytest.raises(ValueError, match="no dev split"):
        load_split(digits, DataSpec(name="digits", dev_fraction=fraction), "dev", seed=0)


def test_the_hash_tells_images_of_other_content_apart(tiny):
    spec = DataSpec(name="cifar10")
    first, test = (load_split(tiny.prepare(), spec, split, seed=0) for split in ("train", "test"))
    tiny.labels["train"][:2] = tiny.labels["train"][1::-1]
    tiny.write()
    again, test_again = (load_split(tiny.prepare(), spec, split, seed=0) for split in ("train", "test"))
    assert again.sha256 != first.sha256
    assert test_again.sha256 == test.sha256


uneven = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


@given(labels=uneven, seed=seeds)
def test_balanced_orders_take_turns_until_a_class_is_used_up(labels, seed):
    order = balanced_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    total = np.bincount(labels, minlength=6)
    for n in range(len(labels) + 1):
        taken = np.bincount(labels[order[:n]], minlength=6)
        unfinished = taken[taken < total]
        assert (unfinished >= taken.max() - 1).all()


@given(labels=uneven, seed=seeds)
def test_proportional_orders_keep_the_shares_at_every_length(labels, seed):
    order = proportional_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    total = np.bincount(labels, minlength=6)
    for n in range(len(labels) + 1):
        taken = np.bincount(labels[order[:n]], minlength=6)
        assert (np.abs(taken - total * n / len(labels)) < 2.5).all()


def test_the_subsets_never_change_between_versions(digits):
    spec = DataSpec(name="digits", train_images=100, dev_fraction=0.1)
    assert load_split(digits, spec, "dev", seed=7).ids.tolist() == [139, 147, 239, 309, 384, 634, 758, 765, 785, 887]
