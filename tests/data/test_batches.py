import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrepro.data.batches import batch_indices, batches
from vitrepro.data.shuffle import permutation

sizes = st.integers(1, 40)


@given(n=sizes, batch_size=st.integers(1, 90), seed=st.integers(0, 2**40), epochs=st.integers(1, 4))
def test_every_image_comes_once_per_epoch(n, batch_size, seed, epochs):
    steps = -(-n * epochs // batch_size)
    stream = np.concatenate(list(batches(n, batch_size, steps, seed)))
    assert len(stream) == steps * batch_size
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(n=sizes, batch_size=st.integers(1, 90), seed=st.integers(0, 2**40), start=st.integers(0, 12))
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(n, batch_size, seed, start):
    whole = list(batches(n, batch_size, 12, seed))
    resumed = list(batches(n, batch_size, 12, seed, start_step=start))
    assert len(resumed) == 12 - start
    for a, b in zip(whole[start:], resumed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_and_epochs_have_orders_of_their_own():
    first, second = batch_indices(1000, 1000, 0, 0), batch_indices(1000, 1000, 0, 1)
    other = batch_indices(1000, 1000, 1, 0)
    assert (first == second).mean() < 0.02
    assert (first == other).mean() < 0.02


def test_two_runs_in_turns_do_not_disturb_each_other():
    alone = list(batches(50, 20, 6, seed=3))
    for (a, b), expected in zip(zip(batches(50, 20, 6, 3), batches(50, 20, 6, 4), strict=True), alone, strict=True):
        np.testing.assert_array_equal(a, expected)
        assert not np.array_equal(a, b)


def test_a_batch_may_be_changed_without_changing_the_next_reading():
    batch_indices(50, 20, 0, 0)[:] = 0
    assert len(set(batch_indices(50, 20, 0, 0))) == 20


def test_orders_never_change_between_versions():
    assert permutation(8, 0).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert batch_indices(6, 8, 0, 0).tolist() == [2, 1, 4, 0, 3, 5, 1, 0]


@pytest.mark.parametrize(("n", "batch_size", "step"), [(0, 4, 0), (4, 0, 0), (4, 4, -1)])
def test_impossible_batches_are_refused(n, batch_size, step):
    with pytest.raises(ValueError, match="no batch"):
        batch_indices(n, batch_size, 0, step)
