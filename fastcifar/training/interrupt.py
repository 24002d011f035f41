"""Ctrl-C and SIGTERM while training: the first asks for a stop after the step, the second ends the process at once."""

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ASKED = b"\nstopping after this step; once more ends at once and leaves the last checkpoint\n"
SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar has hidden


class Interrupts:
    """Notices the signals while its block runs; in threads other than the main one, which get none, it does nothing."""

    def __init__(self) -> None:
        self.received: int | None = None
        """The first signal's number."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._notice) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
            os.write(2, ASKED)  # not print: the signal may have come in the middle of one
            return
        if sys.stderr.isatty():
            os.write(2, SHOW_CURSOR)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
