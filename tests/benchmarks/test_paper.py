"""The reproduction of the paper: trials in order, results that survive a kill, all kinds of training in small."""

from dataclasses import replace
from pathlib import Path

import pytest
from shades import shades

from benchmarks.paper import training
from benchmarks.paper.experiments import EXPERIMENTS, RESNET, VIT, trials
from benchmarks.paper.report import END, START, command, table
from benchmarks.paper.trials import Result, Trial, append, read

DATA = shades(64)
SMALL = Trial("Femto/8", 64, 128)


def test_each_trial_runs_once_after_what_it_starts_from() -> None:
    planned = trials(list(EXPERIMENTS), seeds=2)
    assert len(set(planned)) == len(planned) == len({trial.name for trial in planned})
    assert all(planned.index(trial.start) < place for place, trial in enumerate(planned) if trial.start)
    assert [trial.seed for trial in planned] == sorted(trial.seed for trial in planned)
    assert all(trial.seen % trial.images == 0 for trial in planned)


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    results = [
        Result(SMALL, 0.5, 1.25, 3.0),
        Result(Trial("Femto/7", target="colour"), None, 2.0, 4.0),
        Result(replace(SMALL, side=56, start=replace(SMALL, start=SMALL)), 0.75, 1.0, 2.0),
    ]
    assert read(tmp_path / "results.jsonl") == {}
    for each in results:
        append(tmp_path / "results.jsonl", each)
    assert read(tmp_path / "results.jsonl") == {each.trial: each for each in results}


def test_the_page_says_what_was_run_and_what_was_not(tmp_path: Path) -> None:
    done = [Trial("Femto/7:none", seed=0), Trial("Femto/7:none", seed=1), Trial(VIT, 1_000), Trial(RESNET, 1_000)]
    for trial in done:
        append(tmp_path / "results.jsonl", Result(trial, 0.5 + 0.25 * trial.seed, 1.25, 3.0))
    (tmp_path / "page.md").write_text(f"before\n{START}old\n{END}after\n")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for _ in range(2):  # and again over what it wrote
        command(tmp_path / "results.jsonl", tmp_path / "page.md", pictures)
    page = (tmp_path / "page.md").read_text()
    assert page.startswith(f"before\n{START}\n`sizes`\n\n![sizes](pictures/sizes.svg)\n\n| model ")
    assert page.endswith(f"{END}after\n")
    assert "old" not in page
    rows = table("positions", read(tmp_path / "results.jsonl")).splitlines()
    shared = "60,000, labels | 120,000 | 28 | 0.001 | random weights"
    assert rows[3] == f"| Femto/7:none | {shared} | 62.50 % (50.00 to 75.00) | 2 | 1.25 | 3 |"
    assert rows[4] == f"| Femto/7:2d | {shared} | **not run** |  |  |  |"
    assert len(rows) == 2 + 4
    assert [path.name for path in pictures.iterdir()] == ["sizes.svg"]  # of families nothing is known


def test_from_patches_without_labels_to_another_resolution(tmp_path: Path) -> None:
    masked = replace(SMALL, target="colour")
    tuned = replace(SMALL, start=masked)
    larger = replace(SMALL, seen=0, side=56, start=tuned)
    found = [training.run(each, tmp_path, DATA, DATA) for each in (masked, tuned, larger)]
    assert [each.top1 is None for each in found] == [True, False, False]
    assert found[0].teraflops == pytest.approx(3 * 128 * 5.6e6 / 1e12, abs=1e-3)
    assert found[1].cpu_seconds > found[2].cpu_seconds == 0


def test_a_resnet_and_a_hybrid_are_measured_too(tmp_path: Path) -> None:
    for model in ("R20x0.125", "R8+Femto/8"):
        result = training.run(replace(SMALL, model=model, seen=64), tmp_path, DATA, DATA)
        assert result.top1 is not None


def test_what_is_trained_is_not_trained_again(tmp_path: Path) -> None:
    first, second = (training.run(SMALL, tmp_path, DATA, DATA) for _ in range(2))
    assert first.top1 == second.top1
    assert first.cpu_seconds == second.cpu_seconds
