"""`fastcifar lr-find`: finds learning rates with a range test."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from fastcifar.config import Config

DESCRIPTION = """Find the learning rates of a recipe: train for a few steps at several rates.

Writes <recipe>.png and <recipe>.json and changes nothing else. All settings of `fastcifar train` are flags here too.
`fastcifar train --lr found` runs this test and trains with the result.

--config FILE     read fields from a TOML file first
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where the result goes, and the configuration it is for."""

    out: Path = Path("lr_find")
    """Folder to write to."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: list[str]) -> None:
    """Raises UserError, and RunFailedError if the loss falls at no rate."""
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
    test = lr_range_test(options.config)
    figure, found = draw_range_test(test), as_json(test, options.config)
    values = written(options.out / f"{options.config.recipe}.json", lambda path: write_json(path, found))
    plot = written(options.out / f"{options.config.recipe}.png", lambda path: save_figure(figure, path))
    print(f"{table(test)}\nplot      {plot}\nvalues    {values}")
