"""Recipes: named, complete configurations. Every result of this project names the recipe that it was trained with."""

from collections.abc import Callable
from pathlib import Path

from fastcifar.config import Config
from fastcifar.config.toml import apply_table, read_toml
from fastcifar.errors import UserError, choose_one, shown
from fastcifar.recipes.baselines import BASELINES
from fastcifar.recipes.published import SYSTEMS
from fastcifar.recipes.speed import SPEED
from fastcifar.runtime.device import default_recipe

RECIPES: dict[str, Callable[[], Config]] = {recipe.__name__: recipe for recipe in (*SPEED, *SYSTEMS, *BASELINES)}


def load_config(file: Path | None = None, name: str | None = None) -> Config:
    """The recipe `name` with the values of the TOML file `file` in place of its own.

    Without `name`, the key `recipe` of the file names the recipe; without either it is the default for this machine.
    Raises UserError for an unknown recipe, a file that cannot be read, an unknown key and a value that is not allowed.
    """
    table = {} if file is None else read_toml(file)
    in_file = table.pop("recipe", None)
    name = in_file if name is None and in_file is not None else name or default_recipe()
    if not isinstance(name, str) or name not in RECIPES:
        raise UserError(f"no recipe is called {shown(name)}: {choose_one(name, RECIPES)}")
    config = RECIPES[name]()
    return config if file is None else apply_table(config, table, file)
