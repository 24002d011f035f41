"""`kill -9` at random moments: every resumed run still ends with the weights of an uninterrupted one."""

from pathlib import Path

import pytest
from kills import arguments, soak


@pytest.mark.parametrize(
    ("kills", "epochs"), [(2, 8), pytest.param(50, 40, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])]
)
def test_killed_runs_end_with_the_same_weights(kills: int, epochs: int, small_data: Path, tmp_path: Path) -> None:
    result = soak(arguments(small_data, epochs), tmp_path, kills=kills, seed=kills)
    print(result)
    assert result.kills == kills
    assert result.different == []
