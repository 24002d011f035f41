"""The README keeps its promises: the tree names every file, the code runs, figures are in committed results."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_names_every_module_with_a_line():
    tree = README.split("## The tree")[1].split("```")[1]
    named = set(re.findall(r"[\w.]+\.py", tree))
    for folder in ("fastcifar", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "__init__.py":
                assert path.name in named, f"{path.relative_to(ROOT)} is missing from the README's tree"
    existing = {
        path.name for folder in ("fastcifar", "bench", "tests", "tools") for path in (ROOT / folder).rglob("*.py")
    }
    assert named <= existing, f"the README's tree names {named - existing}, which are not there"


def test_linked_files_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_figures_of_the_result_table_are_those_of_the_committed_records():
    """Each row of the first table names its result file; accuracy and seconds must be that file's, rounded."""
    rows = re.findall(r"^\|.*\]\((bench/results/[\w.-]+)\).*$", README, re.MULTILINE)
    assert rows
    for line in README.splitlines():
        found = re.search(r"\]\((bench/results/[\w.-]+\.json)\)", line)
        if not line.startswith("|") or not found:
            continue
        result = json.loads((ROOT / found[1]).read_text())
        assert result["dataset"] == "cifar10"
        for figure in (
            f"{100 * result['test_accuracy']['mean']:.2f}%",
            f"{100 * result['test_accuracy_tta']['mean']:.2f}%",
            f"{result['clock']['train_s']['median']:.0f} s",
            f"{result['clock']['run_s']['median']:.0f} s",
            f"{result['clock']['process_s']['median']:.0f} s",
            f"n = {result['n']}",
        ):
            assert figure in line, f"{found[1]}: {figure} is not in the README's row"


def test_the_code_in_it_runs(small_data: Path, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "data").symlink_to(small_data)
    (tmp_path / "runs").symlink_to(finished.config.runs)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"images_nhwc": np.zeros((256, 32, 32, 3), np.uint8)}
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(block, names)
    assert names["images"].shape == (512, 3, 32, 32)
    assert names["labels"].dtype == torch.int64
    assert names["batch"].shape == (256, 3, 24, 24)
    assert names["batch"].is_contiguous(memory_format=torch.channels_last)
    assert len(names["evaluation"].labels) == 200
    assert names["wrong"]


def test_every_command_it_names_is_there():
    for module in re.findall(r"python -m ((?:fastcifar|bench)(?:\.\w+)?)", README):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
