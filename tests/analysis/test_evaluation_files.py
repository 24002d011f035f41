"""The evaluation of a run is kept in its folder."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastcifar.analysis import evaluation_files
from fastcifar.analysis.evaluation import evaluate_run
from fastcifar.analysis.evaluation_files import LOGITS_NAME, kept_evaluation
from fastcifar.runs.load import load_run


def test_a_run_is_evaluated_once(finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load_run(shutil.copytree(finished.folder, tmp_path / "run"))
    first = kept_evaluation(trained, finished.config.data)
    assert first.accuracy == trained.accuracy
    monkeypatch.setattr(evaluation_files, "evaluate_run", None)
    kept = kept_evaluation(trained, finished.config.data)
    assert replace(kept, labels=first.labels, logits=first.logits) == first
    np.testing.assert_array_equal(kept.labels, first.labels)
    assert kept.logits.keys() == first.logits.keys()
    for kind, logits in first.logits.items():
        np.testing.assert_array_equal(kept.logits[kind], logits)
    monkeypatch.setattr(evaluation_files, "evaluate_run", evaluate_run)
    (trained.folder / LOGITS_NAME).write_bytes(b"damaged")
    assert kept_evaluation(trained, finished.config.data).accuracy == first.accuracy
