"""The number of steps of a run, and the image size of each."""

import pytest

from fastcifar.training.steps import resolution, total_steps


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "steps"), [(24, 97, 2328), (0.5, 97, 48), (1.51, 100, 151), (1e-9, 97, 1), (2.0, 1, 2)]
)
def test_total_steps(epochs: float, per_epoch: int, steps: int) -> None:
    assert total_steps(epochs, per_epoch) == steps


def test_resolution_changes_at_the_ends_of_its_stages() -> None:
    stages = ((0.4, 16), (0.6, 20), (1.0, 32))
    assert [resolution(step, 10, stages) for step in range(10)] == [16, 16, 16, 16, 20, 20, 32, 32, 32, 32]
    assert [resolution(step, 3, stages) for step in range(3)] == [16, 16, 32]
    assert resolution(0, 1, stages) == 16
    assert {resolution(step, 50, ((1.0, 24),)) for step in range(50)} == {24}
