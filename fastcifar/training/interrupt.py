"""Ctrl-C and SIGTERM while training: the first asks to stop after the step, the second ends the process immediately."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPING = b"\nstopping after this step; a second signal stops immediately and leaves the last checkpoint\n"
SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it


class Interrupts:
    """Records signals while its block runs. Does nothing outside the main thread, which alone receives signals."""

    def __init__(self) -> None:
        self.received: int | None = None
        """Number of the first signal."""
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers_before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
            os.write(2, STOPPING)  # not print, which the signal may have interrupted
            return
        if sys.stderr.isatty():
            os.write(2, SHOW_CURSOR)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
