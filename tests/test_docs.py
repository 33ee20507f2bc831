"""What README and docs tell a reader to type exists."""

import importlib
import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from lesionwise.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")])
GUIDES = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
MAX_WORDS = 1500
COMMANDS = get_command(app).commands
GENERAL = {"--help", "-h"}.union(*(p.opts for p in get_command(app).params))
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
        return [] if name in GENERAL else [name]
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


def title(page):
    return page.relative_to(ROOT).as_posix()


def without_code(text):
    return SPAN.sub("", FENCE.sub("", text))


def anchors_of(text):
    """The anchors of a page's headings, as GitHub and the documentation site make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def broken_links(page, text):
    """Relative links of a page that lead to no file, or to no heading of a Markdown file."""
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", without_code(text)):
        goal = page.parent / target if target else page
        if not goal.exists():
            yield target
        elif anchor and anchor not in anchors_of(goal.read_text(encoding="utf-8")):
            yield f"{target}#{anchor}"


def broken_tables(text):
    """Lines of a page's tables that a renderer takes for text, or that have too many cells."""
    columns, previous = 0, ""
    for line in FENCE.sub("", text).splitlines():
        if not line.startswith("|"):
            columns = 0
        else:
            cells = len(re.findall(r"(?<!\\)\|", line)) - 1
            if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line):
                columns = cells if previous.startswith("|") and not columns else 0
                if not columns:
                    yield line
            elif columns and cells != columns:
                yield line
            elif not columns and previous.startswith("|"):
                yield line  # a second row without a line of dashes: no table at all
        previous = line
    rows = re.findall(r"^\|.*\n\n\|.*\n(?!\|\s*:?-)", FENCE.sub("", text), re.MULTILINE)
    yield from rows  # a blank line inside


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_scripts_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"python ((?:benchmarks|tools)/\w+\.py)", text)
    scripts += re.findall(r"pytest (tests/[\w/]+\.py)", text)
    assert [name for name in scripts if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_to_files_and_headings(page):
    assert list(broken_links(page, page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_tables_are_whole(page):
    assert list(broken_tables(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", GUIDES, ids=title)
def test_a_page_is_not_too_long(page):
    assert len(page.read_text(encoding="utf-8").split()) <= MAX_WORDS


def test_every_page_is_linked_from_the_index():
    index = ROOT / "docs" / "README.md"
    linked = re.findall(r"\]\(([^)#:]+)", index.read_text(encoding="utf-8"))
    assert {(index.parent / name).resolve() for name in linked} >= {*GUIDES} - {index}


def test_pages_that_code_names_are_there():
    sources = [
        p
        for folder in ("src", "tests", "benchmarks", "tools")
        for p in (ROOT / folder).rglob("*.py")
    ]
    named = {
        (title(source), name)
        for source in sources
        for name in re.findall(r"\bdocs/[\w/-]+\.(?:md|png)", source.read_text(encoding="utf-8"))
    }
    assert named
    assert [(source, name) for source, name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_examples_import_what_exists(page):
    """Every import of an example, and every dotted name of the package, leads somewhere."""
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"`(lesionwise(?:\.\w+)+)`", text))
    for module, imported in re.findall(r"^ *from (lesionwise[\w.]*) import ([\w, ]+)", text, re.M):
        names |= {f"{module}.{name.strip()}" for name in imported.split(",")}
    assert sorted(name for name in names if not resolves(name)) == []


def resolves(name):
    module, _, attribute = name.rpartition(".")
    if importlib.util.find_spec(module) is None:
        return False
    return hasattr(importlib.import_module(module), attribute) or is_module(name)


def is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_a_broken_link_and_a_broken_table_are_found(tmp_path):
    page = tmp_path / "page.md"
    text = "# A page\n\n[a](gone.md) [b](#nowhere) [c](#a-page) [d](https://example.org/x)\n"
    page.write_text(text, encoding="utf-8")
    assert list(broken_links(page, text)) == ["gone.md", "#nowhere"]
    whole = "| a | b |\n| --- | --- |\n| 1 | `x\\|y` |\n"
    assert list(broken_tables(whole)) == []
    assert list(broken_tables(whole + "\n| 3 | 4 |\nend\n"))
    assert list(broken_tables(whole + "| 5 | 6 | 7 |\n"))
    assert list(broken_tables(whole + "| 5 | `x|y` |\n"))


def test_a_stale_option_and_a_stale_command_are_found():
    page = "Run `lesionwise segment a.nii -o b --colour`:\n```\nlesionwise nosuch \\\n  x\n```\n"
    calls = list(calls_of(page))
    assert calls == [["nosuch", "x"], ["segment", "a.nii", "-o", "b", "--colour"]]
    assert [unknown_in(call) for call in calls] == [["nosuch"], ["--colour"]]


def test_the_drawing_of_the_architecture_shows_the_layers_that_are_checked():
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawing = FENCE.search((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
    assert drawing is not None
    drawn = [re.split(r" {3,}", line.strip())[0] for line in drawing[1].splitlines()]
    assert drawn == layers
