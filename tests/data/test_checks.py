"""Channel statistics, and the checks of a prepared folder."""

import os
from pathlib import Path

import numpy as np
import pytest

from fastcifar.data import checks
from fastcifar.data.prepared import checked_beton
from fastcifar.data.raw_set import channel_statistics
from fastcifar.errors import UserError


def test_statistics_are_exact() -> None:
    images = np.random.default_rng(5).integers(0, 256, (5000, 32, 32, 3), np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2), np.float64) / 255, rtol=1e-12)
    np.testing.assert_allclose(std, images.std((0, 1, 2), np.float64) / 255, rtol=1e-12)


def test_a_constant_channel_is_refused() -> None:
    images = np.random.default_rng(5).integers(0, 256, (10, 32, 32, 3), np.uint8)
    images[..., 1] = 9
    with pytest.raises(UserError, match="green value, 9"):
        channel_statistics(images)


def test_a_changed_file_is_noticed(prepared: Path) -> None:
    path = checked_beton(prepared, "train")
    assert path == prepared / "train.beton"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}"):
        checked_beton(prepared, "train")
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"size is {len(content) - 1} bytes, expected {len(content)}"):
        checked_beton(prepared, "train")
    path.unlink()
    with pytest.raises(UserError, match=r"train\.beton is missing"):
        checked_beton(prepared, "train")


def test_the_sha256_is_computed_once(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked_beton(prepared, "train")

    def fail(*_: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr(checks, "check_sha256", fail)
    checked_beton(prepared, "train")
    monkeypatch.setattr(checks, "_verified_here", {})  # as in another process
    checked_beton(prepared, "train")
    os.utime(prepared / "train.beton", ns=(0, 0))
    with pytest.raises(AssertionError, match="hashed again"):
        checked_beton(prepared, "train")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"train": 5}', b"\xff", b'{"train": null}'])
def test_a_damaged_verified_file_is_ignored(content: bytes, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_verified_here", {})
    (prepared / ".verified.json").write_bytes(content)
    checked_beton(prepared, "train")


def test_a_read_only_folder_is_no_error(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks, "_verified_here", {})
    monkeypatch.setattr(checks, "write_json", refuse)
    (prepared / ".verified.json").unlink()
    checked_beton(prepared, "train")
    assert not (prepared / ".verified.json").exists()
