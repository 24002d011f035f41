"""One HTML page for each published system: the report of our runs, and what its authors show besides.

What takes long, the range test and the evaluation, is kept in the folder of the run.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.measure import Table, short_revision
from bench.plots import place_of
from bench.published import FIGURES, PARAMETERS, cut_of, published_and_ours
from fastcifar.analysis.cyclic import Cycles
from fastcifar.analysis.evaluation_files import kept_evaluation
from fastcifar.analysis.figure_files import save_figure
from fastcifar.analysis.lr_range import RangeTest, lr_range_test
from fastcifar.analysis.plan import plan
from fastcifar.analysis.rate_plots import draw_cycles, draw_plan, draw_range_test
from fastcifar.analysis.rate_tables import advice, as_json, from_json
from fastcifar.analysis.report.charts import SIZE
from fastcifar.analysis.report.page import build_report
from fastcifar.analysis.report.section import Section
from fastcifar.config import Config
from fastcifar.files import write_json
from fastcifar.recipes import RECIPES
from fastcifar.runs.load import load_run
from fastcifar.runtime.threads import keep_freed_memory

RANGE_TEST = "lr_find"
"""Stem of the files of the range test in the folder of a run."""
CYCLES = 3


def build_page(result: dict[str, Any], config: Config, steps_per_epoch: int) -> str:
    """The page of the system whose first run had this configuration; `result` as in the result file.

    Raises UserError if a run of the system, or its data, cannot be read.
    """
    name = config.recipe
    folders = [config.runs / run["folder"] for run in result["systems"][name]["runs"] if not run["failed"]]
    sections = [_published(result, name), _rates(config, folders[0], steps_per_epoch)]
    evaluation = kept_evaluation(load_run(folders[0]), config.data)
    return build_report(folders, config.data, sections, evaluation)


def _published(result: dict[str, Any], name: str) -> Section:
    header, rows = beside(result, name)
    return Section(
        key="published",
        title="Published and ours",
        text=f"{RECIPES[name].__doc__} Clocks and hardware differ, so compute no speed-up from the seconds.",
        caption="Test: single view after the last step. Train: mean over the last epoch, on augmented images.",
        header=header,
        rows=rows,
    )


def beside(result: dict[str, Any], name: str) -> Table:
    """What the system publishes and what our runs give, a row for each figure; "-" is not published."""
    system = result["systems"][name]
    records = [run["record"] for run in system["runs"] if not run["failed"]]
    labels = {key: f"accuracy, {label}" if key.endswith("accuracy") else label for key, label in FIGURES.items()}
    ours = {
        "parameters": [f"{record['parameters']:,}" for record in records],
        "n": [str(len(records))],
        "machine": map(place_of, records),
        "torch": [str(record["versions"]["torch"]) for record in records],
        "code revision": [short_revision(record["code_revision"]) for record in records],
    }
    published = {"parameters": f"{PARAMETERS[name]:,}"}
    return ("figure", "published", "ours"), [
        ["trained for", f"{system['published_epochs']:g} epochs", cut_of(result, name)],
        *([label, *published_and_ours(key, system)] for key, label in labels.items()),
        *([label, published.get(label, "-"), "; ".join(dict.fromkeys(texts))] for label, texts in ours.items()),
    ]


def _rates(config: Config, folder: Path, steps_per_epoch: int) -> Section:
    recipe = RECIPES[config.recipe]()
    planned = plan(recipe, steps_per_epoch)
    rates = planned.first_rates
    peak, base = float(rates.max()), float(rates.min())
    cycles = Cycles(base=base, peak=peak, step_size=max(1, len(rates) // (2 * CYCLES)), cycles=CYCLES)
    test = range_test(config, folder)
    figure, text = _found(test)
    charts = {
        "Range test: training loss at the end of short trainings, by their peak learning rate.": figure,
        f"Planned learning rate and momentum of the {recipe.epochs:g} published epochs.": draw_plan(planned),
        "Triangular cycles (arXiv 1506.01186) over the same range and the same number of steps.": draw_cycles(cycles),
    }
    for chart in charts.values():
        chart.set_size_inches(SIZE[0], 1.2 * SIZE[1])
    return Section(
        key="rates",
        title="Learning rates",
        text=f"{text} The runs on this page were trained with the rates of the recipe.",
        caption="Learning rates that the range test finds, and those of the recipe.",
        header=("", "maximum", "minimum"),
        rows=[
            ["found", f"{test.found.maximum:.4g}", f"{test.found.minimum:.4g}"],
            ["recipe", f"{peak:.4g}", f"{base:.4g}"],
        ],
        charts=charts,
    )


def _found(test: RangeTest) -> tuple[Figure, str]:
    """The plot of a range test for the page, and what happened in it."""
    trainings = len(test.short.rates) + len(test.long.rates)
    text = f"The range test of {trainings} short trainings took {test.seconds:.0f} s. {advice(test)}"
    figure = draw_range_test(test)
    (axis,) = figure.axes
    axis.set(title="", xlabel="peak learning rate")
    axis.xaxis.set_major_formatter("{x:g}")  # the page does not parse mathematics
    return figure, text


def range_test(config: Config, folder: Path) -> RangeTest:
    """The range test of a configuration; read from `folder`, or made and written there as JSON and PNG."""
    path = folder / f"{RANGE_TEST}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):  # there is none yet, or it is of another version
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    keep_freed_memory()
    test = lr_range_test(config)
    write_json(path, as_json(test, config))
    save_figure(draw_range_test(test), path.with_suffix(".png"))
    return test
