"""`patchserve bench` against a real service; what it says is checked for consistency, never for speed."""

import json
import re
import signal
from pathlib import Path

import pytest
from commanded import Commands, start
from scripted_server import reply, scripted

LISTED = reply(200, '{"models": []}')
SHORT = ("--seconds", "1", "--warm-up", "0.2", "--size", "32x32")


def test_a_closed_loop(command: Commands, url: str) -> None:
    status, out, err = command("bench", url, "--connections", 2, *SHORT, "--json")
    assert status == 0
    assert err == "patchserve: closed loop, 2 connections: 0.2 s of warm-up and 1 s\n"
    document = json.loads(out)
    assert document["requests"] == document["answered"] > 0
    assert (document["refused"], document["failed"], document["reasons"]) == (0, 0, {})
    assert 0 < document["latency_ms"]["p50"] <= document["latency_ms"]["p90"]
    assert document["run"]["model"].startswith("tiny-colours 1.0.0, sha256:")


def test_an_open_loop_with_images_of_a_folder_and_a_report(
    command: Commands, url: str, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    status, out, err = command("bench", url, "--rate", 40, *SHORT, "--images", folder, "--html", page)
    assert status == 0
    assert "open loop, 40 requests/s (Poisson, seed 0)" in err
    assert re.search(r"answered +\d+ ", out)
    assert "p50" in out
    assert re.search(r"99 % were sent at most [\d.]+ ms late", out)
    assert "█" in out
    html = page.read_text()
    assert html.count("<svg viewBox") == 4 + 3  # the plots, and the squares of the legend
    assert not re.search(r"(src|href)=|url\(|@import|<script", html)


def test_refusals_and_failures_are_counted_apart_and_nothing_answered_is_status_1(command: Commands) -> None:
    busy = reply(429, '{"code": "overloaded", "detail": "x"}')
    with scripted(LISTED, *[busy, reply(500)] * 500) as script:
        status, out, _ = command("bench", script.url, "--connections", 1, *SHORT, "--json")
    document = json.loads(out)
    assert status == 1
    assert document["answered"] == 0
    assert document["reasons"]["429 overloaded"] == document["refused"] > 0
    assert document["failed"] > 0
    assert document["latency_ms"] == {}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--connections", "2", "--rate", "5"], "give one of them"),
        (["--size", "big"], "'big' is not WIDTHxHEIGHT"),
        (["--images", "missing"], "missing"),
    ],
)
def test_wrong_options_are_one_line(command: Commands, url: str, arguments: list[str], line: str) -> None:
    status, out, err = command("bench", url, *arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert line in err


def test_ctrl_c_is_one_line_and_status_130(url: str) -> None:
    process = start("bench", url, "--seconds", "60", "--size", "32x32")
    assert process.stderr is not None
    assert "warm-up" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch(r"patchserve: interrupted; \d+ replies had come\n", err)
