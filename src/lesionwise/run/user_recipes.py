"""Modules of users' recipe files, which other processes can import too.

A recipe file is no part of a package, so the module made of it has a name that tells its path:
``lesionwise.run.user_recipes.p_`` and the bytes of the path in hexadecimal digits. Processes that
are started afresh ("spawn", "forkserver") get objects of such a file by pickle. They import this
module for the name of the object's class, and this module finds the file.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from lesionwise.types import InputError

PREFIX = f"{__name__}.p_"
__path__: list[str] = []  # to Python, a package without files: modules below it are looked for


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(PREFIX):
            return None
        return importlib.util.spec_from_file_location(name, _path_of(name))


def module_of_file(path: Path) -> ModuleType:
    """The module of a recipe file, run again at each call.

    Raises:
        InputError: If there is no such file, or if running it fails.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such recipe file")
    name = PREFIX + os.fsencode(path.resolve()).hex()
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    return module


def _path_of(name: str) -> str:
    return os.fsdecode(bytes.fromhex(name.removeprefix(PREFIX)))


sys.meta_path.append(_Finder())
