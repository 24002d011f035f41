"""Several runs side by side: which ones repeat each other, what those come to, and in what the others differ."""

import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcifar.analysis.statistics import interval
from fastcifar.config import Config
from fastcifar.config.toml import to_toml

NOT_COMPARED = {
    *("seed", "data", "runs", "checkpoint_every", "checkpoint_keep"),
    *("evaluate_every", "evaluation_batch_size", "loader", "threads"),  # no influence on accuracy; see `timing`
    *("device", "amp", "cpu_kernels"),  # what was asked for; what was used is compared
}
"""Settings in which runs that repeat each other may differ."""
CLOCKS = ("train_s", "run_s", "process_s")


@dataclass(frozen=True, slots=True)
class Member:
    """A finished run among others."""

    number: int
    """From 1, in the order in which they were named."""
    folder: Path
    record: dict[str, Any]
    config: Config

    @property
    def settings(self) -> dict[str, str]:
        """All that its accuracy follows from but the seed, as text by name."""
        table = _flat(tomllib.loads(to_toml(self.config)))
        used = {"device": "device", "amp": "arithmetic", "cpu_kernels": "kernels on a CPU"}
        used |= {"dataset": "data", "dataset_sha256": "data, SHA-256"}
        return {name: str(value) for name, value in table.items() if name not in NOT_COMPARED} | {
            name: str(self.record.get(key)) for key, name in used.items()
        }

    @property
    def timing(self) -> dict[str, str]:
        """What its times depend on besides, as text by name."""
        hardware = self.record["hardware"]
        return {
            "GPU": str(hardware.get("gpu", "none used")),
            "CPU": f"{hardware.get('cpu')}, {hardware.get('threads')} threads",
            "loader": str(self.record.get("loader", "not recorded")),
            "evaluate_every": str(self.config.evaluate_every),
        }

    @property
    def code(self) -> dict[str, str]:
        """The versions it was made with, as text by name."""
        commit, plus, changes = str(self.record.get("code_revision")).partition("+")
        versions = {f"version of {name}": str(version) for name, version in self.record["versions"].items()}
        return {"code revision": commit[:12] + plus + changes, **versions}


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of n runs: their mean and half the width of its 95% interval, which a single run does not have."""

    mean: float
    half: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of the same settings. Those with the same weights are one run, however often it was made."""

    members: list[Member]
    distinct: list[Member]
    plain: Spread
    more: Spread
    clocks: dict[str, float | None]
    """Medians in seconds; None where the members' `timing` differs, or one does not know."""


def groups(members: list[Member]) -> list[Group]:
    """The members by their settings, in the order of the first of each."""
    found: dict[tuple[tuple[str, str], ...], list[Member]] = {}
    for member in members:
        found.setdefault(tuple(member.settings.items()), []).append(member)
    return [_group(some) for some in found.values()]


def differences(members: list[Member]) -> list[tuple[str, list[str]]]:
    """Name and values by member of all but seeds and folders that is not the same in all of them."""
    columns = [member.settings | member.timing | member.code for member in members]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, [column.get(name, "-") for column in columns]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _group(members: list[Member]) -> Group:
    distinct: dict[str, Member] = {}
    for member in members:
        distinct.setdefault(member.record["weights_sha256"], member)
    plain, more = (
        _spread([member.record[key] for member in distinct.values()]) for key in ("test_accuracy", "test_accuracy_tta")
    )
    alike = all(member.timing == members[0].timing for member in members)
    clocks: dict[str, float | None] = {}
    for name in CLOCKS:
        seconds = [member.record["clock"][name] for member in members]
        clocks[name] = statistics.median(seconds) if alike and None not in seconds else None
    return Group(members, list(distinct.values()), plain, more, clocks)


def _spread(values: list[float]) -> Spread:
    mean, _, half = interval(values)
    return Spread(mean, half)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
