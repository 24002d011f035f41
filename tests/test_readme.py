"""README and docs keep their promises: links lead somewhere, the code runs, figures are in committed results."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastcifar.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
USAGE = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
PAGES = [README, ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page: Path):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_figures_of_the_result_table_are_those_of_the_committed_records():
    """Each row names its result file; its accuracies and seconds must be that file's, rounded."""
    rows = re.findall(r"^\|.*\]\((bench/results/[\w.-]+\.json)\).*$", README.read_text(), re.MULTILINE)
    lines = re.findall(r"^\|.*\]\(bench/results/[\w.-]+\.json\).*$", README.read_text(), re.MULTILINE)
    assert len(rows) >= 3
    for name, line in zip(rows, lines, strict=True):
        result = json.loads((ROOT / name).read_text())
        assert result["dataset"] == "cifar10"
        for figure in (
            f"{100 * result['test_accuracy']['mean']:.2f}%",
            f"{100 * result['test_accuracy_tta']['mean']:.2f}%",
            *(f"{result['clock'][clock]['median']:.0f} s" for clock in ("train_s", "run_s", "process_s")),
            f"n = {result['n']}",
        ):
            assert figure in line, f"{name}: {figure} is not in the README's row"


def test_the_code_in_the_usage_page_runs(
    small_data: Path, finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "data").symlink_to(small_data)
    (tmp_path / "runs").symlink_to(finished.config.runs)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"images_nhwc": np.zeros((256, 32, 32, 3), np.uint8)}
    for block in re.findall(r"```python\n(.*?)```", USAGE, re.DOTALL):
        exec(block, names)
    assert names["images"].shape == (512, 3, 32, 32)
    assert names["labels"].dtype == torch.int64
    assert names["batch"].shape == (256, 3, 24, 24)
    assert names["batch"].is_contiguous(memory_format=torch.channels_last)
    assert names["wrong"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_commands_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"(?:^    |`)fastcifar ([a-z-]+)", text, re.MULTILINE):
        assert command in COMMANDS, command
    for module in re.findall(r"python -m ((?:fastcifar|bench)(?:\.\w+)?)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
