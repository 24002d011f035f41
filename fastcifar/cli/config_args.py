"""Command-line flags of a configuration. A recipe is the start, then a TOML file, then single flags."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.errors import UserError
from fastcifar.recipes import RECIPES, load_config
from fastcifar.runs.record import CONFIG_NAME
from fastcifar.runs.resume import AUTO, unfinished

FOUND = "found"
T = TypeVar("T")


def parse_config(arguments: list[str], description: str) -> Config:
    """The configuration for `fastcifar train`.

    Raises UserError for an unknown recipe or flag and for a value that is refused.
    """
    recipe, arguments, description = _begin(arguments, description)
    kind: Any = tyro.conf.AvoidSubcommands[Config]
    return parse(kind, arguments, prog="fastcifar train", default=recipe, description=description)


def parse_with_config(default: T, arguments: list[str], description: str, *, prog: str) -> T:
    """Like `parse_config`, for a command with options of its own.

    `default` is their dataclass. Its field `config` has the type Annotated[Config, tyro.conf.arg(name="")]; the value
    there is replaced by the recipe.
    """
    recipe, arguments, description = _begin(arguments, description)
    filled: Any = replace(default, config=recipe)  # type: ignore[type-var]
    kind: Any = tyro.conf.AvoidSubcommands[type(default)]  # type: ignore[misc]
    return parse(kind, arguments, prog=prog, default=filled, description=description)


def take_lr(arguments: list[str]) -> tuple[list[str], bool]:
    """Expands `--lr RATE` to `--optimizer.lr RATE`; the second value is True for `--lr found`."""
    arguments, rate = _take(arguments, "--lr")
    if rate is None or rate == FOUND:
        return arguments, rate == FOUND
    try:
        float(rate)
    except ValueError:
        raise UserError(f"--lr is {rate!r}, but must be a learning rate or the word {FOUND}") from None
    return [*arguments, f"--optimizer.lr={rate}"], False


def take_resume(arguments: list[str]) -> tuple[list[str], str | None]:
    """Removes `--resume RUN` and returns its value. The settings of that run are put before the other arguments.

    Raises UserError if the run does not exist or is finished.
    """
    arguments, run = _take(arguments, "--resume")
    if run is None or run == AUTO:
        return arguments, run
    folder = unfinished(run, Path(_take(arguments, "--runs")[1] or Config().runs))
    return ["--config", str(folder / CONFIG_NAME), *arguments], str(folder)


def _begin(arguments: list[str], description: str) -> tuple[Config, list[str], str]:
    """The configuration of `--recipe` and `--config`, the other arguments, and the description with the recipe."""
    arguments, file = _take(arguments, "--config")
    arguments, name = _take(arguments, "--recipe")
    config = load_config(None if file is None else Path(file), name)
    others = ", ".join(other for other in RECIPES if other != config.recipe)
    about = f"Recipe: {config.recipe} ({(RECIPES[config.recipe].__doc__ or '').strip()})\n\nOther recipes: {others}"
    return config, arguments, f"{description}\n{about}"


def _take(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
    """Removes `flag` and its value from the arguments; of several values, the last one counts."""
    rest: list[str] = []
    value: str | None = None
    remaining = iter(arguments)
    for argument in remaining:
        if argument == flag:
            value = next(remaining, None)
            if value is None:
                raise UserError(f"{flag} needs a value")
        elif argument.startswith(f"{flag}="):
            value = argument.removeprefix(f"{flag}=")
        else:
            rest.append(argument)
    return rest, value
