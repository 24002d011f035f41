"""The README keeps its promises: the tree names every file, its figures are in committed results."""

import json
import re
from pathlib import Path

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
