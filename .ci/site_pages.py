"""Hooks of `mkdocs.yml`: pages from outside docs/, and a build that fails if a page loads anything from elsewhere."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parent.parent
_OUTSIDE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "benchmarks/README.md",
    "benchmarks/peers/README.md",
    "docker/README.md",
    "docker/kubernetes/README.md",
    "model/bundled/MODEL_CARD.md",
)
_FOLDER = "repository"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_LOADED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that stand elsewhere in the repository."""
    for path in _OUTSIDE:
        files.append(File.generated(config, f"{_FOLDER}/{path}", abs_src_path=str(_ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Let links that are right in the repository be right on the site."""
    return _LINK.sub(lambda link: _moved(page.file.src_uri, link[1]), markdown)


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Refuse a page that loads a script, style, font or picture from elsewhere.

    Raises:
        PluginError: with what it loads.
    """
    if loaded := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads {loaded[0]}: put what it needs into docs/")
    return output


def _moved(page: str, target: str) -> str:
    """The address, relative to a page of the site, of what `target` is in the repository."""
    here = posixpath.dirname(_in_repository(page))
    there = posixpath.normpath(posixpath.join(here, target))
    return posixpath.relpath(_on_site(there), posixpath.dirname(page) or ".")


def _in_repository(page: str) -> str:
    return page.removeprefix(f"{_FOLDER}/") if page.startswith(f"{_FOLDER}/") else f"docs/{page}"


def _on_site(path: str) -> str:
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{_FOLDER}/{path}"
