"""The files of `docker/` as values."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
_PROM_QL = {"and", "bool", "by", "group_left", "group_right", "ignoring", "offset", "on", "or", "unless", "without"}


@cache
def document(path: str) -> Any:
    """A YAML or JSON file; the path is from the root of the repository."""
    text = (ROOT / path).read_text()
    return json.loads(text) if path.endswith(".json") else yaml.safe_load(text)


def rules() -> list[dict[str, Any]]:
    return [rule for group in document("docker/monitoring/rules.yml")["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [each for each in document("docker/monitoring/grafana/patchserve.json")["panels"] if each["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Where each PromQL expression stands, and the expression."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    dashboard = document("docker/monitoring/grafana/patchserve.json")
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]


def metric_names(expression: str) -> set[str]:
    """Every name in an expression that is no function, label, keyword or number."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"label_values\(([^,]+),[^)]*\)", r"\1", bare)
    return set(re.findall(r"\b[A-Za-z_]\w*\b(?!\s*\()", bare)) - _PROM_QL


def matchers(expression: str, label: str) -> set[str]:
    """The values that an expression asks of a label; of a pattern each alternative."""
    found = re.findall(rf'\b{label}(?:=|=~|!=|!~)"([^"]*)"', expression)
    return {value for pattern in found for value in pattern.split("|")}
