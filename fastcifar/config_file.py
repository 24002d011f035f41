"""Configurations as TOML: what a run writes beside its result can be given back to `--config` and repeats it."""

import json
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from fastcifar.config import Config
from fastcifar.errors import UserError


def to_toml(config: Config) -> str:
    """Every field of `config`; fields that are None are left out, as TOML has no such value."""
    lines: list[str] = []
    sections: list[tuple[str, Any]] = []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            sections.append((field.name, value))
        elif value is not None:
            lines.append(f"{field.name} = {_literal(value)}")
    for name, section in sections:
        lines += ["", f"[{name}]"]
        lines += [f"{field.name} = {_literal(getattr(section, field.name))}" for field in fields(section)]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value)  # JSON's strings and numbers are TOML's


def read_arguments(path: Path) -> list[str]:
    """The command-line arguments that say the same as the TOML file, so that both are checked in one place."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}; name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    return _arguments(table, "")


def _arguments(table: dict[str, Any], prefix: str) -> list[str]:
    arguments: list[str] = []
    for key, value in table.items():
        name = prefix + key.replace("_", "-")
        if isinstance(value, dict):
            arguments += _arguments(value, f"{name}.")
        elif isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--{prefix}no-{key.replace('_', '-')}")
        else:
            arguments += [f"--{name}", *_flat(value)]
    return arguments


def _flat(value: Any) -> list[str]:
    return [text for item in value for text in _flat(item)] if isinstance(value, list) else [str(value)]
