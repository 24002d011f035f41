"""What every loader promises; the kinds come from the package's own table, so none is forgotten."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastcifar.errors import UserError
from fastcifar.loader import LOADERS, open_loader
from fastcifar.loader import base as protocol
from fastcifar.loader.order import EpochPlan, epoch_order

SAMPLES = 1003
every_kind = pytest.mark.parametrize("kind", LOADERS)


@every_kind
def test_an_epoch_is_what_the_transform_makes_of_the_order(prepared, same, kind):
    with prepared.open(kind) as loader:
        assert (loader.samples, loader.batch_size, len(loader)) == (SAMPLES, 128, 8)
        same(loader.epoch(0), prepared.epoch(0))
        same(loader.epoch(3), prepared.epoch(3))
        images, labels = next(iter(loader.epoch(0)))
        assert images.shape == (128, 3, 32, 32)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.shape == (128,)


@pytest.fixture
def together_restored(monkeypatch):
    monkeypatch.setattr(protocol, "TOGETHER", protocol.TOGETHER)


@pytest.mark.usefixtures("together_restored")
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_all_loaders_give_the_same_batches(prepared, same, data):
    batch_size = data.draw(st.integers(1, 60).map(lambda x: x * 17) | st.just(SAMPLES) | st.just(5000), "batch size")
    drop_last = data.draw(st.booleans(), "drop last") and batch_size <= SAMPLES
    shuffle, seed = data.draw(st.booleans(), "shuffle"), data.draw(st.integers(0, 2**64 - 1), "seed")
    epoch = data.draw(st.integers(0, 2**40), "epoch")
    plan = EpochPlan(samples=SAMPLES, batch_size=batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last)
    start = data.draw(st.integers(0, len(plan)), "start")
    expected = [prepared.batch(indices, epoch) for indices in plan.batches(epoch, start)]
    protocol.TOGETHER = data.draw(st.sampled_from([1, 100, 2000]), "images in a read")
    for kind in LOADERS:
        options = {"batch_size": batch_size, "seed": seed, "shuffle": shuffle, "drop_last": drop_last}
        with prepared.open(kind, **options) as loader:
            assert len(loader) == len(plan)
            same(loader.epoch(epoch, start), expected)


@every_kind
def test_the_batch_size_does_not_change_the_images(prepared, kind):
    order = epoch_order(SAMPLES, 7, 2)
    expected_images, expected_labels = prepared.batch(order, 2)
    for batch_size in (1, 61, 500, SAMPLES, 2 * SAMPLES):
        with prepared.open(kind, batch_size=batch_size) as loader:
            batches = list(loader.epoch(2))
        assert {len(labels) for _, labels in batches[:-1]} <= {batch_size}
        assert torch.equal(torch.cat([images for images, _ in batches]), expected_images)
        assert torch.equal(torch.cat([labels for _, labels in batches]), expected_labels)


@every_kind
def test_epochs_are_pure(prepared, same, kind):
    with prepared.open(kind) as one, prepared.open(kind) as other:
        first = list(one.epoch(1))
        list(one.epoch(2))
        same(one.epoch(1), first)
        same(other.epoch(1), first)


@every_kind
def test_a_start_is_the_tail_of_the_full_epoch(prepared, same, kind):
    with prepared.open(kind) as loader:
        full = list(loader.epoch(4))
        for start in (0, 1, 5, len(loader) - 1, len(loader)):
            same(loader.epoch(4, start), full[start:])


@every_kind
def test_every_sample_comes_once_an_epoch(prepared, kind):
    # without augmentation an image tells which sample it is
    lookup = {image.tobytes(): i for i, image in enumerate(prepared.raw.train.images_nhwc)}

    def raw(images, rows, samples, epoch, size):
        return torch.from_numpy(images[rows].copy()).permute(0, 3, 1, 2)

    with prepared.open(kind, transform=raw) as loader:
        for epoch in (0, 1):
            batches = [images.permute(0, 2, 3, 1).numpy() for images, _ in loader.epoch(epoch)]
            seen = [lookup[image.tobytes()] for batch in batches for image in batch]
            assert seen == epoch_order(SAMPLES, 7, epoch).tolist()


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
def test_drop_last_leaves_out_the_partial_batch(prepared, same, kind):
    with prepared.open(kind, drop_last=True) as loader:
        assert len(loader) == 7
        same(loader.epoch(0), prepared.epoch(0)[:7])


@every_kind
def test_a_batch_larger_than_the_data(prepared, kind):
    with prepared.open(kind, batch_size=10**12) as loader:
        assert [len(labels) for _, labels in loader.epoch(0)] == [SAMPLES]
    with pytest.raises(UserError, match=r"batch size 1004 .* 1003 samples"):
        prepared.open(kind, batch_size=1004, drop_last=True)


@every_kind
def test_the_size_follows_the_global_step(prepared, same, kind):
    steps = []

    def size_at(step):
        steps.append(step)
        return 20 + step % 13

    with prepared.open(kind, size_at=size_at) as loader:
        batches = list(loader.epoch(2, 3))
    order = epoch_order(SAMPLES, 7, 2)
    assert steps == list(range(2 * 8 + 3, 3 * 8))
    assert [images.shape[2] for images, _ in batches] == [20 + step % 13 for step in steps]
    same(batches[:1], [prepared.batch(order[3 * 128 : 4 * 128], 2, 20 + steps[0] % 13)])


@every_kind
def test_two_epochs_at_once(prepared, same, kind):
    with prepared.open(kind) as loader:
        pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    same([first for first, _ in pairs], prepared.epoch(0))
    same([second for _, second in pairs], prepared.epoch(1))


@every_kind
def test_next_after_the_end_stops_again(prepared, kind):
    with prepared.open(kind) as loader:
        batches = iter(loader.epoch(0, 7))
        next(batches)
        for _ in range(3):
            with pytest.raises(StopIteration):
                next(batches)


@every_kind
def test_a_closed_loader_says_so(prepared, kind):
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
@pytest.mark.parametrize(("number", "start", "words"), [(0, 9, "start batch 9"), (0, -1, "-1"), (-1, 0, "epoch -1")])
def test_epochs_that_are_not_there(prepared, kind, number, start, words):
    with prepared.open(kind) as loader, pytest.raises(UserError, match=words):
        loader.epoch(number, start)


def test_an_unknown_kind_names_the_known_ones(prepared):
    with pytest.raises(UserError, match=r"'cloud'.*stream, resident"):
        prepared.open("cloud")


@every_kind
def test_missing_data_is_refused(tmp_path, prepared, kind):
    with pytest.raises(UserError, match="prepare"):
        open_loader(kind, tmp_path, "train", prepared.transform, batch_size=1, seed=0, shuffle=True, drop_last=False)


@every_kind
def test_damaged_data_is_refused_when_opened(tmp_path, prepared, kind):
    for file in prepared.folder.iterdir():
        if not file.is_dir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    beton = bytearray((tmp_path / "train.beton").read_bytes())
    beton[len(beton) // 2] ^= 1
    (tmp_path / "train.beton").write_bytes(beton)
    with pytest.raises(UserError, match=r"train\.beton"):
        open_loader(kind, tmp_path, "train", prepared.transform, batch_size=1, seed=0, shuffle=True, drop_last=False)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_batches_that_are_made_together_are_aligned_and_change_with_the_size(prepared, same, start):
    # 16 batches of 64 up to 32 px would be one call; sizes change within it, and a start may fall in its middle
    sizes = [32, 32, 32, 24, 24, 32, 17, 17, 17, 17, 30, 30, 30, 30, 30]
    order = epoch_order(SAMPLES, 7, 0)
    with prepared.open("resident", batch_size=64, drop_last=True, size_at=lambda step: sizes[step]) as loader:
        batches = list(loader.epoch(0, start))
    expected = [prepared.batch(order[64 * i : 64 * (i + 1)], 0, sizes[i]) for i in range(start, 15)]
    same(batches, expected)
    assert all(images.data_ptr() % 64 == 0 for images, _ in batches)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in batches)
