"""Data sets of tiny scans, and jobs that need no model."""

import sys
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "run"))  # for heads.py

import lesionwise


@pytest.fixture(scope="session")
def client_in_this_process():
    """Stands where worker processes would: a thread of this one."""
    distributed = pytest.importorskip("distributed")

    @contextmanager
    def client(workers, subjects):
        options = {"processes": False, "n_workers": 1, "threads_per_worker": 1}
        with distributed.Client(**options, dashboard_address=":0") as client:
            yield client, 0

    return client


@pytest.fixture
def settings():
    return {"threshold": 0.5, "version": lesionwise.__version__}


@pytest.fixture
def dataset(tmp_path):
    """Write the FLAIR files of (subject, session) pairs; their content is their name."""

    def write(*visits):
        for subject, session in visits:
            folder = tmp_path / "bids" / f"sub-{subject}"
            name = f"sub-{subject}_FLAIR.nii.gz"
            if session:
                folder /= f"ses-{session}"
                name = f"sub-{subject}_ses-{session}_FLAIR.nii.gz"
            path = folder / "anat" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path / "bids"

    return write


@pytest.fixture
def fake_job(tmp_path):
    """A job that notes each subject it is begun for; workers can be told to fail, die or wait.

    It is made inside a function so that it travels to workers by value.
    """

    def make(fails: Mapping[str, str] | None = None, dies: str = "", times: int = 1):
        log = tmp_path / "begun"
        log.mkdir(exist_ok=True)
        faults = dict(fails or {})

        def job(subject, folder, settings):
            import os
            import secrets
            import signal

            from lesionwise.types import InputError

            (log / f"{subject.label}-{secrets.token_hex(4)}").touch()
            if subject.label in faults:
                if faults[subject.label] == "bug":
                    raise KeyError("bug")
                raise InputError(faults[subject.label])
            anat = folder / f"sub-{subject.label}" / "anat"
            anat.mkdir(parents=True, exist_ok=True)
            (anat / "half").write_text("half")
            if subject.label == dies and len(list(log.glob(f"{dies}-*"))) <= times:
                os.kill(os.getpid(), signal.SIGKILL)
            (anat / "half").rename(anat / "whole")
            (folder / "index.html").write_text(subject.label)
            return {}

        def begun():
            names = [path.name.rsplit("-", 1)[0] for path in log.iterdir()]
            return {name: names.count(name) for name in set(names)}

        return job, begun

    return make
