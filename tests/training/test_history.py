"""Metrics of a run: what is written, what is averaged, and when a run is stopped."""

import io
import json

import pytest
import torch

from fastcifar.errors import RunFailedError
from fastcifar.training.history import History


def history(total: int = 90, batch_size: int = 100, classes: int = 10) -> History:
    return History(io.StringIO(), total=total, batch_size=batch_size, classes=classes)


def add(to: History, step: int, loss: float = 1.0, num_correct: int = 50) -> None:
    to.add({"step": step, "epoch": step / 10, "lr": {"all": 0.5}}, torch.tensor(loss), torch.tensor(num_correct))


def lines(of: History) -> list[dict[str, object]]:
    assert isinstance(of.file, io.StringIO)
    return [json.loads(line) for line in of.file.getvalue().splitlines()]


def test_a_flush_writes_a_line_per_step() -> None:
    run = history()
    add(run, 0, 2.5, 10)
    add(run, 1, 1.5, 30)
    assert lines(run) == []
    run.flush()
    expected = [
        {"kind": "step", "step": 0, "epoch": 0.0, "lr": {"all": 0.5}, "loss": 2.5, "train_accuracy": 0.1},
        {"kind": "step", "step": 1, "epoch": 0.1, "lr": {"all": 0.5}, "loss": 1.5, "train_accuracy": 0.3},
    ]
    assert lines(run) == expected
    assert (run.loss, run.accuracy) == (2.0, pytest.approx(0.2))
    run.flush()
    assert lines(run) == expected


def test_the_means_of_an_epoch_are_over_all_its_steps_however_often_it_was_flushed() -> None:
    run = history()
    for epoch in range(2):
        for batch in range(10):
            add(run, 10 * epoch + batch, loss=batch + 10.0 * epoch, num_correct=5 * batch + 20)
            if batch in (2, 7):
                run.flush()
        run.end_epoch({"kind": "epoch", "epoch": epoch + 1})
        assert run.train_accuracy == pytest.approx(0.425)
        *_, last = lines(run)
        expected = {"kind": "epoch", "epoch": epoch + 1, "loss": 4.5 + 10 * epoch, "train_accuracy": run.train_accuracy}
        assert last == expected


class Late:
    """An event of a GPU that is behind."""

    def __init__(self) -> None:
        self.done = False

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = True


def test_what_a_gpu_has_not_computed_yet_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Late] = []
    monkeypatch.setattr("fastcifar.training.history._copied", lambda device: events.append(Late()) or events[-1])
    run = history()
    for step in range(4):
        add(run, step, num_correct=10 * step)
        if step % 2:
            run.end_epoch({"kind": "epoch", "epoch": step // 2})
    assert lines(run) == []
    add(run, 4)
    assert lines(run) == []
    events[0].done = True
    add(run, 5)
    assert [line["kind"] for line in lines(run)] == ["step", "step", "epoch"]
    assert run.train_accuracy == pytest.approx(0.05)
    run.flush()
    assert [line["kind"] for line in lines(run)] == ["step", "step", "epoch"] * 2 + ["step"] * 2
    assert run.train_accuracy == pytest.approx(0.25)
    assert [line["step"] for line in lines(run) if line["kind"] == "step"] == list(range(6))


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_ends_the_run(loss: float) -> None:
    run = history()
    add(run, 7)
    add(run, 8, loss)
    add(run, 9)
    with pytest.raises(RunFailedError) as caught:
        run.flush()
    assert f"{loss} at step 8 of 90, learning rate 0.5" in str(caught.value)
    assert [line["loss"] for line in lines(run)] == [1.0, None, 1.0]  # written before it stops; JSON has no NaN


def run_steps(run: History, steps: int, num_correct: int) -> None:
    for step in range(steps):
        add(run, step, num_correct=num_correct)
        run.flush()


def test_a_run_at_chance_ends_after_a_third_of_its_steps() -> None:
    run = history(total=180, batch_size=1000)
    with pytest.raises(RunFailedError, match=r"after 60 of 180 steps .* 11\.0%"):
        run_steps(run, 180, num_correct=110)
    assert len(lines(run)) == 60


@pytest.mark.parametrize(("num_correct", "classes"), [(120, 10), (300, 4), (540, 2), (30, 100)])
def test_a_run_that_learns_a_little_continues(num_correct: int, classes: int) -> None:
    run_steps(history(total=180, batch_size=1000, classes=classes), 180, num_correct)


@pytest.mark.parametrize(("num_correct", "classes"), [(260, 4), (520, 2), (10, 100)])
def test_chance_depends_on_the_number_of_classes(num_correct: int, classes: int) -> None:
    with pytest.raises(RunFailedError, match=f" {classes} classes"):
        run_steps(history(total=180, batch_size=1000, classes=classes), 180, num_correct)


def test_the_last_5000_images_before_the_check_count() -> None:
    """The check comes after 100 of these steps, and only once."""
    run = history(total=300, batch_size=1000)
    for step in range(300):
        add(run, step, num_correct=600 if 95 <= step < 100 else 0)
        run.flush()


@pytest.mark.parametrize(("total", "batch_size"), [(6, 50), (97, 512)])
def test_before_50_000_images_there_is_no_check(total: int, batch_size: int) -> None:
    run_steps(history(total=total, batch_size=batch_size), total, num_correct=0)


def test_batches_larger_than_the_window() -> None:
    with pytest.raises(RunFailedError, match=r"after 5 of 6 steps the training accuracy is 10\.0%"):
        run_steps(history(total=6, batch_size=10_000), 6, num_correct=1000)
