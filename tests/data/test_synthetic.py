"""The synthetic set: the same bytes for a seed, learnable, and not by its mean colour."""

import hashlib

import numpy as np
import pytest

from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import UserError


def test_same_seed_same_bytes() -> None:
    raw = synthetic_set(train=300, test=100, seed=7)
    assert raw.train.images_nhwc.tobytes() == synthetic_set(train=300, test=100, seed=7).train.images_nhwc.tobytes()
    assert raw.train.images_nhwc.tobytes() != synthetic_set(train=300, test=100, seed=8).train.images_nhwc.tobytes()
    assert raw.source.seed == 7
    # the same on every machine and in every later version
    digest = hashlib.sha256(raw.train.images_nhwc.tobytes() + raw.test.images_nhwc.tobytes()).hexdigest()
    assert digest == "a164ad63abb947586560f7d48f6b61a96483cca015dbe5384119f49a0e996953"


def test_a_sample_does_not_depend_on_how_many_there_are() -> None:
    small, large = synthetic_set(train=50, test=10), synthetic_set(train=3000, test=20)
    np.testing.assert_array_equal(small.train.images_nhwc, large.train.images_nhwc[:50])


def test_train_and_test_share_nothing() -> None:
    raw = synthetic_set(train=2000, test=2000)
    train = {image.tobytes() for image in raw.train.images_nhwc}
    assert len(train) == 2000
    assert not train & {image.tobytes() for image in raw.test.images_nhwc}


def test_classes_are_balanced() -> None:
    raw = synthetic_set(train=1000, test=100)
    assert np.bincount(raw.train.labels).tolist() == [100] * 10
    assert len(raw.class_names) == 10


def test_mean_colour_tells_nothing() -> None:
    raw = synthetic_set(train=4000, test=1000)
    features = {}
    for name in ("train", "test"):
        pixels = raw.split(name).images_nhwc.reshape(len(raw.split(name)), -1, 3) / 255.0
        features[name] = np.concatenate([pixels.mean(1), pixels.std(1), np.ones((len(pixels), 1))], 1)
    targets = np.eye(10)[raw.train.labels]
    weights = np.linalg.lstsq(features["train"], targets, rcond=None)[0]
    accuracy = ((features["test"] @ weights).argmax(1) == raw.test.labels).mean()
    assert accuracy < 0.25  # chance is 0.1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"train": 5}, "was to have 5 train samples, expected 10"),
        ({"test": 0}, "was to have 0 test samples"),
        ({"seed": -1}, "seed of the synthetic set is -1"),
        ({"seed": 1 << 63}, "seed of the synthetic set is"),
    ],
)
def test_bad_options(options: dict[str, int], text: str) -> None:
    with pytest.raises(UserError, match=text):
        synthetic_set(**options)
