"""The examples of README and docs: every command of a `sh` or `console` block, every `python` block as a whole."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_EXAMPLES = {"text", "json", "yaml", "dockerfile"}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A line with those that it goes on with: after a backslash, or as the text of <<END.
_COMMAND = re.compile(r"(?:.*\\\n)*.*<<(?P<end>\w+)\n(?:.*\n)*?(?P=end)\n|(?:.*\\\n)*.*\n")
_REMARK = re.compile(r"\s+# .*")
_WRAP = re.compile(r"\s*\\\n\s*")

Filling = Callable[[str], str]
Shell = Callable[[str], tuple[int, str, str]]


@dataclass(frozen=True)
class Example:
    """One command or program of a page."""

    page: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.splitlines()[0][:60]}"


def pages() -> list[Path]:
    """What users read."""
    return [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return _FENCE.findall(page.read_text("utf-8"))


def examples(page: Path) -> Iterator[Example]:
    """What a reader of this page may try."""
    name = str(page.relative_to(ROOT))
    for language, text in blocks(page):
        if language == "python":
            yield Example(name, language, text)
        elif language not in NO_EXAMPLES:
            yield from (Example(name, "sh", command) for command in _commands(language, text))


def _commands(language: str, text: str) -> Iterator[str]:
    if language == "console":  # the other lines are output
        text = "".join(f"{line[2:]}\n" for line in text.splitlines() if line.startswith(("$ ", "> ")))
    bare = (_WRAP.sub(" ", _REMARK.sub("", command[0])).strip() for command in _COMMAND.finditer(text))
    yield from filter(None, bare)
