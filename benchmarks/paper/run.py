"""A small reproduction of the paper on Fashion-MNIST.

    python -m benchmarks.paper.run sizes positions masked resolution families --output build/paper
    python -m benchmarks.paper.report docs/paper/results.jsonl

Each experiment is a list of trials in `experiments.py`. A trial is one training of one model, in a folder of its own;
its result is a line of the results file. Started again, the command goes on where it was killed: at the last finished
epoch of a trial. One thread, so that processor seconds are those of the work and not of threads that wait.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.paper import training
from benchmarks.paper.experiments import EXPERIMENTS, trials
from benchmarks.paper.trials import append, read
from model.data import load_fashion_mnist


def command(
    experiments: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(EXPERIMENTS)}; default all.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for states and checkpoints.")] = Path("build/paper"),
    results: Annotated[Path, typer.Option(help="File of JSON lines.")] = Path("docs/paper/results.jsonl"),
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with seeds 0 to this minus one.")] = 1,
) -> None:
    """Run what is not done of the experiments."""
    torch.set_num_threads(1)
    if unknown := set(experiments or ()) - set(EXPERIMENTS):
        raise SystemExit(f"error: no experiment {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    data, test = load_fashion_mnist("train"), load_fashion_mnist("test")
    console = Console()
    for trial in trials(experiments or list(EXPERIMENTS), seeds):
        if trial not in read(results):  # again each time: another process may run other experiments
            result = training.run(trial, output, data, test)
            append(results, result)
            console.print(f"{trial.name}: top-1 {result.top1}, {result.cpu_seconds} s", soft_wrap=True)


if __name__ == "__main__":
    typer.run(command)
