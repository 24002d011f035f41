"""`python -m bench gpu`: all that is worth measuring on a GPU, most important first, within a number of minutes.

Every stage is a command of its own with a limit of its own; what fails stops nothing. Results and the outcome of each
stage are written as they come, and the same command resumes. On a CPU, and with --quick, everything runs in a small
way, to check that it works.
"""

import json
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from bench.headlines import headline
from bench.measure import source_digest
from bench.stage_runner import FAILED, OVER, PASSED, ROOT, Stage, StageRunner, execute, table_line
from fastcifar.cli.console import EXIT_USER
from fastcifar.cli.parsing import parse
from fastcifar.data.manifest import MANIFEST_NAME, load_manifest
from fastcifar.errors import RunFailedError, UserError

PLANNED_MINUTES = 12.0
"""The limits of the stages are meant for this time in all; with more or less they grow and shrink in proportion."""
LEAST_S, LEAST_QUICK_S = 15.0, 3.0
START_S = 20.0
"""Of a stage's limit, for its imports, its preparations and the run that is under way at the end."""
TARGETS = {"fast90": 0.90, "fast94": 0.94, "airbench94": 0.94, "resnet24": 0.94}
LIMITS_S = {"environment": 40, "kernel-bits": 90, "tests": 150, "self-check": 90, "roofline": 60, "loaders": 60,
            "fast90": 70, "fast94": 70, "airbench94": 50, "resnet24": 70, "profile-fast90": 30, "profile-fast94": 30,
            "search-fast90": 300, "search-fast94": 600}  # fmt: skip
"""In the order in which they run; the searches share the time that is left."""
FULL_SET, QUICK_SET = (50_000, 10_000), (600, 200)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure everything on a GPU within a number of minutes."""

    minutes: float = PLANNED_MINUTES
    """Time for everything."""
    stages: tuple[str, ...] = ()
    """Stages to run, separated by commas or spaces. Default: all."""
    data: Path = Path("data")
    """Folder of the prepared data. If there is none, a synthetic set is prepared in a temporary folder."""
    out: Path | None = None
    """Folder of the results. Default: bench/results/; with --quick and on a CPU a temporary folder."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Device to measure."""
    quick: bool = False
    """A small set, small networks and few repetitions, to check that everything works."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the stages have in common."""

    device: str
    data: Path
    out: Path
    quick: bool
    scale: float
    """Of the limits."""


def main(arguments: list[str]) -> None:
    """Runs the stages and prints a line for each as it ends, then JSON. Raises RunFailedError if a stage failed."""
    options = parse(Options, arguments, prog="python -m bench gpu")
    names = _chosen(options)
    deadline = time.monotonic() + 60 * options.minutes
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the stage as Ctrl-C does
    try:
        _end(_run(options, names, deadline))
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(options: Options, names: Sequence[str], deadline: float) -> StageRunner:
    print(table_line("stage", "state", "seconds", "result"), flush=True)
    scale = options.minutes / PLANNED_MINUTES
    found = execute(_environment(options), min(60 * options.minutes, max(30.0, scale * LIMITS_S["environment"])))
    facts = found["result"]
    if found["exit_code"] == EXIT_USER:
        raise UserError(found["headline"].removeprefix("error: "))
    quick = options.quick or facts.get("device") == "cpu"
    out = _out(options, quick)
    data = _data(options, quick, deadline)
    setting = Setting(device=facts.get("device", options.device), data=data, out=out, quick=quick, scale=scale)
    identity = {
        "device_name": facts.get("device_name"),
        "code_revision": facts.get("code_revision"),
        "source_sha256": source_digest("fastcifar", "bench", "tests"),  # the revision may be unknown
        "dataset_sha256": load_manifest(data).content_sha256,
        "quick": quick,
    }
    runner = StageRunner(out / f"gpu-{identity['device_name'] or 'unknown'}", deadline, identity)
    runner.keep(found)
    stages = planned(setting)
    for name in names:
        if name != found["stage"]:
            runner.run(stages[name])
    return runner


def _end(runner: StageRunner) -> None:
    print(f"outcomes in {runner.folder}")
    states = {name: outcome["state"] for name, outcome in runner.outcomes.items()}
    print(json.dumps({"what": "gpu", "folder": str(runner.folder), "stages": states}))
    if wrong := [name for name, state in states.items() if state in (FAILED, OVER)]:
        raise RunFailedError(f"{', '.join(wrong)} did not pass; the outcomes in {runner.folder} say why")


def _chosen(options: Options) -> list[str]:
    if not options.minutes > 0:
        raise UserError(f"minutes is {options.minutes}, but must be above 0")
    wanted = {name for names in options.stages for name in names.split(",") if name}
    if unknown := wanted - set(LIMITS_S):
        raise UserError(f"no stage is called {', '.join(sorted(unknown))}; choose from {', '.join(LIMITS_S)}")
    return [name for name in LIMITS_S if not wanted or name in wanted]


def _environment(options: Options) -> Stage:
    arguments = ("-m", "bench", "environment", "--device", options.device)
    return Stage(name="environment", arguments=lambda _: arguments, limit_s=LIMITS_S["environment"], headline=headline)


def _out(options: Options, quick: bool) -> Path:
    default = Path(tempfile.gettempdir()) / "fastcifar-bench-quick" if quick else Path(__file__).parent / "results"
    folder = (options.out or default).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder} for the results: {error.strerror}; choose another --out") from None
    return folder


def _data(options: Options, quick: bool, deadline: float) -> Path:
    """The folder of the prepared data; a synthetic set is prepared if there is none."""
    if not options.quick and (options.data / MANIFEST_NAME).exists():
        load_manifest(options.data)
        return options.data.absolute()
    train, test = QUICK_SET if quick else FULL_SET
    folder = Path(tempfile.gettempdir()) / f"fastcifar-bench-synthetic-{train}"
    sizes = ("--synthetic-train", train, "--synthetic-test", test)
    arguments = ("-m", "fastcifar", "prepare", "--source", "synthetic", "--out", folder, *sizes)
    stage = Stage(name="data", arguments=lambda _: arguments, limit_s=deadline - time.monotonic(), headline=headline)
    done = execute(stage, stage.limit_s)
    print(
        table_line("data", done["state"], f"{done['seconds']:.1f}", f"synthetic, {train} images, in {folder}"),
        flush=True,
    )
    if done["state"] != PASSED:
        raise RunFailedError(f"the synthetic set could not be prepared: {done['headline']}")
    return folder


def planned(setting: Setting) -> dict[str, Stage]:
    """The stages by name; the arguments of some depend on the seconds that they get."""
    commands: dict[str, Callable[[float], Sequence[object]]] = {
        "kernel-bits": _bench(setting, "kernel_bits"),
        "tests": lambda _: _tests(setting),
        "self-check": _bench(setting, "self_check"),
        "roofline": _measured(setting, "kernels", *_roofline(setting)),
        "loaders": _measured(setting, "loaders", *_loaders(setting)),
        **{name: _training(setting, name, target) for name, target in TARGETS.items()},
        **{f"profile-{name}": _measured(setting, "profile", "--recipe", name) for name in ("fast90", "fast94")},
        **{f"search-{name}": _search(setting, name) for name in ("fast90", "fast94")},
    }
    least = LEAST_QUICK_S if setting.quick else LEAST_S
    return {
        name: Stage(
            name=name,
            arguments=arguments,
            limit_s=max(least, setting.scale * LIMITS_S[name]),
            share=0.5 if name == "search-fast90" else 1.0,  # the rest is for the other search
            least_s=least,
            headline=headline,
        )
        for name, arguments in commands.items()
    }


def _bench(setting: Setting, name: str, *arguments: object) -> Callable[[float], Sequence[object]]:
    quick = ["--quick"] if setting.quick else []
    return lambda _: ["-m", "bench", name, "--device", setting.device, *quick, *arguments]


def _measured(setting: Setting, name: str, *arguments: object) -> Callable[[float], Sequence[object]]:
    """A benchmark that reads data and writes a result file."""
    return _bench(setting, name, "--data", setting.data, "--out", setting.out, *arguments)


def _tests(setting: Setting) -> Sequence[object]:
    """The tests that need a GPU; on a CPU a few others, to see that pytest runs."""
    # packages of pyproject.toml's group dev may be missing: their settings are then only worth a warning
    relaxed = ["-o", "addopts=", "-W", "ignore::pytest.PytestConfigWarning", "-p", "no:cacheprovider"]
    if setting.device == "cpu":
        return ["-m", "pytest", "-q", *relaxed, "-m", "not gpu", ROOT / "tests/training/test_train_step.py"]
    texts = {path: path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    if find_spec("hypothesis") is None:
        texts = {path: text for path, text in texts.items() if "from hypothesis" not in text}
    files = [path for path, text in texts.items() if "gpu" in text]  # the mark may come from a fixture of theirs
    return ["-m", "pytest", "-q", "--continue-on-collection-errors", *relaxed, "-m", "gpu", *files]


def _roofline(setting: Setting) -> Sequence[object]:
    return ["--batch-sizes", *((64,) if setting.quick else (500, 2000, 10_000, 50_000))]


def _loaders(setting: Setting) -> Sequence[object]:
    """Ours, those that read through FFCV only where it is installed, and the fastest kind of torchvision's."""
    streams = [f"stream{suffix}" for suffix in ("", "-bfloat16") if find_spec("ffcv") is not None]
    chosen = ["resident", "resident-bfloat16", *streams, "torchvision-v2-1"]
    if setting.quick:
        return ["--batch-size", 50, "--threads", 1, "--only", *chosen[:2]]
    return ["--runs", 3, "--batch-size", 2000, "--only", *chosen]


def _training(setting: Setting, recipe: str, target: float) -> Callable[[float], Sequence[object]]:
    runs, processes = (2, 1) if setting.quick else (200, 3)
    counts = ("--runs", runs, "--processes", processes, "--target", target, "--recipe", recipe)
    command = _measured(setting, "time_to_accuracy", *counts)
    return lambda seconds: [*command(seconds), "--seconds", max(1.0, seconds - START_S)]


def _search(setting: Setting, recipe: str) -> Callable[[float], Sequence[object]]:
    options = ("--recipe", recipe, "--target", TARGETS[recipe], *(("--only", "epochs") if setting.quick else ()))
    command = _measured(setting, "search", *options)
    return lambda seconds: [*command(seconds), "--seconds", 1 if setting.quick else max(1.0, seconds - START_S)]
