"""Run folders, records and the digest of weights."""

import json
import os
import re
from dataclasses import replace
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


def test_run_folders_are_new_and_say_what_they_are(tmp_path: Path) -> None:
    config = Config(recipe="resnet24", seed=12, runs=tmp_path / "a" / "b")
    folders = [make_run_folder(config) for _ in range(5)]
    assert len(set(folders)) == 5
    assert set((tmp_path / "a" / "b").iterdir()) == set(folders)
    for folder in folders:
        assert re.fullmatch(r"\d{8}-\d{6}-resnet24-12(-\d+)?", folder.name)


def test_a_run_folder_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for runs, reason in ((file, "File exists"), (file / "runs", "Not a directory")):
        with pytest.raises(UserError) as caught:
            make_run_folder(Config(runs=runs))
        assert str(caught.value) == f"cannot make a run folder in {runs}: {reason}; choose another --runs"


def write_record(folder: Path, text: str = "{}", age: float = 0) -> Path:
    folder.mkdir()
    (folder / "record.json").write_text(text)
    os.utime(folder / "record.json", (1e9 - age, 1e9 - age))
    return folder


def test_load_record(tmp_path: Path) -> None:
    assert load_record(write_record(tmp_path / "good", '{"seed": 3}')) == {"seed": 3}
    with pytest.raises(UserError) as caught:
        load_record(tmp_path)
    assert str(caught.value) == f"{tmp_path} holds no finished run: {tmp_path / 'record.json'} is missing"
    with pytest.raises(UserError, match=r"cannot read .*record.json: Expecting"):
        load_record(write_record(tmp_path / "cut", '{"seed": '))
    with pytest.raises(UserError, match=r"record.json is not the record of a run"):
        load_record(write_record(tmp_path / "list", "[1]"))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "record.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read .*record\.json: "):
        load_record(tmp_path / "odd")


def test_find_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(UserError) as caught:
        find_run("latest", runs)
    assert str(caught.value) == f"there is no finished run in {runs}; train one with `python -m fastcifar.train`"
    runs.mkdir()
    old, new = write_record(runs / "z-old", age=100), write_record(runs / "a-new")
    (runs / "unfinished").mkdir()
    assert find_run("latest", runs) == new
    assert find_run("z-old", runs) == old
    assert find_run(str(old), Path("/nowhere")) == old
    monkeypatch.chdir(runs)
    assert find_run("z-old", Path("elsewhere")) == Path("z-old")
    with pytest.raises(UserError) as caught:
        find_run("nix", runs)
    assert str(caught.value) == f"no run is called nix, neither as a path nor in {runs}"


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


def test_environment_can_be_written_as_json() -> None:
    runtime = Runtime(torch.device("cpu"), torch.float32, 2)
    found = json.loads(json.dumps(environment(runtime)))
    assert set(found) == {"versions", "hardware", "system", "cpu_kernels", "code_revision"}
    assert found["hardware"]["threads"] == 2
    assert found["hardware"]["cores"] == os.cpu_count()
    assert torch.__version__.startswith(found["versions"]["torch"])  # it adds what it was built for
    assert all(found["versions"][name] for name in ("fastcifar", "python", "numpy", "numba", "ffcv"))


def test_versions_and_revision() -> None:
    assert package_version("no-such-distribution") is None
    revision = code_revision()
    assert revision is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", revision)


def test_a_recipe_cannot_lead_out_of_the_runs_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot make a run folder in"):
        make_run_folder(replace(Config(runs=tmp_path / "runs"), recipe="../../x"))
