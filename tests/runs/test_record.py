"""Run folders, records and the digest of weights."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.runs.record import (
    code_revision,
    environment,
    find_run,
    load_record,
    make_run_folder,
    package_version,
    weights_sha256,
)
from fastcifar.runtime.device import Runtime


def test_run_folders_are_new_and_named_by_recipe_and_seed(tmp_path: Path) -> None:
    config = Config(recipe="resnet24", seed=12, runs=tmp_path / "a" / "b")
    folders = [make_run_folder(config) for _ in range(5)]
    assert len(set(folders)) == 5
    assert set((tmp_path / "a" / "b").iterdir()) == set(folders)
    for folder in folders:
        assert re.fullmatch(r"\d{8}-\d{6}-resnet24-12(-\d+)?", folder.name)


@pytest.mark.parametrize(("runs", "recipe"), [("file", "smoke"), ("file/runs", "smoke"), ("runs", "../../x")])
def test_a_run_folder_that_cannot_be_made(runs: str, recipe: str, tmp_path: Path) -> None:
    """Among them one that would be outside of the runs folder."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=str(tmp_path / runs)):
        make_run_folder(Config(recipe=recipe, runs=tmp_path / runs))


def write_record(folder: Path, content: bytes = b"{}", age: float = 0) -> Path:
    folder.mkdir()
    (folder / "record.json").write_bytes(content)
    os.utime(folder / "record.json", (1e9 - age, 1e9 - age))
    return folder


def test_load_record(tmp_path: Path) -> None:
    assert load_record(write_record(tmp_path / "good", b'{"seed": 3}')) == {"seed": 3}
    (tmp_path / "empty").mkdir()
    for name, content in (("cut", b'{"seed": '), ("list", b"[1]"), ("bytes", b"\xff\xfe")):
        write_record(tmp_path / name, content)
    for name in ("empty", "cut", "list", "bytes"):
        with pytest.raises(UserError, match=str(tmp_path / name / "record.json")):
            load_record(tmp_path / name)


def test_find_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(UserError, match=str(runs)):
        find_run("latest", runs)
    runs.mkdir()
    old, new = write_record(runs / "z-old", age=100), write_record(runs / "a-new")
    (runs / "unfinished").mkdir()
    assert find_run("latest", runs) == new
    assert find_run("z-old", runs) == old
    assert find_run(str(old), Path("/nowhere")) == old
    monkeypatch.chdir(runs)
    assert find_run("z-old", Path("elsewhere")) == Path("z-old")
    with pytest.raises(UserError, match="nix"):
        find_run("nix", runs)


def state() -> dict[str, torch.Tensor]:
    return {
        "b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "a": torch.tensor(3),
        "c": torch.ones(2, 1, 3, 3).to(memory_format=torch.channels_last),
    }


def test_weights_digest_does_not_depend_on_order_or_layout() -> None:
    same = dict(reversed(state().items())) | {"c": torch.ones(2, 1, 3, 3), "b": state()["b"].t().contiguous().t()}
    assert weights_sha256(same) == weights_sha256(state())


@given(name=st.sampled_from(["a", "b", "c"]), byte=st.integers(0, 7), bit=st.integers(0, 7), element=st.integers(0, 17))
def test_any_bit_changes_the_weights_digest(name: str, byte: int, bit: int, element: int) -> None:
    changed = state()
    tensor = changed[name].contiguous().reshape(-1).view(torch.uint8)
    size = changed[name].element_size()
    tensor[element % changed[name].numel() * size + byte % size] ^= 1 << bit
    changed[name] = tensor.view(changed[name].dtype).reshape(changed[name].shape)
    assert weights_sha256(changed) != weights_sha256(state())


@pytest.mark.parametrize(
    "changed",
    [
        {"b": state()["b"].reshape(3, 2)},
        {"b": state()["b"].view(torch.int32)},
        {"d": torch.zeros(0)},
        {"a": torch.tensor([3])},
    ],
    ids=["shape", "type", "name", "dimensions"],
)
def test_shapes_types_and_names_change_the_weights_digest(changed: dict[str, torch.Tensor]) -> None:
    assert weights_sha256(state() | changed) != weights_sha256(state())


def test_environment_is_json_with_versions_hardware_and_revision() -> None:
    found = json.loads(json.dumps(environment(Runtime(torch.device("cpu"), torch.float32, 2))))
    assert set(found) == {"versions", "hardware", "system", "cpu_kernels", "code_revision"}
    assert (found["hardware"]["threads"], found["hardware"]["cores"]) == (2, os.cpu_count())
    assert torch.__version__.startswith(found["versions"]["torch"])  # which may add a build suffix
    assert all(found["versions"][name] for name in ("fastcifar", "python", "numpy", "numba", "ffcv"))
    assert package_version("no-such-distribution") is None
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", code_revision() or "0" * 40)
