"""Write the tables of docs/configuration.md from the settings.

python .ci/settings_page.py            write them
python .ci/settings_page.py --check    fail if they are not those of the settings
"""

import sys
from collections.abc import Iterator
from inspect import get_annotations
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.cluster_settings import ClusterSettings

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
MARK = "<!-- written by .ci/settings_page.py -->"
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def tables() -> str:
    """A section for each group of settings, and one for those of the cluster."""
    groups = [kind for kind in reversed(ClusterSettings.__mro__) if issubclass(kind, BaseModel) and _own(kind)]
    return "\n".join(map(_section, groups))


def _own(kind: type[Any]) -> list[str]:
    return [name for name in get_annotations(kind) if name in ClusterSettings.model_fields]


def _section(kind: type[BaseModel]) -> str:
    title = kind.__name__.removesuffix("Settings").replace("Http", "HTTP")
    head = [f"## {title}", "", f"{kind.__doc__}", "", "| setting | default | allowed | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *(_row(name, kind.model_fields[name]) for name in _own(kind)), ""])


def _row(name: str, field: FieldInfo) -> str:
    cells = (_flag(name, field), _default(field.default), ", ".join(_allowed(field)), str(field.description))
    return " | ".join(["", *(cell.replace("|", "\\|") for cell in cells), ""]).strip()


def _flag(name: str, field: FieldInfo) -> str:
    if name == "model":
        return "`MODEL`"
    flag = name.replace("_", "-")
    return f"`--{flag}`, `--no-{flag}`" if field.annotation is bool else f"`--{flag}`"


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return "" if value is None or not text else f"`{text}`"


def _allowed(field: FieldInfo) -> Iterator[str]:
    yield from (f"`{choice}`" for choice in _choices(field.annotation))
    for rule in field.metadata:
        yield from (f"{sign} {getattr(rule, name)}" for name, sign in _SIGNS.items() if hasattr(rule, name))
        if pattern := getattr(rule, "pattern", None):
            yield f"`{pattern}`"


def _choices(kind: Any) -> Iterator[Any]:
    """The literals of a type, however deep they stand."""
    if get_origin(kind) is Literal:
        yield from get_args(kind)
    elif get_origin(kind) in {tuple, Union, UnionType, Annotated}:
        for part in get_args(kind):
            yield from _choices(part) if part not in {NoneType, Ellipsis} else ()


def main() -> None:
    """Entry of the program."""
    text = PAGE.read_text("utf-8")
    whole = f"{text.partition(MARK)[0]}{MARK}\n\n{tables()}"
    if "--check" in sys.argv and text != whole:
        sys.exit("docs/configuration.md is not up to date: python .ci/settings_page.py")
    PAGE.write_text(whole, "utf-8")


if __name__ == "__main__":
    main()
