"""What each Dask worker of this machine does when it starts (a Dask preload module)."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the call that the worker belongs to.

    A terminal sends it to the workers as well. One that heeds it ends by itself, with a traceback
    if it is not killed first, and its nanny may start another one meanwhile.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
