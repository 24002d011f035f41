"""The command line of a configuration: the recipe first, then a TOML file, then the flags."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import tyro

from fastcifar.command_line import parse
from fastcifar.config import Config
from fastcifar.config_file import read_toml, to_arguments, with_kinds
from fastcifar.device import default_recipe
from fastcifar.errors import UserError, shown
from fastcifar.recipes import RECIPES

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
        prog="python -m fastcifar.train",
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


def _begin(arguments: list[str], description: str) -> tuple[Config, list[str], str]:
    """The recipe, the arguments with those of the TOML file in front, and the description with the recipe's."""
    arguments, file = take(arguments, "--config")
    arguments, name = take(arguments, "--recipe")
    table = {} if file is None else read_toml(Path(file))
    in_file = table.pop("recipe", None)
    name = in_file if name is None and in_file is not None else name or default_recipe()
    if not isinstance(name, str) or name not in RECIPES:
        raise UserError(f"no recipe is called {shown(name)}: choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    if file is not None:
        recipe = with_kinds(recipe, table, Path(file))
        arguments = to_arguments(table, recipe, Path(file)) + arguments
    others = ", ".join(other for other in RECIPES if other != name)
    about = f"Recipe: {name} ({(RECIPES[name].__doc__ or '').strip()})\nOthers: {others}"
    return recipe, arguments, f"{description}\n{about}"


def config_from_file(path: Path) -> Config:
    """The configuration in a TOML file; fields it lacks come from its recipe. Raises UserError."""
    return parse_config(["--config", str(path)], "")


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
