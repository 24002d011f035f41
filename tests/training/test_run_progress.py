"""What a run shows of itself: fractions by pixels, figures once they are known, a test accuracy that stays."""

import io
from typing import Any

import pytest
import torch

from fastcifar.config import Config
from fastcifar.training.history import History
from fastcifar.training.run_progress import RunProgress


class Updates:
    """Keeps what a display is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float | None, dict[str, str]]] = []

    def update(self, done: float, fraction: float | None = None, **fields: str) -> None:
        self.seen.append((done, fraction, fields))


def started(dataset: str = "cifar10", **changes: Any) -> tuple[Updates, RunProgress, History]:
    bar = Updates()
    config = Config(epochs=5, resolution=((0.6, 16), (1.0, 32)), **changes)
    shown = RunProgress(bar, config, total=10, steps_per_epoch=2, dataset=dataset)
    return bar, shown, History(io.StringIO(), total=10, batch_size=4, classes=10)


def test_the_fraction_counts_pixels() -> None:
    """Six steps at 16 pixels cost as much as one and a half at 32."""
    bar, shown, history = started()
    for done in range(1, 11):
        shown.show(done, history)
    expected = [0.25 * step / 5.5 for step in range(1, 7)] + [(1.5 + step) / 5.5 for step in range(1, 5)]
    assert [fraction for _, fraction, _ in bar.seen] == pytest.approx(expected)
    assert [done for done, _, _ in bar.seen] == list(range(1, 11))


def test_figures_are_shown_once_they_are_known() -> None:
    bar, shown, history = started()
    shown.show(1, history)
    history.add({"step": 0, "lr": 1.0}, torch.tensor(2.25), torch.tensor(3))
    history.flush()
    shown.show(2, history)
    shown.tested(0.4567)
    shown.show(3, history)
    assert [fields for _, _, fields in bar.seen] == [
        {"epoch": "0.50/5"},
        {"epoch": "1.00/5", "loss": "2.250", "acc": "75.0%"},
        {"epoch": "1.50/5", "loss": "2.250", "acc": "75.0%", "test": "45.7%"},
    ]


def test_a_synthetic_set_is_named() -> None:
    bar, shown, history = started(dataset="synthetic")
    shown.show(1, history)
    assert bar.seen[0][2]["data"] == "synthetic"
