"""README and docs keep their promises: links lead somewhere, the code runs, figures are in committed results."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcifar.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "bench").glob("*.md"),
]
MOST_WORDS = 1300
"""Of the README: what a newcomer reads. The rest belongs in docs/."""

GIVEN = "images_nhwc = np.zeros((256, 32, 32, 3), np.uint8)"
"""What the examples take from the reader."""
OF_USAGE = """
assert images.shape == (512, 3, 32, 32)
assert labels.dtype == torch.int64
assert batch.shape == (256, 3, 24, 24)
assert batch.is_contiguous(memory_format=torch.channels_last)
assert wrong
"""
EXAMPLES = {
    "README.md": "assert images.shape[1:] == (3, 16, 16)",
    "docs/usage.md": OF_USAGE,
    "docs/extending.md": "",
    "docs/cpu-kernels.md": "",
    "docs/reproducibility.md": "assert sorted(order) == list(range(50_000))",
}
"""Pages whose Python blocks are programs, and what holds at the end."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_exist(page: Path):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_headings_exist(page: Path):
    for target, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], heading


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_figures_of_the_result_table_are_those_of_the_committed_records():
    """Each row names its result file; its recipe, target, accuracies, seconds and hardware are that file's, rounded."""
    rows = re.findall(r"^(\|.*\]\((bench/results/[\w.-]+\.json)\).*)$", README.read_text(), re.MULTILINE)
    assert len(rows) >= 3
    for line, name in rows:
        result = json.loads((ROOT / name).read_text())
        assert result["dataset"] == "cifar10"
        seconds = [f"{result['clock'][clock]['median']:.0f} s" for clock in ("train_s", "run_s", "process_s")]
        accuracies = {metric: shown_accuracy(result[metric]) for metric in ("test_accuracy", "test_accuracy_tta")}
        primary = result["primary_metric"]
        for figure in (
            f"| `{result['recipe']}` | {result['target']:.0%} |",
            *accuracies.values(),
            f"**{accuracies[primary]}**",
            " / ".join(seconds),
            f"{result['hardware']['threads']} cores",
            f"n = {result['n']}]",
        ):
            assert figure in line, f"{name}: {figure} is not in the README's row"


def shown_accuracy(accuracy: dict[str, float | None]) -> str:
    """As "90.47% ± 0.15", without an interval if there was one run."""
    interval = "" if accuracy["ci95"] is None else f" ± {100 * accuracy['ci95']:.2f}"
    return f"{100 * (accuracy['mean'] or 0):.2f}%{interval}"


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_examples_run(page: str, small_data: Path, tmp_path: Path):
    """As one program, in a folder with `data/` and images of a user. The commands of extending.md run too."""
    (tmp_path / "data").symlink_to(small_data)
    save_images(tmp_path)
    program = ["import numpy as np, torch", "from fastcifar.__main__ import main", GIVEN]
    text = (ROOT / page).read_text(encoding="utf-8")
    for kind, block, command in re.findall(r"(?ms)^```(\w+)\n(.*?)^```$|^    fastcifar ([^\n]*)$", text):
        if file := re.match(r"# file: (\S+)\n", block):
            (tmp_path / file[1]).write_text(block, encoding="utf-8")
        elif kind == "python":
            program.append(block)
        elif command and page == "docs/extending.md":
            program.append(f"main({shlex.split(command, comments=True)})")
    assert len(program) > 3
    (tmp_path / "page.py").write_text("\n".join([*program, EXAMPLES[page]]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path,
        # without a GPU, as the recipes for one have larger batches; on one core, as another test runs beside this one
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def save_images(folder: Path) -> None:
    """my.png, and my_images/ with two classes."""
    Image.new("RGB", (40, 30), "red").save(folder / "my.png")
    for split, count in (("train", 300), ("test", 30)):
        for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
            of_class = folder / "my_images" / split / name
            of_class.mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(0, 50, (30, 40, 3)) + colour
                Image.fromarray(pixels.astype(np.uint8)).save(of_class / f"{i}.png")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_commands_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"(?:^    |`)fastcifar ([a-z][a-z-]*)", text, re.MULTILINE):
        assert command in COMMANDS, command
    for module in re.findall(r"python -m ((?:fastcifar|bench)(?:\.\w+)?)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
