"""FFCV has no side effects on the process, and files that would crash it are refused."""

import shutil
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest
import torch

from fastcifar.errors import UserError
from fastcifar.loader import LoaderOptions, ffcv_guard, open_loader


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
    # `stream` has imported FFCV already; test_stream_process.py checks the first import
    from ffcv.pipeline.compiler import Compiler

    def counts():
        return torch.get_num_threads(), numba.get_num_threads()

    before, seen = Compiler.num_threads, []
    with prepared.open("stream") as loader:
        for epoch in (0, 1):
            batches = loader.epoch(epoch)
            seen.append(counts())
            seen += [counts() for _ in batches]
    seen.append(counts())
    assert set(seen) == {odd_thread_counts}
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen[-1] == odd_thread_counts[0]  # new threads inherit it
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
from fastcifar.loader import LoaderOptions, open_loader

folder = Path(sys.argv[1])
pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
theirs = Loader(str(folder / "train.beton"), 100, num_workers=1, seed=0, pipelines=pipelines, drop_last=False)
Compiler.num_threads = 5
transform = Transform(AugmentConfig(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
options = LoaderOptions(batch_size=50, seed=7, shuffle=True, drop_last=False)
with open_loader("stream", folder, "train", transform, options) as ours:
    next(ours.epoch(0))
assert Compiler.num_threads == 5
print(*np.concatenate([labels[:, 0].copy() for _, labels in theirs]))
"""


def test_other_users_of_ffcv_are_left_alone(prepared):
    # FFCV's own Loader, built before ours and compiled after it, still works and keeps its setting. It runs in another
    # process, because it marks one of numba's types, which breaks code that was compiled before.
    command = [sys.executable, "-c", THEIRS, str(prepared.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(label) for label in prepared.raw.train.labels]


def test_global_random_generators_are_not_touched(prepared):
    def numpy_state():
        return np.random.get_state(legacy=False)["state"]["key"].copy()  # type: ignore  # noqa: NPY002  (on purpose)

    states = numpy_state(), torch.get_rng_state()
    with prepared.open("stream") as loader:
        list(loader.epoch(0))
    assert np.array_equal(numpy_state(), states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


def test_numba_compiles_and_dispatches_1d_bytes_as_before(prepared):
    flat = np.arange(100, dtype=np.uint8)
    held = numba.njit(lambda x: x[0])  # FFCV breaks code for 1-D bytes that is alive when a Loader is built
    held(flat)
    with prepared.open("stream") as loader:
        next(loader.epoch(0))
        assert numba.uint8[::1].mutable
        assert numba.njit("uint8(uint8[::1])")(lambda x: x[3])(flat) == 3


def test_a_file_that_is_replaced_after_opening_is_refused(tmp_path, prepared):
    shutil.copytree(prepared.folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "train.beton"
    options = LoaderOptions(batch_size=50, seed=0, shuffle=True, drop_last=False)
    with open_loader("stream", tmp_path, "train", prepared.transform, options) as loader:
        path.rename(tmp_path / "aside")
        shutil.copy(tmp_path / "aside", path)
        with pytest.raises(UserError, match=r"train\.beton was changed"):
            next(loader.epoch(0))


def test_a_file_that_ffcv_cannot_read_is_a_user_error(tmp_path):
    path = tmp_path / "train.beton"
    path.write_bytes(b"not a beton, but long enough for a header " * 3)
    with pytest.raises(UserError, match=r"FFCV.*train\.beton"):
        ffcv_guard.FfcvFile(path, 10)


def test_indices_outside_the_file_are_refused(prepared):
    file = ffcv_guard.FfcvFile(prepared.folder / "train.beton", 10)
    for wrong in (-1, 1003):
        with pytest.raises(IndexError, match="1003"), file.read(np.array([0, wrong])):
            pass
    file.close()


def test_without_ffcv_the_error_names_the_other_loader(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, "ffcv.pipeline.compiler", None)
    with prepared.open("stream") as loader, pytest.raises(UserError, match="resident"):
        next(loader.epoch(0))


def test_a_closed_file_refuses_to_read(prepared):
    # its descriptor may belong to another file by then
    file = ffcv_guard.FfcvFile(prepared.folder / "train.beton", 10)
    file.close()
    with pytest.raises(UserError, match=r"train\.beton was closed"), file.read(np.arange(10)):
        pass
