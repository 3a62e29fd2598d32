"""docs/api.md against the OpenAPI document: every route with curl and Python, every parameter, every status."""

import re
from typing import Any

import pytest
from page_examples import ROOT, examples

from service.app import create_app
from service.settings import Settings

PATH = ROOT / "docs" / "api.md"
PAGE = PATH.read_text("utf-8")
# Left out of the document, which is of what programs send.
INFORMATION = ("/livez", "/readyz", "/metrics", "/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    """Each operation of the document by method and path."""
    paths = create_app(Settings(log_level="error")).openapi()["paths"]
    return {f"{method.upper()} {path}": each for path, methods in paths.items() for method, each in methods.items()}


@pytest.fixture(scope="module")
def routes(operations: dict[str, Any]) -> set[str]:
    return {*operations, *(f"GET {path}" for path in INFORMATION)}


def asked_by_curl() -> set[str]:
    """Method and path of each curl."""
    commands = [each.text for each in examples(PATH) if each.text.startswith("curl ")]
    return {
        f"{_method(text)} {re.search(r'localhost:8000(/[^? ]*)', text.replace(chr(39), ''))[1]}" for text in commands
    }


def _method(command: str) -> str:
    return "POST" if re.search(r" (-X POST|-F|--data-binary) ", command) else "GET"


def asked_by_python() -> set[str]:
    """Method and path of each call, the variable of the page's loop filled in."""
    programs = "\n".join(each.text for each in examples(PATH) if each.language == "python")
    models = ("/v2/models/birds", "/v2/models/birds/versions/1.9")
    calls = re.findall(r'client\.(get|post)\(f?"?([^",)]+)', programs)
    return {
        f"{method.upper()} {path.replace('{model}', model) if path != 'model' else model}"
        for method, path in calls
        for model in models
    }


def matching(route: str, asked: set[str]) -> bool:
    pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route))
    return any(re.fullmatch(pattern, each) for each in asked)


def test_every_route_is_named(routes: set[str]) -> None:
    named = set(re.findall(r"`((?:GET|POST) /[^`]*)`", PAGE))
    assert named == routes


@pytest.mark.parametrize("asked", [asked_by_curl, asked_by_python])
def test_every_route_has_an_example(routes: set[str], asked: Any) -> None:
    assert [route for route in sorted(routes) if not matching(route, asked())] == []


def test_parameters_are_those_of_the_document(operations: dict[str, Any]) -> None:
    names = {each["name"] for each in operations["POST /classify"]["parameters"]}
    table = PAGE.partition("| query |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == names


def test_statuses_and_codes_are_those_of_the_document(operations: dict[str, Any]) -> None:
    """The page has more: what the socket refuses before a route is known."""
    table = PAGE.partition("| status |")[2].partition("\n\n")[0]
    for operation in ("POST /classify", "POST /explain", "POST /models/{name}/reload", "GET /models/{name}"):
        for status, response in operations[operation]["responses"].items():
            row = next(line for line in table.splitlines() if re.match(rf"\|[ \d,]*\b{status}\b", line))
            assert set(re.findall(r"`([a-z_]+)`", response["description"].partition(":")[0])) <= set(
                re.findall(r"`([a-z_]+)`", row)
            )
