"""The architecture, read from the import statements: one direction, nothing heavy, nothing done at import."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "fastcifar"
LAYERS = (
    ("errors",),
    ("files",),
    ("config",),
    ("runtime",),
    ("rng",),
    ("data",),
    ("augment",),
    ("nn",),
    ("loader",),
    ("models",),
    ("optim",),
    ("schedules",),
    ("evaluation",),
    ("recipes",),
    ("runs",),
    ("training",),
    ("analysis",),
    ("export",),
    ("api",),
    ("cli",),
    ("prepare", "train", "__main__"),
)
"""From the lowest: a module imports its own layer and lower ones."""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def layer_of(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fastcifar."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fastcifar.")}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path):
    own = layer_of(path)
    for name in imports_of(path) - {own}:
        assert LEVEL[name] < LEVEL[own], f"{path.relative_to(ROOT)} imports the higher layer {name}"


def test_ffcv_is_named_only_where_it_belongs():
    allowed = {"data", "loader"}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names.append(node.module)
            if any(name.split(".")[0] == "ffcv" for name in names):
                assert layer_of(path) in allowed, path


KERNELS = (
    "augment/kernel_cpu.py",
    "augment/kernel_cuda.py",
    "runtime/simd",
    "nn/norm_act.py",
    "nn/winograd/",
    "nn/amx/",
)
"""Compiled code, whose functions take the addresses and strides of all their arrays."""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    is_kernel = str(path.relative_to(ROOT)).startswith(KERNELS)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and not is_kernel:
            parameters = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
            assert len(parameters) <= 8, node.name
            assert (node.end_lineno or 0) - node.lineno < 40, node.name


def test_import_does_nothing():
    """No device probe, no thread change, no compilation, no FFCV: only names are defined."""
    code = """
import json, sys, torch, numba
before = torch.get_num_threads(), numba.get_num_threads()
probed = []
torch.cuda.is_available = lambda: probed.append(1) or False
import fastcifar.training.trainer, fastcifar.train, fastcifar.prepare, fastcifar.cli.predict, fastcifar.cli.evaluate
import fastcifar.augment.kernel_cpu, fastcifar.analysis.curves, fastcifar.cli.doctor, fastcifar.loader.stream
from fastcifar.augment import kernel_cpu
print(json.dumps({
    "threads": before == (torch.get_num_threads(), numba.get_num_threads()),
    "probed": len(probed), "ffcv": "ffcv" in sys.modules, "pyplot": "matplotlib.pyplot" in sys.modules,
    "compiled": kernel_cpu.kernel.cache_info().currsize + len(kernel_cpu.hash64.signatures),
}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"threads": True, "probed": 0, "ffcv": False, "pyplot": False, "compiled": 0}


def test_importing_the_package_is_light():
    code = "import sys, fastcifar; print(sorted({'torch', 'numba', 'numpy', 'ffcv'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
