"""Builds one self-contained HTML page about a finished run, or about several."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastcifar.analysis import metrics
from fastcifar.analysis.curves import Curves, read_curves
from fastcifar.analysis.evaluation import Evaluation, evaluate_run, summarise
from fastcifar.analysis.evaluation_figures import FEW_CLASSES, reliability_figure
from fastcifar.analysis.galleries import failures_by_class, most_confidently_correct, most_confidently_wrong
from fastcifar.analysis.gallery_files import explain
from fastcifar.analysis.report import facts as report_facts
from fastcifar.analysis.report.charts import SIZE, comparison_charts, training_charts
from fastcifar.analysis.report.comparison import Member, differences, groups
from fastcifar.analysis.report.images import explained_tiles, tiles
from fastcifar.analysis.report.section import Section
from fastcifar.analysis.report.svg import inline_svg
from fastcifar.config.registry import EVALUATIONS
from fastcifar.config.toml import to_toml
from fastcifar.data.prepared import read_split
from fastcifar.errors import UserError
from fastcifar.evaluation import evaluations_of
from fastcifar.evaluation.logits import cross_entropy
from fastcifar.models import layer_table as network
from fastcifar.recipes import load_config
from fastcifar.runs.load import TrainedRun, load_run
from fastcifar.runs.record import CONFIG_NAME

REPORT_NAME = "report.html"


def build_report(
    folders: Sequence[Path],
    data: Path | None = None,
    sections: Sequence[Section] = (),
    evaluation: Evaluation | None = None,
) -> str:
    """The page about the finished runs in `folders`: the first one in detail, and a comparison if there are several.

    `data` is the prepared data for the first run, by default the folder it was trained from. If that default cannot be
    read, the page leaves out everything that needs images and says why. `sections` are added after the result.
    `evaluation` is that of the first run, by default made here. Raises UserError for runs that are unfinished, damaged
    or given twice, and for a `data` that cannot be used. The same arguments give the same bytes.
    """
    members = _members(folders)
    trained = load_run(members[0].folder)
    record = trained.record
    read_curves(trained.folder, record)  # fail before the evaluation, not after it
    evaluation, images, missing = _evaluate(trained, data, evaluation)
    curves = read_curves(trained.folder, record, _test_loss(trained, evaluation))
    datasets = [member.record["dataset"] for member in members] + ([evaluation.dataset] if evaluation else [])
    return _render(
        members=members,
        record=record,
        mark=report_facts.mark_of(*datasets),
        facts=report_facts.facts(record),
        environment=report_facts.environment(record),
        epochs=curves.epochs,
        smoothing=trained.config.label_smoothing,
        charts=_charts(trained, curves, evaluation),
        comparison=_comparison(members) if len(members) > 1 else None,
        sections=sections,
        missing=missing,
        disagreement=report_facts.disagreement(record, evaluation) if evaluation else "",
        evaluation=_summary(evaluation) if evaluation else None,
        galleries=None if evaluation is None or images is None else _galleries(trained, evaluation, images),
        layer_header=network.HEADER,
        layers=network.rows(network.layers(trained.config.model, len(trained.class_names))),
        config=to_toml(trained.config),
    )


def _render(**values: Any) -> str:
    """Renders the template; autoescape covers all texts in `values`."""
    environment = Environment(
        loader=PackageLoader("fastcifar.analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": _percent, "seconds": _seconds}
    environment.globals |= {
        "evaluations_of": evaluations_of,
        "evaluations": {name: EVALUATIONS[name] for name in EVALUATIONS.names()},
        "clocks": report_facts.CLOCKS,
        "accuracies_of": report_facts.accuracies_of,
        "inline_svg": inline_svg,
    }
    return environment.get_template(REPORT_NAME).render(**values)


def _members(folders: Sequence[Path]) -> list[Member]:
    if not folders:
        raise UserError("no run given; name at least one")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is named twice; a comparison needs different ones")
    found = []
    for number, folder in enumerate(folders, 1):
        config = load_config(folder / CONFIG_NAME)  # first, as it imports the components that the record names
        found.append(Member(number, folder, report_facts.checked_record(folder), config))
    return found


def _evaluate(
    trained: TrainedRun, data: Path | None, evaluation: Evaluation | None
) -> tuple[Evaluation | None, np.ndarray | None, str]:
    """Evaluation and test images, uint8 (n, 32, 32, 3); or, if the run's own data cannot be read, why."""
    try:
        evaluation = evaluation or evaluate_run(trained, data)
        images, _ = read_split(trained.config.data if data is None else data, "test")
    except UserError as error:
        if data is not None:
            raise
        print(f"report without images: {error}", file=sys.stderr, flush=True)
        return None, None, str(error)
    return evaluation, images, ""


def _test_loss(trained: TrainedRun, evaluation: Evaluation | None) -> float | None:
    """Single-view loss on the test set, by the formula of the training loss."""
    if evaluation is None:
        return None
    logits, labels = (torch.from_numpy(array) for array in (evaluation.logits["single_view"], evaluation.labels))
    return cross_entropy(logits, labels, trained.config.label_smoothing)


def _charts(trained: TrainedRun, curves: Curves, evaluation: Evaluation | None) -> dict[str, Markup]:
    figures = training_charts(curves, trained.record)
    labels = {
        "loss": "Loss against epochs",
        "accuracy": "Accuracy against epochs",
        "rates": "Learning rates and momenta against epochs",
        "reliability": "Accuracy against confidence",
    }
    if evaluation is not None:
        figures["reliability"] = reliability_figure(metrics.reliability(evaluation.primary_logits, evaluation.labels))
        figures["reliability"].set_size_inches(SIZE[0], 5.2)
    return {name: inline_svg(figure, name, labels[name]) for name, figure in figures.items()}


def _comparison(members: list[Member]) -> dict[str, Any]:
    runs = {f"run {member.number}": read_curves(member.folder, member.record) for member in members}
    loss, accuracy = comparison_charts(runs)
    found = groups(members)
    return {
        "groups": found,
        "has_single": any(len(group.distinct) == 1 for group in found),
        "differences": differences(members),
        "loss": inline_svg(loss, "losses", "Training loss of each run against epochs"),
        "accuracy": inline_svg(accuracy, "accuracies", "Test accuracy of each run against epochs"),
    }


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    """Summary, and the shade in 0..1 of each mistake in the confusion matrix; no shades with many classes."""
    summary = summarise(evaluation)
    primary = summary["views"][summary["primary_metric"]]
    matrix = np.array(primary["confusion_matrix"])
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    np.fill_diagonal(fractions, 0)
    largest = float(fractions.max())
    return {
        "summary": summary,
        "primary": primary,
        "largest_fraction": largest,
        "shades": (fractions / max(largest, 0.01)).tolist() if len(matrix) <= FEW_CLASSES else None,
    }


def _galleries(trained: TrainedRun, evaluation: Evaluation, images: np.ndarray) -> dict[str, Any]:
    """Galleries and Grad-CAM; with many classes, the failures of the least accurate ones only."""
    logits, labels, names = evaluation.primary_logits, evaluation.labels, evaluation.class_names
    answers = [choose(logits, labels) for choose in (most_confidently_wrong, most_confidently_correct)]
    layer, padding, no_heat = "", 0, ""
    try:
        explained = [explain(trained, images, some) for some in answers]
        layer, padding = explained[1].predicted.layer, explained[1].predicted.padding
        wrong, correct = (explained_tiles(some, images, names) for some in explained)
    except UserError as error:  # a network without feature maps
        wrong, correct, no_heat = tiles(answers[0], images, names), tiles(answers[1], images, names), str(error)
    by_class = failures_by_class(logits, labels)
    accuracies = [accuracy.value or 0.0 for accuracy in metrics.accuracy_per_class(logits, labels)]
    worst = sorted(np.argsort(accuracies, kind="stable")[:FEW_CLASSES].tolist())
    return {
        "wrong": wrong,
        "correct": correct,
        "failures": {names[label]: tiles(by_class[label], images, names) for label in worst},
        "layer": layer,
        "padding": padding,
        "no_heat": no_heat,
    }


def _percent(fraction: float, digits: int = 2) -> str:
    return f"{100 * fraction:.{digits}f}%"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.{1 if value < 100 else 0}f} s"
