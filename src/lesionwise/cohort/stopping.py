"""Ctrl-C and SIGTERM while subjects are computed: noticed for certain, acted on in one place."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The work was asked to stop and has stopped.

    Attributes:
        status: exit status by the shells' custom: 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class StopRequest:
    """Whether the work was asked to stop; asked again, the process ends at once.

    A signal only leaves a note. Raising from it, as Python does for Ctrl-C, would raise from
    whatever line of Dask or of a destructor happens to run, some of which swallow it.
    """

    def __init__(self) -> None:
        self.number = 0

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal."""
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number

    def check(self) -> None:
        """Go on, or end the work.

        Raises:
            Stopped: If a signal has come.
        """
        if self.number:
            raise Stopped(self.number)


@contextmanager
def heeding_signals() -> Iterator[StopRequest]:
    """A request that Ctrl-C and SIGTERM make while the block runs.

    Outside the main thread, where Python takes no signals, nobody makes it.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
