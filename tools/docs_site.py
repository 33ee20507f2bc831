"""Hooks of the documentation site: pages outside docs/, and links that lead there.

On a code host the Markdown files link to each other and to sources by relative paths. On the site
the pages of ``OUTSIDE`` are added under their own paths; a link to a source file becomes its path
as text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "src/lesionwise/models/conflunet.md",
    "src/lesionwise/models/unet-cc.md",
    "src/lesionwise/models/brain.md",
)
LINK = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between docs/ and the rest of the repository, as they hold on the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(here if here in OUTSIDE else f"docs/{here}")

    def on_site(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        goal = posixpath.normpath(posixpath.join(folder, target))
        uri = goal.removeprefix("docs/")
        if uri in files.src_uris:
            return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{anchor})"
        if not (ROOT / goal).exists():
            return link[0]  # broken: the strict build says so
        return text if posixpath.basename(goal) in text else f"{text} (`{goal}`)"

    return LINK.sub(on_site, markdown)
