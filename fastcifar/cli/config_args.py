"""Command-line flags of a configuration. A recipe is the start, then a TOML file, then single flags."""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import tyro

from fastcifar.cli.parsing import parse
from fastcifar.config import Config
from fastcifar.config.registry import REGISTRIES, import_module
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
    """The configuration of `--recipe`, `--config` and the components named; the other arguments; the description.

    Loads the modules of `--import` first, because they register components.
    """
    arguments, modules = _take_all(arguments, "--import")
    for module in modules:
        import_module(module)
    arguments, file = _take(arguments, "--config")
    arguments, name = _take(arguments, "--recipe")
    config = load_config(None if file is None else Path(file), name)
    for section, registry in REGISTRIES.items():
        arguments, chosen = _take(arguments, _flag(section))
        if chosen is not None and registry[chosen] is not type(getattr(config, section)):
            config = replace(config, **{section: registry[chosen]()})
    return config, arguments, f"{description}\n{_about(config)}"


def _about(config: Config) -> str:
    """The recipe and the components of `config`, and the names of all others."""
    recipes = ", ".join(other for other in RECIPES if other != config.recipe)
    lines = [
        f"Recipe: {config.recipe} ({(RECIPES[config.recipe].__doc__ or '').strip()})",
        f"Other recipes: {recipes}",
        "",
    ]
    for section, registry in REGISTRIES.items():
        current = registry.name_of(getattr(config, section))
        others = ", ".join(name for name in registry.names() if name != current)
        lines.append(f"{_flag(section) + ' NAME':18}{current}; others: {others}")
    return "\n".join(lines)


def _flag(section: str) -> str:
    return f"--{section.replace('_', '-')}"


def _take(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
    """Removes `flag` and its value from the arguments; of several values, the last one counts."""
    rest, values = _take_all(arguments, flag)
    return rest, values[-1] if values else None


def _take_all(arguments: list[str], flag: str) -> tuple[list[str], list[str]]:
    """Removes every `flag` and its value from the arguments."""
    rest: list[str] = []
    values: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == flag:
            value = next(remaining, None)
            if value is None:
                raise UserError(f"{flag} needs a value")
            values.append(value)
        elif argument.startswith(f"{flag}="):
            values.append(argument.removeprefix(f"{flag}="))
        else:
            rest.append(argument)
    return rest, values
