"""Metrics of a run: what is written, what is averaged, and the two reasons to stop."""

import io
import json

import pytest
import torch

from fastcifar.errors import RunFailedError
from fastcifar.training.history import History


def history(total: int = 90, batch_size: int = 100, classes: int = 10) -> History:
    return History(io.StringIO(), total=total, batch_size=batch_size, classes=classes)


def add(to: History, step: int, loss: float = 1.0, num_correct: int = 50) -> None:
    to.add({"step": step, "epoch": step / 10, "lr": 0.5}, torch.tensor(loss), torch.tensor(num_correct))


def lines(of: History) -> list[dict[str, object]]:
    assert isinstance(of.file, io.StringIO)
    return [json.loads(line) for line in of.file.getvalue().splitlines()]


def test_a_flush_writes_a_line_a_step() -> None:
    run = history()
    add(run, 0, 2.5, 10)
    add(run, 1, 1.5, 30)
    assert lines(run) == []
    run.flush()
    expected = [
        {"kind": "step", "step": 0, "epoch": 0.0, "lr": 0.5, "loss": 2.5, "train_accuracy": 0.1},
        {"kind": "step", "step": 1, "epoch": 0.1, "lr": 0.5, "loss": 1.5, "train_accuracy": 0.3},
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
        assert run.end_epoch() == (4.5 + 10 * epoch, pytest.approx(0.425))


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_ends_the_run(loss: float) -> None:
    run = history()
    add(run, 7)
    add(run, 8, loss)
    add(run, 9)
    with pytest.raises(RunFailedError) as caught:
        run.flush()
    assert str(caught.value) == (
        f"the loss is {loss} at step 8 of 90, learning rate 0.5; lower the learning rate, or try --amp float32"
    )
    assert [line["loss"] for line in lines(run)] == [1.0, None, 1.0]  # kept for the autopsy; JSON has no NaN


def go_on(run: History, steps: int, num_correct: int) -> None:
    for step in range(steps):
        add(run, step, num_correct=num_correct)
        run.flush()


def test_a_run_at_chance_ends_after_a_third_of_its_steps() -> None:
    run = history(total=180, batch_size=1000)
    with pytest.raises(RunFailedError) as caught:
        go_on(run, 180, num_correct=110)
    assert str(caught.value) == (
        "after 60 of 180 steps the training accuracy is 11.0%, no better than guessing among 10 classes; "
        "change the learning rate, or look at the data"
    )
    assert len(lines(run)) == 60


@pytest.mark.parametrize(("num_correct", "classes"), [(120, 10), (300, 4), (540, 2), (30, 100)])
def test_a_run_that_learns_a_little_goes_on(num_correct: int, classes: int) -> None:
    go_on(history(total=180, batch_size=1000, classes=classes), 180, num_correct)


@pytest.mark.parametrize(("num_correct", "classes"), [(260, 4), (520, 2), (10, 100)])
def test_chance_depends_on_the_number_of_classes(num_correct: int, classes: int) -> None:
    with pytest.raises(RunFailedError, match=f"guessing among {classes} classes"):
        go_on(history(total=180, batch_size=1000, classes=classes), 180, num_correct)


def test_late_learning_counts() -> None:
    """Only the last 5000 images before the judgement are looked at."""
    run = history(total=300, batch_size=1000)
    for step in range(300):
        add(run, step, num_correct=100 if step < 50 else 600)
        run.flush()


def test_a_run_is_judged_once() -> None:
    run = history(total=180, batch_size=1000)
    for step in range(180):
        add(run, step, num_correct=600 if step < 60 else 0)
        run.flush()


def test_too_few_images_are_not_judged() -> None:
    """10% of 200 images says little about a run that has only begun to learn."""
    go_on(history(total=6, batch_size=50), 6, num_correct=5)


def test_the_first_epoch_of_cifar10_is_not_judged() -> None:
    go_on(history(total=97, batch_size=512), 97, num_correct=40)


def test_batches_larger_than_the_window() -> None:
    with pytest.raises(RunFailedError, match=r"after 5 of 6 steps the training accuracy is 10\.0%"):
        go_on(history(total=6, batch_size=10_000), 6, num_correct=1000)
