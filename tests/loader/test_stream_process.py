"""What needs a fresh process: the first import of FFCV, and the end of the interpreter during an epoch."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading
from pathlib import Path
import fastcifar.loader, fastcifar.loader.stream, fastcifar.loader.resident
import numba, torch
from fastcifar.augment.transform import Transform
from fastcifar.config import AugmentConfig
from fastcifar.loader import LoaderOptions, base, open_loader

def counts():
    return torch.get_num_threads(), numba.get_num_threads()

def opened(kind):
    options = LoaderOptions(batch_size=50, seed=7, shuffle=True, drop_last=False)
    return open_loader(kind, Path(sys.argv[1]), "train", transform, options)

base.IMAGES_PER_READ = 1  # each batch is a read of its own
torch.set_num_threads(3)
transform = Transform(AugmentConfig(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
wanted = counts()
resident = [labels.tolist() for _, labels in opened("resident").epoch(0)]
assert "ffcv" not in sys.modules, "FFCV was imported too early"
loader = opened("stream")
first, second = loader.epoch(0), loader.epoch(0)
found = [[], []]
for _ in range(6):
    for batches, labels in ((first, found[0]), (second, found[1])):
        labels.append(next(batches)[1].tolist())
        assert counts() == wanted, (counts(), wanted)
assert "ffcv" in sys.modules
assert found == [resident[:6]] * 2
assert threading.active_count() == 3
cycle = [loader.epoch(2)]
cycle.append(cycle)
next(cycle[0])

@numba.njit
def kept_until_exit():  # keeps the globals of this script alive, so that the epochs outlive most modules
    return 1

kept_until_exit()
print(numba.threading_layer())
"""


@pytest.mark.parametrize(
    ("layer", "last_line", "code", "errors"),
    [
        ("workqueue", "for batch in loader.epoch(3): sys.exit('mine')", 1, "mine\n"),
        pytest.param("default", "", 0, "", marks=pytest.mark.slow),
    ],
    ids=["sys.exit", "end of the script"],
)
def test_a_process_ends_cleanly_during_an_epoch(prepared, layer, last_line, code, errors):
    # numba falls back to `workqueue` without TBB and OpenMP; it aborts if two threads run parallel code
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    command = [sys.executable, "-W", "error", "-c", SCRIPT + last_line, str(prepared.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (code, errors)
    if layer != "default":
        assert done.stdout.strip() == layer
