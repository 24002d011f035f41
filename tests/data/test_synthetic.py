"""The synthetic set is the same on every machine, and its classes differ by shape, not by mean colour."""

import hashlib

import numpy as np
import pytest

from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.errors import UserError


def test_same_bytes_on_every_machine() -> None:
    raw = synthetic_set(train=300, test=100, seed=7)
    assert raw.source.seed == 7
    digest = hashlib.sha256(raw.train.images_nhwc.tobytes() + raw.test.images_nhwc.tobytes()).hexdigest()
    assert digest == "a164ad63abb947586560f7d48f6b61a96483cca015dbe5384119f49a0e996953"
    assert raw.train.images_nhwc.tobytes() != synthetic_set(train=300, test=10, seed=8).train.images_nhwc.tobytes()


def test_a_sample_does_not_depend_on_the_number_of_samples() -> None:
    small, large = synthetic_set(train=50, test=10), synthetic_set(train=2100, test=10)  # 2100 is more than a chunk
    np.testing.assert_array_equal(small.train.images_nhwc, large.train.images_nhwc[:50])


def test_mean_colour_predicts_nothing() -> None:
    raw = synthetic_set(train=2000, test=1000)
    assert np.bincount(raw.train.labels).tolist() == [200] * 10
    train = {image.tobytes() for image in raw.train.images_nhwc}
    assert len(train) == 2000
    assert not train & {image.tobytes() for image in raw.test.images_nhwc}
    features = {}
    for name in ("train", "test"):
        pixels = raw.split(name).images_nhwc.reshape(len(raw.split(name)), -1, 3) / 255.0
        features[name] = np.concatenate([pixels.mean(1), pixels.std(1), np.ones((len(pixels), 1))], 1)
    weights = np.linalg.lstsq(features["train"], np.eye(10)[raw.train.labels], rcond=None)[0]
    accuracy = ((features["test"] @ weights).argmax(1) == raw.test.labels).mean()
    assert accuracy < 0.25  # chance is 0.1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"train": 5}, "5 train samples"),
        ({"test": 0}, "0 test samples"),
        ({"seed": -1}, "seed .* -1"),
        ({"seed": 1 << 63}, "seed .* 9223372036854775808"),
    ],
)
def test_bad_options(options: dict[str, int], text: str) -> None:
    with pytest.raises(UserError, match=text):
        synthetic_set(**options)
