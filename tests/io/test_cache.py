"""The user's cache folder is where the system says, or the user."""

from pathlib import Path

import pytest

from lesionwise.io import cache
from lesionwise.io.cache import cache_folder


@pytest.fixture
def on(monkeypatch, tmp_path):
    """A system with a home folder and none of the variables set."""

    def named(platform):
        for name in (cache.VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(cache.sys, "platform", platform)
        monkeypatch.setattr(Path, "home", lambda: tmp_path / "ada")

    return named


@pytest.mark.parametrize(
    ("platform", "folder"),
    [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")],
)
def test_each_system_has_its_own_place(on, tmp_path, platform, folder):
    on(platform)
    assert cache_folder() == tmp_path / "ada" / folder / "lesionwise"


def test_the_user_may_name_another_folder_or_none(on, monkeypatch, tmp_path):
    on("linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lesionwise"
    monkeypatch.setenv("LESIONWISE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("LESIONWISE_CACHE", "")
    assert cache_folder() is None


def test_a_relative_path_of_the_system_does_not_count(on, monkeypatch, tmp_path):
    on("linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert cache_folder() == tmp_path / "ada" / ".cache" / "lesionwise"


def test_without_a_home_folder_nothing_is_kept(on, monkeypatch):
    on("linux")

    def nowhere():
        raise RuntimeError("no home folder")

    monkeypatch.setattr(Path, "home", nowhere)
    assert cache_folder() is None
