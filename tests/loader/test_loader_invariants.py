"""What every kind of loader guarantees. The kinds come from LOADERS, so a new one is tested too."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcifar.errors import UserError
from fastcifar.loader import LOADERS, LoaderOptions, base, open_loader
from fastcifar.loader.order import EpochPlan, epoch_order

SAMPLES = 1003
every_kind = pytest.mark.parametrize("kind", LOADERS)


@every_kind
def test_an_epoch_is_the_transform_of_the_order(prepared, same, kind):
    with prepared.open(kind) as loader:
        assert (loader.samples, loader.batch_size, len(loader)) == (SAMPLES, 128, 8)
        for epoch in (0, 3, 0):
            same(loader.epoch(epoch), prepared.epoch(epoch))
        images, labels = next(iter(loader.epoch(0)))
        assert images.shape == (128, 3, 32, 32)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.shape == (128,)


@pytest.fixture
def images_per_read_restored(monkeypatch):
    monkeypatch.setattr(base, "IMAGES_PER_READ", base.IMAGES_PER_READ)


@pytest.mark.usefixtures("images_per_read_restored")
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_all_loaders_give_the_same_batches(prepared, same, data):
    batch_size = data.draw(st.integers(1, 60).map(lambda x: x * 17) | st.sampled_from([SAMPLES, 5000]), "batch size")
    drop_last = data.draw(st.booleans(), "drop last") and batch_size <= SAMPLES
    shuffle, seed = data.draw(st.booleans(), "shuffle"), data.draw(st.integers(0, 2**64 - 1), "seed")
    epoch = data.draw(st.integers(0, 2**40), "epoch")
    options = {"batch_size": batch_size, "seed": seed, "shuffle": shuffle, "drop_last": drop_last}
    plan = EpochPlan(SAMPLES, LoaderOptions(**options))
    start = data.draw(st.integers(0, len(plan)), "start")
    expected = [prepared.batch(indices, epoch) for indices in plan.batches(epoch, start)]
    base.IMAGES_PER_READ = data.draw(st.sampled_from([1, 100, 2000]), "images per read")
    for kind in LOADERS:
        with prepared.open(kind, **options) as loader:
            assert len(loader) == len(plan)
            same(loader.epoch(epoch, start), expected)


@every_kind
def test_kept_batches_are_never_written_to_again(prepared, same, kind):
    with prepared.open(kind, batch_size=20) as loader:
        kept = [(images, labels, images.clone(), labels.clone()) for images, labels in loader.epoch(0)]
        list(loader.epoch(1))
    same([batch[:2] for batch in kept], [batch[2:] for batch in kept])
    assert len({images.data_ptr() for images, *_ in kept}) == len(kept)


@every_kind
def test_without_shuffling_the_order_is_that_of_the_file(prepared, kind):
    with prepared.open(kind, split="test", shuffle=False) as loader:
        assert loader.samples == 97
        for epoch in (0, 1):
            labels = torch.cat([labels for _, labels in loader.epoch(epoch)])
            assert np.array_equal(labels.numpy(), prepared.raw.test.labels)


@every_kind
def test_a_batch_larger_than_the_data(prepared, kind):
    with prepared.open(kind, batch_size=10**12) as loader:
        assert [len(labels) for _, labels in loader.epoch(0)] == [SAMPLES]
    with pytest.raises(UserError, match=r"1004.* 1003"):
        prepared.open(kind, batch_size=1004, drop_last=True)


@every_kind
@pytest.mark.parametrize("start", [0, 1, 3])
def test_the_image_size_follows_the_global_step(prepared, same, kind, start):
    # 15 batches of 64 make one read, within which the size changes; a start may fall into a group of equal sizes
    sizes, steps = [32, 32, 32, 24, 24, 32, 17, 17, 17, 17, 30, 30, 30, 30, 30], []

    def size_at(step):
        steps.append(step)
        return sizes[step - 2 * 15]

    with prepared.open(kind, batch_size=64, drop_last=True, size_at=size_at) as loader:
        batches = list(loader.epoch(2, start))
    assert steps == list(range(2 * 15 + start, 3 * 15))
    order = epoch_order(SAMPLES, 7, 2)
    same(batches, [prepared.batch(order[64 * i : 64 * (i + 1)], 2, sizes[i]) for i in range(start, 15)])
    assert all(images.data_ptr() % 64 == 0 for images, _ in batches)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in batches)


@every_kind
def test_two_epochs_at_the_same_time(prepared, same, kind):
    with prepared.open(kind) as loader:
        first, second = zip(*zip(loader.epoch(0), loader.epoch(1), strict=True), strict=True)
    same(first, prepared.epoch(0))
    same(second, prepared.epoch(1))


@every_kind
def test_next_after_the_end_stops_again(prepared, kind):
    with prepared.open(kind) as loader:
        batches = iter(loader.epoch(0, 7))
        next(batches)
        for _ in range(3):
            with pytest.raises(StopIteration):
                next(batches)


@every_kind
def test_a_closed_loader_refuses_to_read(prepared, kind):
    loader = prepared.open(kind)
    batches = iter(loader.epoch(0))
    next(batches)
    loader.close()
    loader.close()
    with pytest.raises(UserError, match="closed"):
        next(batches)
    with pytest.raises(UserError, match="closed"):
        loader.epoch(1)


@every_kind
@pytest.mark.parametrize(("number", "start", "named"), [(0, 9, "start batch 9"), (0, -1, "-1"), (-1, 0, "epoch -1")])
def test_an_epoch_or_start_out_of_range_is_refused(prepared, kind, number, start, named):
    with prepared.open(kind) as loader, pytest.raises(UserError, match=named):
        loader.epoch(number, start)


def test_an_unknown_kind_is_refused(prepared):
    with pytest.raises(UserError, match=r"'cloud'.*stream, resident"):
        prepared.open("cloud")


@every_kind
def test_missing_and_damaged_data_is_refused_when_opened(tmp_path, prepared, kind):
    options = LoaderOptions(batch_size=1, seed=0, shuffle=True, drop_last=False)
    with pytest.raises(UserError, match="prepare"):
        open_loader(kind, tmp_path, "train", prepared.transform, options)
    shutil.copytree(prepared.folder, tmp_path, dirs_exist_ok=True)
    beton = bytearray((tmp_path / "train.beton").read_bytes())
    beton[len(beton) // 2] ^= 1
    (tmp_path / "train.beton").write_bytes(beton)
    with pytest.raises(UserError, match=r"train\.beton"):
        open_loader(kind, tmp_path, "train", prepared.transform, options)
