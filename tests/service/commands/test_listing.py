import json
import re

import pytest
from commanded import Commands
from scripted_server import reply, scripted


@pytest.mark.parametrize("columns", ["250", "40"])
def test_models_are_a_table_that_cuts_nothing(
    command: Commands, url: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    status, out, err = command("models", "--url", url)
    assert (status, err) == (0, "")
    [row] = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if "tiny-colours" in line]
    assert row[:2] == ["tiny-colours", "1.0.0"]
    assert re.fullmatch(r"sha256:[0-9a-f]{12}", row[2])
    assert row[3:] == ["ready", "cpu", "3", "100", "tiny-colours@1.0.0, tiny-colours, no name"]


def test_json_has_whole_digests(command: Commands, url: str) -> None:
    [model] = json.loads(command("models", "--url", url, "--json")[1])
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", model["digest"])
    assert (model["default"], model["newest"]) == (True, True)


def test_a_service_of_somebody_else_is_one_line(command: Commands) -> None:
    with scripted(reply(200, "<html>")) as script:
        status, out, err = command("models", "--url", script.url)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "check the address" in err
