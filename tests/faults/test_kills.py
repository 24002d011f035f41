"""`kill -9` at random moments: every run still ends in the weights of one that nobody touched."""

from pathlib import Path

import pytest
from kills import Soak, arguments, soak


def check(result: Soak, kills: int) -> None:
    print(result)
    assert result.kills == kills
    assert result.different == []
    assert len(set(result.moments)) > 1


def test_a_few_kills(small_data: Path, tmp_path: Path) -> None:
    check(soak(arguments(small_data, 12), tmp_path, kills=3, seed=1), 3)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_fifty_kills(small_data: Path, tmp_path: Path) -> None:
    check(soak(arguments(small_data, 40), tmp_path, kills=50, seed=2), 50)
