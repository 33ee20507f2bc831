"""What Windows and macOS lack is not needed; text files are UTF-8 on every system."""

import ast
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import lesionwise

SOURCE = Path(lesionwise.__file__).parent
FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

POSIX_MODULES = (
    *("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"),
    *("crypt", "readline", "spwd", "nis", "curses"),
)
POSIX_NAMES = {
    "os": {
        *("fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "getpgid", "getpgrp"),
        *("setpgid", "setsid", "setuid", "killpg", "wait", "waitid", "wait3", "wait4", "nice"),
        *("getpriority", "sched_getaffinity", "sched_setaffinity", "sched_yield", "statvfs"),
        *("fstatvfs", "uname", "sysconf", "pathconf", "chown", "fchown", "lchown", "fchmod"),
        *("mkfifo", "mknod", "chroot", "getloadavg", "ttyname", "openpty", "sendfile"),
        *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "O_SYNC", "O_DSYNC"),
    },
    "signal": {
        *("SIGKILL", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE"),
        *("SIGSTOP", "SIGTSTP", "SIGCONT", "SIGWINCH", "alarm", "setitimer", "pause"),
        *("pthread_kill", "pthread_sigmask", "sigwait", "siginterrupt"),
    },
    "time": {"tzset", "clock_gettime", "pthread_getcpuclockid"},
}
EXTRAS = ("nnunetv2", "batchgeneratorsv2", "distributed", "dask", "pydicom", "highdicom", "ants",
          "openvino", "lightgbm", "psutil", "dynamic_network_architectures")  # fmt: skip

RUN_WITHOUT = """
import builtins, importlib, pkgutil, sys
blocked, extras = sys.argv[1].split(","), sys.argv[2].split(",")
load = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    asks = (globals or {}).get("__name__", "")
    if level == 0 and name.partition(".")[0] in blocked and asks.startswith("lesionwise"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return load(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
import lesionwise
for module in pkgutil.walk_packages(lesionwise.__path__, "lesionwise."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in extras:
            raise
from lesionwise.cli import main
from lesionwise.processes import own_cores, own_peak_gb
own_cores(), own_peak_gb()
sys.argv = ["lesionwise", *sys.argv[3:]]
main()
"""


def test_every_module_loads_and_a_command_runs_without_posix_modules(tmp_path):
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:5, 2:5, 2:5] = labels[7:10, 7:10, 7:10] = 1
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "a.nii.gz")
    command = ["split", str(tmp_path / "a.nii.gz"), "-o", str(tmp_path / "out")]
    listed = [",".join(POSIX_MODULES), ",".join(EXTRAS)]
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT, *listed, *command],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = (tmp_path / "out").glob("*_dseg.nii.gz")
    assert np.asarray(nib.load(made).dataobj).max() == 2


def _calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def _keywords(call):
    return {keyword.arg for keyword in call.keywords}


def _is_text_without_encoding(call):
    """Whether a call opens a text file, or reads text of a program, in the system's encoding."""
    if "encoding" in _keywords(call):
        return False
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    constants = [each.value for each in call.args if isinstance(each, ast.Constant)]
    if name == "read_text":
        return not call.args
    if name == "write_text" and isinstance(call.func, ast.Attribute):
        return len(call.args) < 2
    if name in ("run", "Popen", "check_output"):
        return bool({"text", "universal_newlines"} & _keywords(call))
    if name in ("NamedTemporaryFile", "TemporaryFile", "fdopen"):
        return not any("b" in str(value) for value in constants)
    if name == "open":
        modes = [value for value in constants if isinstance(value, str) and set(value) <= MODES]
        is_built_in = isinstance(call.func, ast.Name)
        others = is_built_in or not call.args  # a part of a recipe has an ``open`` of its own
        return any("b" not in mode for mode in modes) if modes else others
    return False


MODES = set("rwaxbt+")


@pytest.mark.parametrize("line", [
    "path.read_text()", "path.write_text(text)", "open(path)", "open(path, 'w')", "path.open()",
    "path.open('a')", "run(words, text=True)", "NamedTemporaryFile('w')",
])  # fmt: skip
def test_text_in_an_encoding_that_depends_on_the_system_is_seen(line):
    assert any(map(_is_text_without_encoding, _calls(ast.parse(line))))


@pytest.mark.parametrize("line", [
    "path.read_text('utf-8')", "path.open('rb')", "open(path, 'xb')", "write_text(path, text)",
    "path.open('a', encoding='utf-8')", "samples.open(data, reading)", "gzip.open(file)",
])  # fmt: skip
def test_text_in_a_named_encoding_and_bytes_are_not(line):
    assert not any(map(_is_text_without_encoding, _calls(ast.parse(line))))


@pytest.mark.parametrize("file", FILES)
def test_encodings_are_named_and_posix_names_are_guarded(file):
    text = (SOURCE / file).read_text(encoding="utf-8")
    tree = ast.parse(text)
    bare = [call.lineno for call in _calls(tree) if _is_text_without_encoding(call)]
    assert not bare, f"{file}: no encoding in lines {bare}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = node.value.id, node.attr
            if name in POSIX_NAMES.get(module, ()):
                assert f'hasattr({module}, "{name}")' in text, f"{file}:{node.lineno}: {name}"
