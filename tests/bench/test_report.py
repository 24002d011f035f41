"""The report depends on the result files alone, and the committed report is that of the committed results."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import ablations, epochs, loaders, report
from bench.measure import RESULTS, summary
from bench.plots import DRAWN
from bench.report import SECTIONS, load, main, markdown, render
from fastcifar.errors import UserError

SHARED: dict[str, Any] = {
    "dataset": "synthetic", "device": "cpu", "hardware": {"cpu": "A CPU", "threads": 2}, "n": 2,
    "versions": {"torch": "2.0", "numba": "1.0"}, "code_revision": "0123456789abcdef+changes",
}  # fmt: skip


def measured(seconds: list[float], images: int = 1000) -> dict[str, Any]:
    return {
        "repetitions": [{"epoch_s": s, "first_batch_s": s / 10} for s in seconds], "warm_up": {"first_batch_s": 1.5},
        "build_s": 0.5, "memory_mib": 100.0, "workers_mib": 20.0, "gpu_memory_mib": None, "images": images,
    }  # fmt: skip


def loaders_result() -> dict[str, Any]:
    candidates = {"resident": [0.1, 0.2], "torchvision-pil-0": [4.0, 8.0], "torchvision-pil-2": [1.0, 2.0]}
    compared = loaders.compare({name: measured(seconds) for name, seconds in candidates.items()})
    return {**SHARED, "what": "loaders", "batch_size": 10, "output": "float32", "candidates": compared}


def epochs_result() -> dict[str, Any]:
    def stage(seconds: list[float]) -> dict[str, Any]:
        parts = {"data_s": 0.25, "evaluation_s": 0.5, "loss": 2.0, "num_correct": 3}
        repetitions = [{**parts, "step_s": s - 0.75} for s in seconds]
        facts = {"images": 100, "test_images": 50, "build_s": 1.0, "memory_mib": 1.0, "workers_mib": 0.0}
        return {"repetitions": repetitions, "warm_up": repetitions[0], **facts}

    stages = epochs.compare({"plain": stage([4.0, 8.0]), "+ one": stage([2.0, 4.0]), "+ two": stage([1.0, 2.0])})
    shown = {"network": "resnet", "width": 16, "batch_size": 50, "amp": "bfloat16", "workers": 2}
    return {**SHARED, "what": "epochs", **shown, "stages": stages}


def kernels_result() -> dict[str, Any]:
    def case(batch: int, dtype: str, output: str) -> dict[str, Any]:
        keys = ("call_s", "images_per_s", "gb_per_s", "copy_gb_per_s", "fraction_of_copy")
        shape = {"batch": batch, "dtype": dtype, "threads": 2, "output": output}
        return {**shape, **{key: summary([0.5, 0.7]) for key in keys}}

    cases = [case(b, d, o) for b in (64, 500) for d in ("float32", "bfloat16") for o in ("fresh", "kept")]
    return {**SHARED, "what": "kernels", "traffic": "bytes", "outputs": {"fresh": "f", "kept": "k"}, "cases": cases}


def test_speedups():
    found = loaders_result()["candidates"]
    assert found["torchvision-pil-2"]["speedup_over_resident"]["median"] == pytest.approx(0.1)
    assert found["resident"]["speedup_over_torchvision"]["median"] == pytest.approx(10)
    assert found["torchvision-pil-0"]["speedup_over_torchvision"] == summary([0.25, 0.25])
    assert found["resident"]["fastest_torchvision"] == "torchvision-pil-2"
    stages = epochs_result()["stages"]
    assert stages["+ two"]["speedup_over_first"] == summary([4.0, 4.0])
    assert stages["+ two"]["speedup_over_previous"] == summary([2.0, 2.0])
    assert stages["plain"]["epoch_s"]["median"] == 6


def test_the_report_holds_every_result_and_repeats_exactly(tmp_path: Path, capsys):
    results = tmp_path / "results"
    results.mkdir()
    samples = {"loaders-a": loaders_result(), "epochs-a": epochs_result(), "kernels-a": kernels_result()}
    for name, result in samples.items():
        (results / f"{name}.json").write_text(json.dumps(result))
        header, rows = SECTIONS[result["what"]].table_of(result)
        assert rows
        assert all(len(row) == len(header) for row in rows)
    committed = next(RESULTS.glob("time_to_accuracy-*.json"))
    (results / committed.name).write_bytes(committed.read_bytes())
    arguments = ["--results", str(results), "--out", str(tmp_path / "REPORT.md")]
    main(arguments)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"][1:] == ["epochs-a", "loaders-a", "kernels-a"]
    text = (tmp_path / "REPORT.md").read_text()
    for name in samples:
        assert text.count(f"### {name}\n") == 1
        assert (tmp_path / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "Synthetic data." in text
    assert "code 0123456789ab+changes" in text
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    main(arguments)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_the_committed_report_is_that_of_the_committed_results():
    results = load(RESULTS)
    folder = Path(report.__file__).parent
    assert (folder / "REPORT.md").read_text(encoding="utf-8") == render(results), "run `python -m bench report`"
    drawn = {name for name, result in results.items() if result["what"] in DRAWN}
    assert {path.stem for path in (folder / "plots").glob("*.png")} == drawn
    (variants,) = (result["variants"] for result in results.values() if result["what"] == "ablations")
    assert list(variants) == list(ablations.VARIANTS)


@pytest.mark.parametrize("text", ["{", "[]", '{"what": "weather"}', None])
def test_what_is_not_a_result_is_refused(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=str(tmp_path)):
        load(tmp_path)


def test_markdown():
    assert markdown(("a", "b"), [["1", "2"]]) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
