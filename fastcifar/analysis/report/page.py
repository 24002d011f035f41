"""A finished run, or several, as one HTML page that needs nothing but itself."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastcifar.analysis import metrics as classification
from fastcifar.analysis.evaluation import Evaluation, evaluate_run, summarise
from fastcifar.analysis.evaluation_figures import FEW_CLASSES, reliability_figure
from fastcifar.analysis.galleries import failures_by_class, most_confidently_correct, most_confidently_wrong
from fastcifar.analysis.gallery_files import explain
from fastcifar.analysis.rate_plots import draw_plan
from fastcifar.analysis.report import charts as report_charts
from fastcifar.analysis.report import facts as report_facts
from fastcifar.analysis.report.charts import Curves, read_curves
from fastcifar.analysis.report.comparison import Member, differences, groups
from fastcifar.analysis.report.images import Tile, explained_tiles, tiles
from fastcifar.analysis.report.svg import inline_svg
from fastcifar.config import EVALUATION_NAMES, evaluations_of
from fastcifar.config.toml import to_toml
from fastcifar.data.prepared import read_split
from fastcifar.errors import UserError
from fastcifar.models import layer_table as network
from fastcifar.optim.plan import plan
from fastcifar.recipes import load_config
from fastcifar.runs.load import TrainedRun, load_run
from fastcifar.runs.record import CONFIG_NAME

if TYPE_CHECKING:
    from markupsafe import Markup

REPORT_NAME, TEMPLATE = "report.html", "report.html"


@dataclass(frozen=True, slots=True)
class Galleries:
    """The galleries; `failures` by class, of the least accurate classes where there are many."""

    wrong: list[Tile]
    right: list[Tile]
    failures: dict[str, list[Tile]]
    layer: str
    margin: int


def build_report(folders: Sequence[Path], data: Path | None = None) -> str:
    """The page on the finished runs in `folders`: the first one in detail and, where there are more, all compared.

    `data` is the prepared data for the first run, by default the folder it was trained from; if that cannot be read,
    all that needs images is left out and the page says why. Raises UserError for runs that are not finished, damaged
    or named twice, and for a given `data` that cannot be used. The same runs give the same page, to the byte.
    """
    members = _members(folders)
    trained = load_run(members[0].folder)
    record = trained.record
    read_curves(trained.folder, record)  # a mistake is told now, not after the evaluation
    evaluation, images, missing = _evaluate(trained, data)
    curves = read_curves(trained.folder, record, _test_loss(trained, evaluation))
    datasets = [member.record["dataset"] for member in members] + ([evaluation.dataset] if evaluation else [])
    return _render(
        member=members[0],
        members=members,
        record=record,
        mark=report_facts.mark_of(*datasets),
        facts=report_facts.facts(record),
        environment=report_facts.environment(record),
        epochs=curves.epochs,
        smoothing=trained.config.label_smoothing,
        charts=_charts(trained, curves, evaluation),
        comparison=_comparison(members) if len(members) > 1 else None,
        missing=missing,
        disagreement=report_facts.disagreement(record, evaluation) if evaluation else "",
        answers=_answers(evaluation) if evaluation else None,
        galleries=None if evaluation is None or images is None else _galleries(trained, evaluation, images),
        layer_header=network.HEADER,
        layers=network.rows(network.layers(trained.config.model, len(trained.class_names))),
        config=to_toml(trained.config),
    )


def _render(**values: Any) -> str:
    """The template with `values`; all texts among them are escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fastcifar.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": _percent, "seconds": _seconds}
    environment.globals |= {
        "evaluations_of": evaluations_of,
        "view_names": EVALUATION_NAMES,
        "clocks": report_facts.CLOCKS,
        "accuracies_of": report_facts.accuracies_of,
    }
    return environment.get_template(TEMPLATE).render(**values)


def _members(folders: Sequence[Path]) -> list[Member]:
    if not folders:
        raise UserError("no run was named; give at least one")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run is named twice; a comparison needs different ones")
    return [
        Member(number, folder, report_facts.checked_record(folder), load_config(folder / CONFIG_NAME))
        for number, folder in enumerate(folders, 1)
    ]


def _evaluate(trained: TrainedRun, data: Path | None) -> tuple[Evaluation | None, np.ndarray | None, str]:
    """The answers and the test images or, where the run's own data cannot be read, why."""
    try:
        evaluation = evaluate_run(trained, data)
        images, _ = read_split(trained.config.data if data is None else data, "test")
    except UserError as error:
        if data is not None:
            raise
        print(f"without images: {error}", file=sys.stderr, flush=True)
        return None, None, str(error)
    return evaluation, images, ""


def _test_loss(trained: TrainedRun, evaluation: Evaluation | None) -> float | None:
    """At the end, with one view, by the formula of the training loss."""
    if evaluation is None:
        return None
    return classification.cross_entropy(
        evaluation.logits["single_view"], evaluation.labels, trained.config.label_smoothing
    )


def _charts(trained: TrainedRun, curves: Curves, evaluation: Evaluation | None) -> "dict[str, Markup]":
    planned = draw_plan(plan(trained.config, curves.steps_per_epoch))
    planned.axes[0].set_title("")  # the caption says it
    _, more = evaluations_of(trained.record.get("evaluation", "single_view")).values()
    figures = {
        "loss": (report_charts.loss_chart(curves), "Loss against epochs"),
        "accuracy": (
            report_charts.accuracy_chart(curves, trained.record["test_accuracy_tta"], more),
            "Accuracy against epochs",
        ),
        "rate": (report_charts.rate_chart(curves), "Learning rate against epochs"),
        "plan": (planned, "Planned learning rates and momenta against iterations"),
    }
    if evaluation is not None:
        bins = classification.reliability(evaluation.primary_logits, evaluation.labels)
        figures["reliability"] = reliability_figure(bins), "Accuracy against confidence"
    for name, height in (("plan", 4.2), ("reliability", 5.2)):
        if name in figures:
            figures[name][0].set_size_inches(report_charts.SIZE[0], height)
    return {name: inline_svg(figure, name, label) for name, (figure, label) in figures.items()}


def _comparison(members: list[Member]) -> dict[str, Any]:
    runs = {f"run {member.number}": read_curves(member.folder, member.record) for member in members}
    loss, accuracy = report_charts.comparison_charts(runs)
    found = groups(members)
    return {
        "groups": found,
        "has_single": any(len(group.distinct) == 1 for group in found),
        "differences": differences(members),
        "loss": inline_svg(loss, "losses", "Training loss of each run against epochs"),
        "accuracy": inline_svg(accuracy, "accuracies", "Test accuracy of each run against epochs"),
    }


def _answers(evaluation: Evaluation) -> dict[str, Any]:
    """What `summarise` says, and the shade of each mistake in the confusion matrix, 0 to 1; None for many classes."""
    summary = summarise(evaluation)
    counting = summary["views"][summary["counts"]]
    matrix = np.array(counting["confusion_matrix"])
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    np.fill_diagonal(fractions, 0)
    largest = float(fractions.max())
    return {
        "summary": summary,
        "counting": counting,
        "largest_fraction": largest,
        "shades": (fractions / max(largest, 0.01)).tolist() if len(matrix) <= FEW_CLASSES else None,
    }


def _galleries(trained: TrainedRun, evaluation: Evaluation, images: np.ndarray) -> Galleries:
    logits, labels, names = evaluation.primary_logits, evaluation.labels, evaluation.class_names
    wrong, right = (
        explain(trained, images, choose(logits, labels))
        for choose in (most_confidently_wrong, most_confidently_correct)
    )
    by_class = failures_by_class(logits, labels)
    fractions = [figures.fraction or 0.0 for figures in classification.accuracy_per_class(logits, labels)]
    worst = sorted(np.argsort(fractions, kind="stable")[:FEW_CLASSES].tolist())
    return Galleries(
        wrong=explained_tiles(wrong, images, names),
        right=explained_tiles(right, images, names),
        failures={names[label]: tiles(by_class[label], images, names) for label in worst},
        layer=right.predicted.layer,
        margin=right.predicted.margin,
    )


def _percent(fraction: float, digits: int = 2) -> str:
    return f"{100 * fraction:.{digits}f}%"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.{1 if value < 100 else 0}f} s"
