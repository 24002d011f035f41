"""The command that measures everything: a small run on the CPU, and the commands that only a GPU runs in full."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from bench import gpu, headlines
from bench.gpu import LIMITS_S, Setting, main, planned
from bench.measure import summary
from fastcifar.cli.parsing import parse
from fastcifar.errors import RunFailedError, UserError


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of the stages too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpu.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    main(["--device", "cpu", *map(str, arguments)])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_some_stages_on_a_cpu(temporary: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ("--out", temporary / "out", "--data", temporary / "missing", "--stages", "roofline")
    result = run(capsys, *arguments)
    assert result["stages"] == {"environment": "passed", "roofline": "passed"}
    folder = Path(result["folder"])
    kept = json.loads((folder / "roofline.json").read_text())
    assert (folder.name, kept["result"]["what"], kept["quick"]) == ("gpu-cpu", "kernels", True)
    assert json.loads((temporary / "out" / "kernels-synthetic-cpu-n1.json").read_text()) == kept["result"]
    assert run(capsys, *arguments)["stages"]["roofline"] == "kept"


@pytest.mark.slow
def test_all_stages_on_a_cpu(temporary: Path, capsys: pytest.CaptureFixture[str]):
    result = run(capsys, "--out", temporary / "out")
    assert result["stages"] == dict.fromkeys(LIMITS_S, "passed")


def test_a_failing_stage_is_the_last_word(temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(gpu, "_tests", lambda setting: ["-c", "raise SystemExit('broken')"])
    with pytest.raises(RunFailedError, match="tests"):
        main(["--device", "cpu", "--out", str(temporary / "out"), "--stages", "tests"])
    assert "broken" in capsys.readouterr().out


@pytest.mark.parametrize("quick", [False, True])
def test_the_commands_for_a_gpu_can_be_parsed(tmp_path: Path, quick: bool):
    stages = planned(Setting(device="cuda", data=tmp_path, out=tmp_path, quick=quick, scale=1.0))
    assert list(stages) == list(LIMITS_S)[1:]
    for name, stage in stages.items():
        _, module, *arguments = map(str, stage.arguments(stage.limit_s))
        if module == "bench":
            options = parse(importlib.import_module(f"bench.{arguments[0]}").Options, arguments[1:], prog=name)
            assert (options.device, getattr(options, "quick", quick)) == ("cuda", quick)
        else:
            files = [Path(argument) for argument in arguments if argument.endswith(".py")]
            assert files
            assert {"test_kernel_cuda.py", "test_train_step.py", "test_graph_steps.py"} <= {path.name for path in files}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--stages", "nothing"], "nothing"),
        (["--minutes", "0"], "minutes is 0"),
    ],
)
def test_mistakes(arguments: list[str], shown: str):
    with pytest.raises(UserError, match=shown):
        main(arguments)


def test_headlines_show_the_bandwidth_of_large_batches_and_the_clocks():
    def case(batch: int, fraction: float, output: str = "kept") -> dict[str, Any]:
        spread = summary([fraction])
        return {"batch": batch, "dtype": "bfloat16", "threads": 1, "output": output, "fraction_of_copy": spread}

    cases = [case(64, 3.0), case(2000, 0.8), case(50_000, 0.9), case(2000, 0.95, "tensors")]
    assert "90% (batch 50000)" in headlines.headline({"what": "kernels", "cases": cases}, [])
    clock = {"run_s": {"median": 1.5, "min": 1.0, "max": 2.0}}
    result = {"what": "time_to_accuracy", "mean": 0.9012, "ci95": None, "clock": clock, "n": 1}
    assert headlines.headline(result, []) == "90.12%, run 1.50 s, n = 1"
    assert headlines.headline({}, ["a", "== 3 passed ==", ""]) == "3 passed"
