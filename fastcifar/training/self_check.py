"""The self-check of a GPU without a data set: for `fastcifar doctor` and the benchmarks."""

import tempfile
from dataclasses import replace
from pathlib import Path

from fastcifar.config import Config
from fastcifar.data.prepared import write_set
from fastcifar.data.sources.synthetic import synthetic_set
from fastcifar.runtime.device import select_runtime
from fastcifar.runtime.threads import run_settings
from fastcifar.training.context import RunContext
from fastcifar.training.prepared import PreparedTraining


def self_check(config: Config) -> tuple[list[str], dict[str, str]]:
    """What is wrong on the GPU for runs of `config`, a sentence each, and the ways that runs would take.

    Prepares a run on a small synthetic set as a training does. On a CPU there is nothing to find.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_set(synthetic_set(train=2 * config.batch_size, test=config.evaluation_batch_size, seed=0), Path(folder))
        context = RunContext(replace(config, data=Path(folder), strict=False), select_runtime(config))
        with run_settings(context.runtime, deterministic=config.deterministic):
            prepared = PreparedTraining(context)
    return prepared.findings, prepared.paths
