"""Configurations as TOML. `--config` reads the config.toml that a run writes, and so repeats the run.

The keys are the fields of `Config`. In the sections of components `kind` selects one by name; `model = "resnet"` is
short for a section with nothing else. `import` lists the modules that register components of the user's own.
"""

import json
import tomllib
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fastcifar.config.registry import REGISTRIES, imported_modules
from fastcifar.config.schema import Config
from fastcifar.config.types import converted, described, field_hints
from fastcifar.errors import UserError, choose_one, shown
from fastcifar.files import read_at_most

IMPORT = "import"
"""Key of the modules that must be imported before the other keys are read."""
MAX_BYTES = 1 << 14
"""Largest file: a complete configuration has 700 bytes, and parsing dotted keys takes quadratic time."""
T = TypeVar("T")


def to_toml(config: Config) -> str:
    """All fields of `config` as TOML, which has no None: such fields are left out."""
    modules = list(imported_modules(config))
    lines: list[str] = [f"{IMPORT} = {_literal(tuple(modules))}"] if modules else []
    sections: list[str] = []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            sections += ["", f"[{field.name}]"]
            if field.name in REGISTRIES:
                sections.append(f'kind = "{REGISTRIES[field.name].name_of(value)}"')
            values = {inner.name: getattr(value, inner.name) for inner in fields(value)}
            sections += [f"{name} = {_literal(inner)}" for name, inner in values.items() if inner is not None]
        elif value is not None:
            lines.append(f"{field.name} = {_literal(value)}")
    return "\n".join(lines + sections) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    # numbers and strings are the same in JSON and TOML, except that TOML has no escaped surrogates and must escape DEL
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False).replace("\x7f", "\\u007f")


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file; raises UserError for a file that cannot be read or is not valid TOML."""
    try:
        return tomllib.loads(read_at_most(path, MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}; name a TOML file") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise UserError(f"{path} is not valid TOML: {error}") from None


def apply_table(config: T, table: dict[str, Any], path: Path, prefix: str = "") -> T:
    """A copy of the dataclass `config` with the values of `table`; `prefix` is that of its keys in messages.

    Raises UserError with `path`, the key and the value: for an unknown key, for a value of the wrong type, and for one
    that the dataclass refuses.
    """
    hints = field_hints(type(config))
    changed: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            raise UserError(f"{path} has the unknown key {shown(prefix + key)}: {choose_one(key, hints)}")
        current = getattr(config, key)
        if key in REGISTRIES and isinstance(value, str):
            value = {"kind": value}
        if is_dataclass(current) and isinstance(value, dict):
            section, rest = _of_kind(key, current, value, path)
            changed[key] = apply_table(section, rest, path, f"{key}.")
            continue
        try:
            changed[key] = converted(value, hints[key])
        except TypeError:
            wanted = f"a section with {', '.join(field_hints(type(current)))}" if is_dataclass(current) else None
            message = f"{prefix}{key} = {shown(value)}, but it must be {wanted or described(hints[key])}"
            raise UserError(f"{path} has {message}") from None
    try:
        return replace(config, **changed)  # type: ignore[type-var]
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _of_kind(section: str, current: Any, table: dict[str, Any], path: Path) -> tuple[Any, dict[str, Any]]:
    """The dataclass that a section's table applies to, and the table without `kind`.

    It is `current`, or the defaults of another component where `kind` names one.
    """
    if section not in REGISTRIES or "kind" not in table:
        return current, table
    rest = {key: value for key, value in table.items() if key != "kind"}
    try:
        component = REGISTRIES[section][table["kind"]]
    except UserError as error:
        raise UserError(f"{path}, {section}.kind: {error}") from None
    return (current if type(current) is component else component()), rest


def check_round_trip(config: Config) -> None:
    """Raises UserError if the file of a run could not give back its configuration."""
    table = tomllib.loads(to_toml(config))
    table.pop(IMPORT, None)
    found = apply_table(Config(), table, Path("config.toml"))
    if asdict(found) != asdict(config):  # not their classes: a notebook's cell makes new ones
        raise UserError("the configuration does not come back from a TOML file; use numbers, strings, tuples of them")
