"""`python -m bench self_check`: what the self-check before a training finds for some recipes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.training import Device, recipe_config
from fastcifar.cli.parsing import parse
from fastcifar.errors import RunFailedError
from fastcifar.training.self_check import self_check


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run the self-check of recipes; exits with 1 if it finds something."""

    recipes: tuple[str, ...] = ("fast90", "fast94", "resnet24")
    """Names of the recipes."""
    device: Device = "auto"
    """Device to check."""
    quick: bool = False
    """Small networks, to check that the command works."""


def main(arguments: list[str]) -> None:
    """Prints a line for each recipe, and JSON as the last line. Raises RunFailedError if there is one."""
    options = parse(Options, arguments, prog="python -m bench self_check")
    checked: dict[str, dict[str, Any]] = {}
    for name in options.recipes:
        found, paths = self_check(recipe_config(name, Path("data"), options.device, quick=options.quick))
        checked[name] = {"findings": found, "paths": paths}
        print(f"{name}: {', '.join(paths.values())}; {'; '.join(found) or 'no findings'}", flush=True)
    print(json.dumps({"what": "self_check", "recipes": checked}))
    if wrong := [name for name, one in checked.items() if one["findings"]]:
        raise RunFailedError(f"the self-check found something for {', '.join(wrong)}; see above")
