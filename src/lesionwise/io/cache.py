"""The user's cache folder: files that only save time and may be deleted at any moment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "LESIONWISE_CACHE"
"""Environment variable that names another folder; empty, nothing is kept."""


def cache_folder() -> Path | None:
    """The folder where lesionwise keeps what it would otherwise make again; it need not exist.

    ``LESIONWISE_CACHE`` where that is set, else ``lesionwise`` in the user's cache folder:
    ``$XDG_CACHE_HOME`` or ``~/.cache`` on Linux, ``~/Library/Caches`` on macOS,
    ``%LOCALAPPDATA%`` on Windows. None where the variable is empty or there is no home folder.

    Example:
        >>> folder = cache_folder()
        >>> folder is None or folder.is_absolute()
        True
    """
    stated = os.environ.get(VARIABLE)
    if stated is not None:
        return Path(stated).absolute() if stated else None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "lesionwise"
    of_system = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    own = home / "AppData" / "Local" if sys.platform == "win32" else home / ".cache"
    # a relative path there is to be ignored (XDG Base Directory Specification)
    return (Path(of_system) if Path(of_system).is_absolute() else own) / "lesionwise"
