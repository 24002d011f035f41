"""A process that trains candidates of a search, so that a crash or a full GPU memory ends it and not the search."""

import gc
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any, Self

import torch

from bench.time_to_accuracy import primary_metric
from bench.training import in_one_process
from fastcifar.config import Config
from fastcifar.errors import RunFailedError, reason


class SearchProcess:
    """The parent's side; a call trains one seed of a configuration. Use as a context manager."""

    def __enter__(self) -> Self:
        self._pool = _new_pool()
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def __call__(self, config: Config, seed: int) -> dict[str, Any]:
        """`run_s` and `accuracy` of the primary metric; raises RunFailedError, after a crash with a new process."""
        try:
            return self._pool.submit(_train, config, seed).result()
        except BrokenProcessPool:
            self._pool = _new_pool()
            raise RunFailedError("its process ended unexpectedly") from None
        except Exception as error:  # noqa: BLE001  (the search goes on, whatever it is)
            raise RunFailedError(reason(error)) from None


def _new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


_current: list[Any] = []  # in the child: the last configuration, how to train it, and the stack that ends it


def _train(config: Config, seed: int) -> dict[str, Any]:
    """Trains in the child; the preparations for a configuration are kept until another one comes."""
    if not _current or _current[0] != config:
        if _current:
            _current[2].close()
            _current.clear()
            gc.collect()  # the memory of the last network and its graphs
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        stack = ExitStack()
        _current[:] = [config, stack.enter_context(in_one_process(config)), stack]
    record = _current[1](seed)
    return {"run_s": record["clock"]["run_s"], "accuracy": record[primary_metric(record)]}
