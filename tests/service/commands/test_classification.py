"""`patchserve classify`, offline and with a service."""

import csv
import json
import os
import pty
import signal
import time
from io import StringIO
from pathlib import Path

import pytest
from commanded import Commands, start
from scripted_server import reply, scripted
from served_process import COMMAND, environment, served

from service.keys import digest_of

KEY = "patchserve_secret"
LISTED = reply(200, '{"models": []}')


def pairs(rows: list[dict[str, object]]) -> list[tuple[str, str]]:
    return [(Path(str(row["file"])).name, row["predictions"][0]["label"]) for row in rows]  # type: ignore[index]


def test_a_folder_is_classified_by_a_service(command: Commands, url: str, folder: Path) -> None:
    status, out, err = command("classify", folder, "--url", url, "--json", "-k", 2)
    assert (status, err) == (0, "")
    assert pairs(json.loads(out)) == [("blue.webp", "blue"), ("red.jpg", "red")]


def test_here_and_there_give_the_same_rows(command: Commands, url: str, folder: Path, artifact: Path) -> None:
    there = json.loads(command("classify", folder, "--url", url, "--json")[1])
    here = json.loads(command("classify", folder, "--model", artifact, "--json")[1])
    assert there == here
    assert len(here[0]["predictions"]) == 3  # as many as there are labels
    assert set(here[0]) == {"file", "predictions", "patches", "grid", "degraded"}


@pytest.mark.parametrize("remote", [True, False])
def test_lines_for_programs(command: Commands, url: str, folder: Path, artifact: Path, remote: bool) -> None:
    (folder / "broken.png").write_bytes(b"nothing")
    where = ["--url", url] if remote else ["--model", artifact]
    status, out, err = command("classify", folder, *where, "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [Path(row["file"]).name for row in rows if "error" in row] == ["broken.png"]
    assert len(rows) == 3
    assert err.count("\n") == 1
    status, out, _ = command("classify", folder, *where, "--format", "csv", "-k", 1)
    lines = {Path(row["file"]).name: row for row in csv.DictReader(StringIO(out))}
    assert status == 1
    assert (lines["red.jpg"]["label"], lines["red.jpg"]["place"], lines["red.jpg"]["degraded"]) == ("red", "1", "false")
    assert lines["broken.png"]["label"] == ""
    assert lines["broken.png"]["error"]
    assert lines["red.jpg"]["error"] == ""


def test_a_narrow_terminal_cuts_no_name(
    command: Commands, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = command("classify", folder / "red.jpg", "--url", url)[1]
    cells = [line.split("│")[1].strip() for line in out.splitlines() if "│" in line]
    assert "".join(cells) == str(folder / "red.jpg")


def test_names_are_not_markup(command: Commands, folder: Path, url: str) -> None:
    (folder / "red.jpg").rename(folder / "[red]x.jpg")
    assert "[red]x.jpg" in command("classify", folder / "[red]x.jpg", "--url", url)[1]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--url", "http://127.0.0.1:1"], "patchserve: http://127.0.0.1:1: "),
        (["--url", "localhost"], "patchserve: 'localhost' is no address"),
        (
            ["--url", "http://127.0.0.1:1", "--api-key-file", "missing"],
            "patchserve: the API key file missing cannot be",
        ),
    ],
)
def test_a_service_that_cannot_be_asked_is_one_line(
    command: Commands, folder: Path, arguments: list[str], line: str
) -> None:
    status, out, err = command("classify", folder, *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(line)


def test_a_key_in_a_file_opens_the_service(command: Commands, folder: Path, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    with served(artifact, api_keys=f"shop:user:{digest_of(KEY.encode()).hex()}") as process:
        url = f"http://127.0.0.1:{process.port}"
        assert command("classify", folder, "--url", url)[0] == 1
        assert command("classify", folder, "--url", url, "--api-key-file", tmp_path / "key")[0] == 0


def test_a_service_that_goes_away_ends_the_command(command: Commands, folder: Path) -> None:
    with scripted(LISTED) as script:
        status, out, err = command("classify", folder, "--url", script.url, "--concurrency", 1)
    assert (status, out) == (1, "")
    assert err.endswith("0 of 2 images were done\n")


def test_ctrl_c_is_one_line_and_status_130(folder: Path) -> None:
    slow = reply(429, Retry_After="20")
    with scripted(LISTED, *[slow] * 10) as script:
        process = start("classify", folder, "--url", script.url, "--concurrency", "1")
        _until(lambda: len(script.requests) >= 2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "patchserve: interrupted; 0 of 2 images were done\n")


def test_a_bar_is_drawn_on_a_terminal_and_stays_out_of_the_output(folder: Path, url: str) -> None:
    import subprocess

    main, terminal = pty.openpty()
    command = [*COMMAND, "classify", str(folder), "--url", url, "--format", "jsonl"]
    process = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=terminal, env=environment(TERM="xterm"), timeout=60, check=True
    )
    os.close(terminal)
    drawn = os.read(main, 65536).decode()
    os.close(main)
    assert "2/2" in drawn
    assert [Path(json.loads(line)["file"]).name for line in process.stdout.splitlines()] == ["blue.webp", "red.jpg"]


def test_without_httpx_the_extra_is_named(command: Commands, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    status, _, err = command("classify", folder, "--url", "http://h")
    assert (status, err) == (1, "patchserve: asking a service needs httpx: pip install 'patchserve[client]'\n")


def _until(done: "object") -> None:
    for _ in range(2000):
        if done():  # type: ignore[operator]
            return
        time.sleep(0.005)
    raise AssertionError("it did not come to that")
