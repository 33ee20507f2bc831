"""Any other tool's command line as a method."""

from __future__ import annotations

import shlex
import string
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionwise.io.nifti import read_map, write_volume
from lesionwise.io.space import on_grid
from lesionwise.types import (
    InputError,
    LesionMaps,
    Method,
    Predictor,
    RunContext,
    Study,
    TrainingData,
    Volume,
    scan_of,
)


@dataclass(frozen=True)
class ExternalMethod:
    """A program that reads NIfTI files and writes a mask or a probability map.

    For each study the prepared scans are written to a temporary folder, the command is run there,
    and the file at ``{output}`` is read back. Placeholders of the command:

    - ``{flair}``, ``{t1w}`` …: that scan of the last visit
    - ``{baseline}``, ``{followup}``: the scan ``scan`` of the first and the last visit;
      ``{baseline_t1w}``, ``{followup_t1w}`` … another scan of theirs
    - ``{brain}``: the last visit's brain mask
    - ``{output}``: where the result is expected; ``{folder}``: the temporary folder
    - ``{run}``: the run's folder

    Attributes:
        command: one text, split like a shell does but run without one, so that file names
            with blanks or quotes are safe.
        scan: which scan ``{baseline}`` and ``{followup}`` are.
        output: name of the file the program writes, with its ending.
        timeout_s: a program that takes longer is stopped.
    """

    command: str
    scan: str = "flair"
    output: str = "output.nii.gz"
    timeout_s: float = 3600.0

    uses_validation = False
    """Nothing is chosen by validation studies."""

    def __post_init__(self) -> None:
        if "{output}" not in self.command and "{folder}" not in self.command:
            raise ValueError("the command has to name {output} or {folder}")

    def members(self) -> tuple[Method, ...]:
        """None."""
        return ()

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Learn nothing."""
        run.folder.mkdir(parents=True, exist_ok=True)

    def load(self, run: RunContext) -> Predictor:
        """The program, applied to studies."""

        def predict(study: Study) -> LesionMaps:
            with tempfile.TemporaryDirectory(prefix="lesionwise-") as name:
                return self._applied(study, Path(name), run)

        return predict

    def _applied(self, study: Study, folder: Path, run: RunContext) -> LesionMaps:
        grid = scan_of(study, study.followup, self.scan).grid
        target = folder / self.output
        known = {"output": target, "folder": folder, "run": run.folder}
        files, volumes = self._inputs(study, folder)
        arguments = []
        for word in shlex.split(self.command):
            wanted = _placeholders(word)
            unknown = [name for name in wanted if name not in known and name not in files]
            if unknown:
                raise InputError(f"sub-{study.subject}: the command needs {{{unknown[0]}}}")
            for name in wanted:
                if name in files and not files[name].exists():
                    write_volume(files[name], volumes[name])
            arguments.append(word.format_map({k: str(v) for k, v in (known | files).items()}))
        program = Path(arguments[0]).name
        _run(arguments, folder, self.timeout_s, f"sub-{study.subject}: {program}")
        if not target.is_file():
            raise InputError(f"sub-{study.subject}: {program} wrote no {self.output}")
        try:
            found, _ = read_map(target)
            found = on_grid(found, grid, f"what {program} wrote")
        except InputError as error:
            raise InputError(f"sub-{study.subject}: {error}") from error
        probability = np.asarray(found.array, dtype=np.float32)
        if probability.max(initial=0) > 1:
            probability = (probability > 0).astype(np.float32)
        return LesionMaps(probability, grid)

    def _inputs(self, study: Study, folder: Path) -> tuple[dict[str, Path], dict[str, Volume]]:
        """Files by placeholder, not yet written, and what goes into them."""
        volumes: dict[str, Volume] = {}
        places = {"baseline": study.baseline, "followup": study.followup}
        for place, visit in places.items():
            for name, volume in visit.scans.items():
                volumes[f"{place}_{name}"] = volume
        volumes |= dict(study.followup.scans)
        for place, visit in places.items():
            if self.scan in visit.scans:
                volumes[place] = visit.scans[self.scan]
        brain = study.followup.brain
        if brain is not None:
            volumes["brain"] = Volume(brain.array.astype(np.uint8), brain.grid)
        return {name: folder / f"{name}.nii.gz" for name in volumes}, volumes


def _placeholders(word: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(word) if name is not None]
    except ValueError as error:
        raise InputError(f"the command: {word}: {error}") from error


def _run(arguments: Sequence[str], folder: Path, timeout_s: float, name: str) -> None:
    """Run a program to its end.

    Raises:
        InputError: If it cannot be started, fails or takes too long; with the last line it
            wrote on standard error, or on standard output.
    """
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{name}: took longer than {timeout_s:g} s") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be started ({error.strerror})") from error
    if done.returncode:
        said = _last_line(done.stderr) or _last_line(done.stdout) or "it said nothing"
        raise InputError(f"{name}: ended with status {done.returncode}: {said}")


def _last_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
