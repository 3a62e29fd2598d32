"""`patchserve train` and `patchserve export` become the tools, with the same arguments."""

import importlib.util
import os
import sys

import pytest
from commanded import Commands


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    programs: list[list[str]] = []

    def become(path: str, words: list[str]) -> None:
        programs.append([path, *words])
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)
    return programs


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (
            ["train", "photos/", "--from", "hf:a/b", "--epochs", "3"],
            ["model.train", "photos/", "--from", "hf:a/b", "--epochs", "3"],
        ),
        (["train", "--help"], ["model.train", "--help"]),
        (["export", "runs/photos", "-o", "photos.onnx"], ["export.to_onnx", "runs/photos", "-o", "photos.onnx"]),
    ],
)
def test_arguments_are_passed_on(
    command: Commands, became: list[list[str]], words: list[str], module: list[str]
) -> None:
    assert command(*words)[0] == 0
    assert became == [[sys.executable, sys.executable, "-m", *module]]


@pytest.mark.parametrize("written", [["--processes", "4"], ["--processes=4"]])
def test_several_processes_are_started_by_torchrun(
    command: Commands, became: list[list[str]], written: list[str]
) -> None:
    command("train", "photos/", *written, "--epochs", "3")
    launched = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    assert became[0][2:] == [*launched, "-m", "model.train", "photos/", "--epochs", "3"]


@pytest.mark.parametrize("written", [["--processes"], ["--processes", "0"], ["--processes=many"]])
def test_a_wrong_number_of_processes_is_one_line(
    command: Commands, became: list[list[str]], written: list[str]
) -> None:
    status, _, error = command("train", *written)
    assert (status, became) == (1, [])
    assert error.startswith("patchserve: --processes must be a number from 1 to 1024")


@pytest.mark.parametrize("verb", ["train", "export"])
def test_without_the_tools_it_says_what_to_install(
    command: Commands, became: list[list[str]], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    status, _, error = command(verb, "x")
    assert (status, became) == (1, [])
    assert error == f"patchserve: patchserve {verb} needs torch: pip install 'patchserve[{verb}]'\n"
