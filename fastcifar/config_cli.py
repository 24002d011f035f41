"""The command line of a configuration: the recipe first, then a TOML file, then the flags."""

from pathlib import Path

import tyro

from fastcifar.command_line import parse
from fastcifar.config import Config
from fastcifar.config_file import read_arguments
from fastcifar.device import default_recipe
from fastcifar.errors import UserError
from fastcifar.recipes import RECIPES


def parse_config(arguments: list[str], description: str) -> Config:
    """The configuration that `arguments` ask for.

    Raises UserError for an unknown recipe or a value that is refused; unknown flags and values of another type end
    the process with 2 and tyro's explanation.
    """
    arguments, file = _taken(arguments, "--config")
    if file is not None:
        arguments = read_arguments(Path(file)) + arguments
    arguments, name = _taken(arguments, "--recipe")
    name = default_recipe() if name is None else name
    if name not in RECIPES:
        raise UserError(f"no recipe is called {name!r}: choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    return parse(
        tyro.conf.AvoidSubcommands[Config],
        arguments,
        prog="python -m fastcifar.train",
        default=recipe,
        description=f"{description}\nRecipe: {name} ({(RECIPES[name].__doc__ or '').strip()})\n"
        f"Others: {', '.join(other for other in RECIPES if other != name)}",
    )


def config_from_file(path: Path) -> Config:
    """The configuration in a TOML file; fields it lacks come from its recipe. Raises UserError."""
    return parse_config(["--config", str(path)], "")


def _taken(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
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
