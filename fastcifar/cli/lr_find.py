"""`fastcifar lr-find`: learning rates for a recipe, from a range test."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fastcifar.config import Config
from fastcifar.data.cifar10 import not_cifar10
from fastcifar.errors import RunFailedError, UserError

DESCRIPTION = """Suggest learning rates: train for a few steps at an ever larger rate and look at the losses.

Writes lr_find.png and lr_find.json. Nothing else is changed: a training afterwards is the same bit for bit. All flags
of `fastcifar train` can be given as well; `--lr found` there runs this test and trains with what it finds.
"""


@dataclass(frozen=True, kw_only=True)
class LrFindArguments:
    """A range test, and the configuration it is made for."""

    kind: Literal["exponential", "linear"] = "exponential"
    """How the rate grows: by the same factor at every step, or by the same amount."""
    start: Annotated[float, tyro.conf.arg(name="from")] = 1e-5
    """Learning rate of the first step."""
    end: Annotated[float, tyro.conf.arg(name="to")] = 10.0
    """Learning rate of the last step; the test ends before where the loss diverges."""
    iterations: int = 100
    """Steps, 10 to 100000."""
    method: Literal["bound", "steepest", "valley", "minimum"] = "bound"
    """Whose suggestion is shaded and stands under "max" and "min" in the JSON file; all four are listed."""
    out: Path = Path("lr_find")
    """Folder for lr_find.png and lr_find.json."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: list[str]) -> None:
    """Parses, tests, writes, prints. Raises UserError, and RunFailedError where the losses suggest nothing."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as in training
    from fastcifar.cli.config_args import parse_with_config

    options = parse_with_config(LrFindArguments(), arguments, DESCRIPTION, prog="fastcifar lr-find")

    from fastcifar.analysis.lr_range import lr_range_test
    from fastcifar.analysis.rate_plots import draw_range_test
    from fastcifar.files import atomic_path, write_json
    from fastcifar.runtime.threads import keep_freed_memory

    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {options.out}: {error.strerror}; choose another --out") from None
    keep_freed_memory()
    test = lr_range_test(
        options.config, kind=options.kind, start=options.start, end=options.end, iterations=options.iterations
    )
    suggestions, failure = {}, None
    try:
        suggestions = test.suggest()
    except RunFailedError as error:
        suggestions, failure = {}, error
    else:
        failure = None
    write_json(options.out / "lr_find.json", as_json(test, suggestions, options.method, options.config))
    with atomic_path(options.out / "lr_find.png") as temporary:
        draw_range_test(test, suggestions, options.method).savefig(temporary, format="png")
    if failure is not None:
        raise RunFailedError(f"{failure}; {options.out / 'lr_find.png'} shows the losses")
    print(table(test, suggestions, options.method))
    print(f"curve     {options.out / 'lr_find.png'}")


def as_json(test: Any, suggestions: Mapping[Any, Any], method: str, config: Config) -> dict[str, Any]:
    """What was measured and suggested; null for a loss that is not finite, and where nothing is suggested."""
    chosen = suggestions.get(method)
    return {
        "recipe": test.recipe,
        "dataset": test.dataset,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "kind": test.kind,
        "from": float(test.rates[0]),
        "iterations": test.iterations,
        "diverged": test.diverged,
        "seconds": round(test.seconds, 4),
        "method": method,
        "max": None if chosen is None else chosen.maximum,
        "min": None if chosen is None else chosen.minimum,
        "suggestions": {name: {"max": found.maximum, "min": found.minimum} for name, found in suggestions.items()},
        "rates": test.rates.tolist(),
        "losses": [loss if math.isfinite(loss) else None for loss in test.losses.tolist()],
        "smoothed": {"rates": test.curve.rates.tolist(), "losses": test.curve.smooth.tolist()},
    }


def table(test: Any, suggestions: Mapping[Any, Any], method: str) -> str:
    """The suggestions as text; those from another set than CIFAR-10 are marked."""
    mark = not_cifar10(test.dataset)
    lines = ["method         max        min"]
    for name, found in suggestions.items():
        lines.append(f"{name:8}  {found.maximum:8.4g}  {found.minimum:9.4g}{'  *' if name == method else ''}{mark}")
    end = f"the loss diverged at {test.rates[-1]:.3g}" if test.diverged else f"no divergence up to {test.rates[-1]:.3g}"
    return "\n".join([*lines, f"test      {len(test.rates)} steps in {test.seconds:.1f} s; {end}{mark}"])
