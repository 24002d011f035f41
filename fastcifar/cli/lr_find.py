"""`fastcifar lr-find`: suggests learning rates with a range test."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fastcifar.config import Config
from fastcifar.errors import RunFailedError

DESCRIPTION = """Suggest learning rates for a recipe: train for a few steps with a growing learning rate.

Writes <recipe>.png and <recipe>.json and changes nothing else. All settings of `fastcifar train` are flags here too.
`fastcifar train --lr found` runs this test and trains with the result.

--config FILE     read fields from a TOML file first
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The range test, and the configuration it is for."""

    kind: Literal["exponential", "linear"] = "exponential"
    """How the learning rate grows: by the same factor, or by the same amount at every step."""
    start: Annotated[float, tyro.conf.arg(name="from")] = 1e-5
    """Learning rate of the first step."""
    end: Annotated[float, tyro.conf.arg(name="to")] = 10.0
    """Learning rate of the last step. The test ends earlier if the loss diverges."""
    iterations: int = 100
    """Number of steps, 10 to 100000."""
    method: Literal["bound", "steepest", "valley", "minimum"] = "bound"
    """The method whose suggestion is highlighted and is "max" and "min" in the JSON file. All four are listed."""
    out: Path = Path("lr_find")
    """Folder to write to."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: list[str]) -> None:
    """Raises UserError, and RunFailedError if no learning rate can be suggested."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as in training
    from fastcifar.cli.config_args import parse_with_config

    options = parse_with_config(Options(), arguments, DESCRIPTION, prog="fastcifar lr-find")

    from fastcifar.analysis.figure_files import save_figure
    from fastcifar.analysis.lr_range import lr_range_test
    from fastcifar.analysis.rate_plots import draw_range_test
    from fastcifar.analysis.rate_tables import as_json, table
    from fastcifar.cli.output_files import make_folder, written
    from fastcifar.files import write_json
    from fastcifar.runtime.threads import keep_freed_memory

    make_folder(options.out)
    keep_freed_memory()
    test = lr_range_test(
        options.config, kind=options.kind, start=options.start, end=options.end, iterations=options.iterations
    )
    suggestions, failure = {}, None
    try:
        suggestions = test.suggest()
    except RunFailedError as error:
        failure = error
    found = as_json(test, suggestions, options.method, options.config)
    figure = draw_range_test(test, suggestions, options.method)
    values = written(options.out / f"{options.config.recipe}.json", lambda path: write_json(path, found))
    plot = written(options.out / f"{options.config.recipe}.png", lambda path: save_figure(figure, path))
    if failure is not None:
        raise RunFailedError(f"{failure}; {plot} shows the losses")
    print(f"{table(test, suggestions, options.method)}\nplot      {plot}\nvalues    {values}")
