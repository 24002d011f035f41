"""The order of an epoch and its batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastcifar.errors import UserError
from fastcifar.loader import LoaderOptions
from fastcifar.loader.order import EpochPlan, batch_count, batches_of, epoch_order

quick = settings(deadline=None, max_examples=60)
uint64s = st.integers(0, 2**64 - 1)


@quick
@given(st.integers(0, 3000), uint64s, uint64s)
def test_the_order_is_a_permutation_and_a_pure_function(samples, seed, epoch):
    order = epoch_order(samples, seed, epoch)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(samples))
    assert np.array_equal(order, epoch_order(samples, seed, epoch))


def related(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two orders of n agree in more places, or have a longer common start, than chance explains."""
    n = len(a)
    shifted = max(int((a == np.roll(b, shift)).sum()) for shift in range(n))
    places = np.empty((2, n))
    places[0, a] = places[1, b] = np.arange(n)
    # 6 standard errors of a rank correlation; the largest of n Poisson(1) counts is far below 12
    correlation = np.corrcoef(places[0], places[1]).item(0, 1)
    return bool((a[:3] == b[:3]).all()) or shifted > 12 or abs(correlation) > 6 / np.sqrt(n - 1)


@quick
@given(st.integers(0, 2**63), st.integers(0, 2**63), st.sampled_from([(0, 1), (1, 0), (1, -1), (-1, 1), (1, 1)]))
def test_neighbouring_seeds_and_epochs_are_unrelated(seed, epoch, step):
    order, other = epoch_order(300, seed, epoch), (abs(seed + step[0]), abs(epoch + step[1]))
    assert related(order, order)
    assert other == (seed, epoch) or not related(order, epoch_order(300, *other))


def test_every_sample_comes_to_every_place():
    # chi-squared of (sample, place) counts, 64 degrees of freedom less the margins: mean 49, standard deviation 10
    counts, epochs = np.zeros((8, 8)), 4000
    for epoch in range(epochs):
        counts[np.arange(8), epoch_order(8, 3, epoch)] += 1
    expected = epochs / 8
    assert ((counts - expected) ** 2 / expected).sum() < 49 + 6 * 10


@quick
@given(st.integers(0, 500), st.integers(1, 600), st.booleans())
def test_batches_cut_the_order_without_a_gap(samples, batch_size, drop_last):
    order = np.arange(samples)
    batches = batches_of(order, batch_size, drop_last)
    assert len(batches) == batch_count(samples, batch_size, drop_last)
    joined = np.concatenate([*batches, np.empty(0, np.int64)])
    assert np.array_equal(joined, order[: len(joined)])
    assert all(len(batch) == batch_size for batch in (batches if drop_last else batches[:-1]))
    assert 0 <= samples - len(joined) < (batch_size if drop_last else 1)


def plan(samples: int = 100, **changes) -> EpochPlan:
    values = {"batch_size": 30, "seed": 0, "shuffle": True, "drop_last": False}
    return EpochPlan(samples, LoaderOptions(**(values | changes)))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_a_start_is_the_tail_of_the_epoch(shuffle, drop_last):
    whole = plan(shuffle=shuffle, drop_last=drop_last)
    full = whole.batches(5)
    assert len(full) == len(whole) == (3 if drop_last else 4)
    for start in range(len(whole) + 1):
        assert [b.tolist() for b in whole.batches(5, start)] == [b.tolist() for b in full[start:]]
    if not shuffle:
        assert np.array_equal(np.concatenate(full), np.arange(90 if drop_last else 100))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch_size": 0}, "batch size 0"),
        ({"batch_size": -3}, "batch size -3"),
        ({"samples": 0}, "no samples"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**64}, "seed 18446744073709551616"),
        ({"batch_size": 101, "drop_last": True}, r"101.* 100"),
    ],
)
def test_a_plan_without_a_batch_is_refused(changes, named):
    with pytest.raises(UserError, match=named):
        plan(**changes)


@pytest.mark.parametrize(("epoch", "start"), [(0, 5), (0, -1), (-1, 0), (2**64, 0)])
def test_a_plan_refuses_an_epoch_or_start_out_of_range(epoch, start):
    with pytest.raises(UserError, match=str(start) if start else str(epoch)):
        plan().batches(epoch, start)


@pytest.mark.parametrize(("seed", "epoch"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_the_order_refuses_keys_that_are_not_64_bits(seed, epoch):
    with pytest.raises(UserError, match=str(seed or epoch)):
        epoch_order(10, seed, epoch)
