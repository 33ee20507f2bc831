"""What README and docs tell a reader to type exists."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from lesionwise.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.md")])
COMMANDS = get_command(app).commands
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}\S[^\n]*\n?)+", re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")


def lines_of(text):
    """The lines of code of a page: of blocks, with continued lines joined, and in running text."""
    blocks = FENCE.findall(text)
    rest = FENCE.sub("", text)
    blocks += INDENTED.findall(rest)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return joined.splitlines() + [" ".join(s.split()) for s in SPAN.findall(rest)]


def calls_of(text):
    """The words behind each ``lesionwise`` that is called, up to the end of that call."""
    for line in lines_of(text):
        if not re.search(r"(^|[\s;&|(])lesionwise [a-z-]", line):
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a shell's own syntax, such as a quote that goes on
            words = line.split()
        for place, word in enumerate(words[:-1]):
            if word != "lesionwise":
                continue
            call = []
            for following in words[place + 1 :]:
                if following in ("|", "&&", ";", ">", "&", ")"):
                    break
                call.append(following)
            yield call


def unknown_in(call):
    """What of a call does not exist: the command, or its options."""
    name, *words = call
    if name.startswith("-"):
        return [] if name in ("--help", "-h", "--version") else [name]
    if name == "COMMAND":
        return []
    if name not in COMMANDS:
        return [name]
    known = {"--help", "-h"}
    for parameter in COMMANDS[name].params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    options = [word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return [option for option in options if option not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_a_page_exist(page):
    calls = list(calls_of(page.read_text(encoding="utf-8")))
    faults = {" ".join(call): unknown_in(call) for call in calls if unknown_in(call)}
    assert not faults


def test_every_command_is_explained_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {call[0] for call in calls_of(text)} >= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_scripts_and_pages_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"python ((?:benchmarks|tools)/\w+\.py)", text)
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    missing = [name for name in scripts if not (ROOT / name).is_file()]
    missing += [name for name in links if not (page.parent / name).exists()]
    assert not missing


def test_a_stale_option_and_a_stale_command_are_found():
    page = "Run `lesionwise segment a.nii -o b --colour`:\n```\nlesionwise nosuch \\\n  x\n```\n"
    calls = list(calls_of(page))
    assert calls == [["nosuch", "x"], ["segment", "a.nii", "-o", "b", "--colour"]]
    assert [unknown_in(call) for call in calls] == [["nosuch"], ["--colour"]]
