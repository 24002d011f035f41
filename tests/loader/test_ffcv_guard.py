"""What FFCV changes around it when it is imported and used, and the files it would not survive."""

import shutil
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest
import torch

from fastcifar.errors import UserError
from fastcifar.loader import ffcv_guard, open_loader


@pytest.fixture
def odd_thread_counts():
    before = torch.get_num_threads(), numba.get_num_threads()
    wanted = 3, numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    torch.set_num_threads(wanted[0])
    numba.set_num_threads(wanted[1])
    yield wanted
    torch.set_num_threads(before[0])
    numba.set_num_threads(before[1])


def test_thread_counts_stay_as_they_are(prepared, stream, odd_thread_counts):
    # the first import of FFCV, which `stream` has done, is looked at in test_stream_process.py
    from ffcv.pipeline.compiler import Compiler

    def check():
        assert (torch.get_num_threads(), numba.get_num_threads()) == odd_thread_counts

    before = Compiler.num_threads
    with prepared.open("stream") as loader:
        check()
        for epoch in (0, 1):
            batches = loader.epoch(epoch)
            check()
            for _ in batches:
                check()
            seen = []  # what a thread started now would use
            thread = threading.Thread(target=lambda seen=seen: seen.append(torch.get_num_threads()))
            thread.start()
            thread.join()
            assert seen == [odd_thread_counts[0]]
            check()
    check()
    assert Compiler.num_threads == before


THEIRS = """
import sys
from pathlib import Path
import numpy as np
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader
from ffcv.pipeline.compiler import Compiler
from fastcifar.augment.transform import Transform
from fastcifar.config import AugmentConfig
from fastcifar.loader import open_loader

folder = Path(sys.argv[1])
pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
theirs = Loader(str(folder / "train.beton"), 100, num_workers=1, seed=0, pipelines=pipelines, drop_last=False)
Compiler.num_threads = 5
transform = Transform(AugmentConfig(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
options = dict(batch_size=50, seed=7, shuffle=True, drop_last=False)
with open_loader("stream", folder, "train", transform, **options) as ours:
    next(ours.epoch(0))
assert Compiler.num_threads == 5
print(*np.concatenate([labels[:, 0].copy() for _, labels in theirs]))
"""


def test_other_users_of_ffcv_are_left_alone(prepared):
    # FFCV's own Loader, built before ours and compiled after it, still works and keeps its setting; in a process of
    # its own, because it marks a type of numba's, after which nothing that was compiled before can be relied on
    next(prepared.open("stream").epoch(0))  # so that the process finds our kernel compiled
    command = [sys.executable, "-c", THEIRS, str(prepared.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(label) for label in prepared.raw.train.labels]


def test_the_random_generators_of_others_are_not_touched(prepared):
    def numpy_state():
        return np.random.get_state(legacy=False)["state"]["key"].copy()  # type: ignore  # noqa: NPY002  (on purpose)

    states = numpy_state(), torch.get_rng_state()
    with prepared.open("stream") as loader:
        list(loader.epoch(0))
    assert np.array_equal(numpy_state(), states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


@numba.njit
def total_of_images(images_nhwc):
    total = 0
    for value in images_nhwc.flat:
        total += value
    return total


def test_numba_compiles_and_dispatches_bytes_as_before(prepared):
    images = np.arange(2 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 32, 32, 3)
    flat = images.reshape(-1)
    held = numba.njit(lambda x: x[0])  # code for 1-D bytes that is alive when the Loader is built is what breaks
    held(flat)
    before = total_of_images(images)
    with prepared.open("stream") as loader:
        next(loader.epoch(0))
        assert total_of_images(images) == before == images.sum()
        again = numba.njit(lambda x: x.sum())
        assert again(images) == images.sum()
        assert numba.uint8[::1].mutable
        assert numba.njit("uint8(uint8[::1])")(lambda x: x[3])(flat) == 3


def test_a_file_that_is_replaced_after_opening_is_refused(tmp_path, prepared):
    shutil.copytree(prepared.folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "train.beton"
    options = {"batch_size": 50, "seed": 0, "shuffle": True, "drop_last": False}
    with open_loader("stream", tmp_path, "train", prepared.transform, **options) as loader:
        path.rename(tmp_path / "aside")
        shutil.copy(tmp_path / "aside", path)
        with pytest.raises(UserError, match=r"train\.beton was changed"):
            next(loader.epoch(0))


def test_a_file_that_ffcv_cannot_read_is_a_user_error(tmp_path):
    path = tmp_path / "train.beton"
    path.write_bytes(b"not a beton, but long enough for a header " * 3)
    with pytest.raises(UserError, match=r"FFCV cannot read .*train\.beton"):
        ffcv_guard.FfcvFile(path, 10)


def test_indices_outside_the_file_are_refused(prepared):
    file = ffcv_guard.FfcvFile(prepared.folder / "train.beton", 10)
    for wrong in (-1, 1003):
        with pytest.raises(IndexError, match="1003"), file.read(np.array([0, wrong])):
            pass
    file.close()


def test_without_ffcv_the_message_names_the_other_loader(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, "ffcv.pipeline.compiler", None)
    with prepared.open("stream") as loader, pytest.raises(UserError, match="resident"):
        next(loader.epoch(0))


def test_no_epoch_begins_on_a_file_that_was_closed(prepared):
    # its descriptor may be another file's by then
    file = ffcv_guard.FfcvFile(prepared.folder / "train.beton", 10)
    file.close()
    with pytest.raises(UserError, match=r"train\.beton was closed by another thread"), file.read(np.arange(10)):
        pass
