"""The flags of a configuration: the recipe first, then a TOML file, then the flags."""

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
    """The configuration that `arguments` ask for.

    Raises UserError for an unknown recipe or a value that is refused; unknown flags and values of another type end
    the process with 2 and tyro's explanation.
    """
    recipe, arguments, description = _begin(arguments, description)
    return parse(
        tyro.conf.AvoidSubcommands[Config],
        arguments,
        prog="fastcifar train",
        default=recipe,
        description=description,
    )


def parse_with_config(default: T, arguments: list[str], description: str, *, prog: str) -> T:
    """The same for a command with flags of its own.

    `default` is a dataclass of them with a field `config` of type Annotated[Config, tyro.conf.arg(name="")]; the
    recipe replaces what stands there.
    """
    recipe, arguments, description = _begin(arguments, description)
    filled: Any = replace(default, config=recipe)  # type: ignore[type-var]
    kind: Any = tyro.conf.AvoidSubcommands[type(default)]  # type: ignore[misc]
    return parse(kind, arguments, prog=prog, default=filled, description=description)


def take_rate(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments with `--lr RATE` spelt out as `--optimizer.lr RATE`, and whether `--lr found` asks to find it."""
    arguments, rate = take(arguments, "--lr")
    if rate is None or rate == FOUND:
        return arguments, rate == FOUND
    try:
        float(rate)
    except ValueError:
        raise UserError(f"--lr is {rate!r}, but must be a learning rate or the word {FOUND}") from None
    return [*arguments, f"--optimizer.lr={rate}"], False


def take_resume(arguments: list[str]) -> tuple[list[str], str | None]:
    """A command's arguments without `--resume`, and its value; the settings of a run it names come in front.

    Raises UserError for a run that is not there, or finished.
    """
    arguments, run = take(arguments, "--resume")
    if run is None or run == AUTO:
        return arguments, run
    folder = unfinished(run, Path(take(arguments, "--runs")[1] or Config().runs))
    return ["--config", str(folder / CONFIG_NAME), *arguments], str(folder)


def _begin(arguments: list[str], description: str) -> tuple[Config, list[str], str]:
    """The configuration of `--recipe` and `--config`, the other arguments, and the description with the recipe's."""
    arguments, file = take(arguments, "--config")
    arguments, name = take(arguments, "--recipe")
    config = load_config(None if file is None else Path(file), name)
    others = ", ".join(other for other in RECIPES if other != config.recipe)
    about = f"Recipe: {config.recipe} ({(RECIPES[config.recipe].__doc__ or '').strip()})\nOthers: {others}"
    return config, arguments, f"{description}\n{about}"


def take(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
    """The arguments without `flag` and its value, and the last value given to it."""
    rest: list[str] = []
    value: str | None = None
    waiting = iter(arguments)
    for argument in waiting:
        if argument == flag:
            value = next(waiting, None)
            if value is None:
                raise UserError(f"{flag} needs a value")
        elif argument.startswith(f"{flag}="):
            value = argument.removeprefix(f"{flag}=")
        else:
            rest.append(argument)
    return rest, value
