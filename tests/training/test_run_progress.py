"""The display of a run: fractions of pixels, loss and accuracy once they are read, a test accuracy that stays."""

import contextlib
import io
from dataclasses import replace
from typing import Any

import pytest
import torch

from fastcifar.config import Config
from fastcifar.runtime.device import select_runtime
from fastcifar.training import run_progress
from fastcifar.training.context import RunContext
from fastcifar.training.history import History

HISTORY = {"total": 12, "batch_size": 4, "classes": 10}


class Display:
    """Records updates instead of showing them."""

    def __init__(self) -> None:
        self.updates: list[Any] = []

    def progress(self, *_: object, begin: float, **__: object) -> contextlib.AbstractContextManager["Display"]:
        self.updates.append(begin)
        return contextlib.nullcontext(self)

    def update(self, done: float, fraction: float, **fields: str) -> None:
        self.updates.append((done, fraction, fields))


@pytest.mark.parametrize(("first", "dataset"), [(0, "cifar10"), (8, "synthetic")])
def test_what_a_run_displays(first: int, dataset: Any, tiny: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    display, history = Display(), History(io.StringIO(), **HISTORY)
    monkeypatch.setattr(run_progress, "progress", display.progress)
    config = replace(tiny, epochs=1, resolution=((0.5, 16), (1.0, 32)))
    context = RunContext(config, select_runtime(config))
    context.manifest = replace(context.manifest, dataset=dataset)
    monkeypatch.setattr(run_progress, "SHOW_EVERY_S", 0)
    with run_progress.run_progress(context, first) as shown:
        shown.show(9, history)
        history.add({"step": 0, "lr": {"all": 1.0}}, torch.tensor(2.25), torch.tensor(3))
        history.flush()
        shown.show(10, history)
        shown.show_test_accuracy(0.4567)
        shown.show(12, history)
    begin, *updates = display.updates
    expected = [1 - left * 32**2 / (6 * 16**2 + 6 * 32**2) for left in (4, 3, 2, 0)]  # the last 6 steps have 32 pixels
    assert begin == (pytest.approx(expected[0]) if first else 0)
    assert [fraction for _, fraction, _ in updates] == pytest.approx(expected[1:])
    mark = {} if dataset == "cifar10" else {"data": dataset}
    assert [(done, fields) for done, _, fields in updates] == [
        (9, {"epoch": "0.75/1", **mark}),
        (10, {"epoch": "0.83/1", "loss": "2.250", "acc": "75.0%", **mark}),
        (12, {"epoch": "1.00/1", "loss": "2.250", "acc": "75.0%", "test": "45.7%", **mark}),
    ]
