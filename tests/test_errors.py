"""Messages about a value that is no choice."""

import pytest

from fastcifar.errors import choose_one


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("cpu9O", "did you mean 'cpu90'? choose one of cpu90, Fast94"),
        ("fats94", "did you mean 'Fast94'? choose one of cpu90, Fast94"),
        ("resnet", "choose one of cpu90, Fast94"),
        ("", "choose one of cpu90, Fast94"),
        (90, "choose one of cpu90, Fast94"),
        (["cpu90"], "choose one of cpu90, Fast94"),
    ],
)
def test_the_nearest_choice_is_named_first(value: object, said: str) -> None:
    assert choose_one(value, iter(("cpu90", "Fast94"))) == said
