"""The page of faults says of every row of the catalogue where it is tested, or why not, and what it names is there."""

import ast
import re
from pathlib import Path

import pytest
from page_examples import ROOT

PAGE = (ROOT / "docs" / "faults.md").read_text()
# The rows of the catalogue that the project was given; some numbers were never used.
ROWS = {
    f"{letter}{number}"
    for letter, numbers in {
        "A": "1 2 3 4 5 6 8 9 11 12 13 15 16 17 18",
        "B": "1 2 3 4 6 7 8 9 10 12 14 15 16",
        "C": "1 3 4 5 6 7",
        "D": "1 2 3 4 5 6 8 9 10 11 13 14 16 17 19 20 21 22 23 24 26 27 28 29 30 32 34 35 37 38 39 40",
        "E": "1 2 3 4 6 7 8 9",
        "F": "1 2 4 6 7 9 10 11",
        "G": "1 2 3 4 6 8 9 11 12 13 14 15",
        "H": "1 2 3 4 5 6 8 11 12 13 14 15",
        "I": "1 2 3 4 5 6 8 9 10 11 13 14 15 17 18",
    }.items()
    for number in numbers.split()
}
FORBIDDEN = {"ImageCms", "onnx.hub", "onnx.load(", "onnx.save(", "register_custom_ops_library"}


def lines(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    part = PAGE[PAGE.index(f"{heading}\n") :]
    table = re.search(r"(?:^\|.*\n)+", part, re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in table[0].splitlines()[2:]]


def rows_of(cell: str) -> set[str]:
    """The rows that a cell names: A1-A7 is all of them that there are."""
    found = set()
    for letter, first, last in re.findall(r"([A-I])(\d+)(?:-[A-I](\d+))?", cell):
        found |= {f"{letter}{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def test_every_row_has_a_test_or_a_reason() -> None:
    tested = {row for cells in lines("## Rows") for row in rows_of(cells[0])}
    reasons = {row for cells in lines("### Not tests") for row in rows_of(cells[0])}
    assert ROWS - tested - reasons == set()
    assert all(len(cells[1]) > 20 for cells in lines("### Not tests"))


@pytest.mark.parametrize("cells", lines("## Rows"), ids=lambda cells: cells[0])
def test_what_is_named_is_there(cells: list[str]) -> None:
    named = re.findall(r"`([\w/]*test_\w+\.py)(?:::(\w+))?`", cells[-1])
    others = re.findall(r"`(?:python -m ([\w.]+)|make ([\w-]+))`", cells[-1])
    assert named or others
    for name, function in named:
        path = ROOT / (name if "/" in name else f"tests/faults/{name}")
        assert f"def {function or 'test_'}" in path.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for module, target in others:
        assert (ROOT / f"{module.replace('.', '/')}.py").exists() if module else f"\n{target}:" in makefile


def test_cases_of_the_catalogue_are_of_rows_that_the_page_has() -> None:
    """Of each file: a row that is new in a test is new in its line of the page."""
    for path in (ROOT / "tests" / "faults").glob("test_*.py"):
        said = {row for cells in lines("## Rows") if f"`{path.name}" in cells[-1] for row in rows_of(cells[0])}
        assert said, path
        assert cases_of(path) <= said, path.name


def cases_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    texts = [each.value for each in ast.walk(tree) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    names = [each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    found = [re.match(r"(?:test_)?([a-i]\d+)[ _]", text, re.IGNORECASE) for text in texts + names]
    return {match[1].upper() for match in found if match}


@pytest.mark.parametrize("folder", ["service", "model", "export"])
def test_what_must_not_be_called_is_not(folder: str) -> None:
    """H2, H3, H5, D26: what writes or loads where a foreign file says."""
    for path in (ROOT / folder).rglob("*.py"):
        assert not [each for each in FORBIDDEN if each in path.read_text()], path
