"""What only shows in a process of its own: the first import of FFCV, and the interpreter's end in mid-epoch."""

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
from fastcifar.loader import open_loader, protocol

def counts():
    return torch.get_num_threads(), numba.get_num_threads()

def opened(kind):
    options = dict(batch_size=50, seed=7, shuffle=True, drop_last=False)
    return open_loader(kind, Path(sys.argv[1]), "train", transform, **options)

protocol.TOGETHER = 1  # each batch is a read of its own
torch.set_num_threads(3)
transform = Transform(AugmentConfig(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
wanted = counts()
resident = [labels.tolist() for _, labels in opened("resident").epoch(0)]
assert "ffcv" not in sys.modules, "FFCV is imported without need"
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
def alive_to_the_very_end():  # and with it all names of this script, so that the epochs outlive most modules
    return 1

alive_to_the_very_end()
print(numba.threading_layer())
"""


@pytest.mark.parametrize(
    ("layer", "last_line", "code", "errors"),
    [("default", "", 0, ""), ("workqueue", "for batch in loader.epoch(3): sys.exit('mine')", 1, "mine\n")],
    ids=["end of the script, default layer", "sys.exit, workqueue"],
)
def test_a_fresh_process_ends_cleanly_in_mid_epoch(prepared, layer, last_line, code, errors):
    # `workqueue` is numba's layer where neither TBB nor OpenMP is found; it aborts when two threads run parallel code
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    command = [sys.executable, "-W", "error", "-c", SCRIPT + last_line, str(prepared.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (code, errors)
    if layer != "default":
        assert done.stdout.strip() == layer
