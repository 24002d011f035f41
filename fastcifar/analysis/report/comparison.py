"""Compares several runs: groups those with the same settings, averages each group, lists all differences."""

import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcifar.analysis.report.facts import ACCURACIES, CLOCKS
from fastcifar.analysis.statistics import Interval, interval
from fastcifar.config import Config
from fastcifar.config.toml import to_toml

NOT_COMPARED = {
    *("seed", "data", "runs", "checkpoint_every", "checkpoint_keep"),
    *("evaluate_every", "evaluation_batch_size", "loader", "threads"),  # no influence on accuracy; see `timing`
    *("device", "amp", "cpu_kernels"),  # may be "auto"; `settings` has the values that were used
}
"""Settings that may differ within a group."""


@dataclass(frozen=True, slots=True)
class Member:
    """A finished run in a comparison."""

    number: int
    """From 1, in the order of the command line."""
    folder: Path
    record: dict[str, Any]
    config: Config

    @property
    def settings(self) -> dict[str, str]:
        """Everything but the seed that determines its accuracy, as text by name."""
        table = _flat(tomllib.loads(to_toml(self.config)))
        used = {"device": "device", "amp": "number format", "cpu_kernels": "CPU kernels"}
        used |= {"dataset": "data", "dataset_sha256": "data, SHA-256"}
        return {name: str(value) for name, value in table.items() if name not in NOT_COMPARED} | {
            name: str(self.record.get(key)) for key, name in used.items()
        }

    @property
    def timing(self) -> dict[str, str]:
        """What else its times depend on, as text by name."""
        hardware = self.record["hardware"]
        return {
            "GPU": str(hardware.get("gpu", "none used")),
            "CPU": f"{hardware.get('cpu')}, {hardware.get('threads')} threads",
            "loader": str(self.record.get("loader", "not recorded")),
            "evaluate_every": str(self.config.evaluate_every),
        }

    @property
    def code(self) -> dict[str, str]:
        """Versions of the code and its libraries, as text by name."""
        commit, plus, changes = str(self.record.get("code_revision")).partition("+")
        versions = {f"version of {name}": str(version) for name, version in self.record["versions"].items()}
        return {"code revision": commit[:12] + plus + changes, **versions}


@dataclass(frozen=True, slots=True)
class Group:
    """Runs with the same settings; `distinct` leaves out repetitions with identical weights."""

    members: list[Member]
    distinct: list[Member]
    single: Interval
    tta: Interval
    clocks: dict[str, float | None]
    """Medians in seconds; None if `timing` differs within the group, or if a member lacks the clock."""


def groups(members: list[Member]) -> list[Group]:
    """Groups the members by their settings, in the order of their first members."""
    found: dict[tuple[tuple[str, str], ...], list[Member]] = {}
    for member in members:
        found.setdefault(tuple(member.settings.items()), []).append(member)
    return [_group(group) for group in found.values()]


def differences(members: list[Member]) -> list[tuple[str, list[str]]]:
    """Name, and value for each member, of everything but seeds and folders that is not the same in all members."""
    columns = [member.settings | member.timing | member.code for member in members]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, [column.get(name, "-") for column in columns]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _group(members: list[Member]) -> Group:
    distinct: dict[str, Member] = {}
    for member in members:
        distinct.setdefault(member.record["weights_sha256"], member)
    single, tta = (interval([member.record[key] for member in distinct.values()]) for key in ACCURACIES)
    alike = all(member.timing == members[0].timing for member in members)
    clocks: dict[str, float | None] = {}
    for name in (f"{clock}_s" for clock in CLOCKS):
        seconds = [member.record["clock"].get(name) for member in members]
        clocks[name] = statistics.median(seconds) if alike and None not in seconds else None
    return Group(members, list(distinct.values()), single, tta, clocks)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested tables, joining names by dots."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
