"""Results of `benchmarks.paper.run` into docs/paper.md: a table for each experiment, and the pictures.

    python -m benchmarks.paper.report docs/paper/results.jsonl

What stands between the two marks of the page is replaced. What was not run says so.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Annotated

import typer

from benchmarks.paper.experiments import EXPERIMENTS
from benchmarks.paper.plot import draw
from benchmarks.paper.trials import Result, Trial, read

START, END = "<!-- written by benchmarks.paper.report -->\n", "<!-- to here -->\n"
HEAD = "| model | learns from | images seen | pixels | rate | begins with | top-1 | seeds | 10^12 operations | CPU-s |"


def command(
    results: Annotated[Path, typer.Argument(help="File of JSON lines.")],
    page: Annotated[Path, typer.Option(help="Page with the two marks.")] = Path("docs/paper.md"),
    pictures: Annotated[Path, typer.Option(help="Folder for the SVG files, beside the page.")] = Path("docs/paper"),
) -> None:
    """Write tables and pictures."""
    done = read(results)
    links = {name: f"![{name}]({pictures.name}/{name}.svg)\n\n" for name in draw(done, pictures)}
    text = "\n".join(f"`{name}`\n\n{links.get(name, '')}{table(name, done)}" for name in EXPERIMENTS)
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n{text}\n{END}{after}")


def table(name: str, done: Mapping[Trial, Result]) -> str:
    """A row for each trial of an experiment, over all seeds that were run."""
    lines = [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|"]
    seeds = sorted({trial.seed for trial in done} | {0})
    for trials in zip(*(EXPERIMENTS[name](seed) for seed in seeds), strict=True):
        cells = (*_named(trials[0]), *_found([done[trial] for trial in trials if trial in done]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _named(trial: Trial) -> tuple[str, ...]:
    """What is done, without the seed."""
    learnt = f"{trial.images:,}, {trial.target or 'labels'}"
    start = trial.start
    begins = "random weights" if start is None else f"{start.seen:,} x {start.target or 'labels'}"
    return trial.model, learnt, f"{trial.seen:,}", str(trial.side), f"{trial.rate:g}", begins


def _found(results: list[Result]) -> tuple[str, ...]:
    """What came of it, as means over the seeds."""
    if not results:
        return "**not run**", "", "", ""
    percents = [100 * each.top1 for each in results if each.top1 is not None]
    top1 = f"{mean(percents):.2f} %" if percents else "-"
    if len(percents) > 1:
        top1 += f" ({min(percents):.2f} to {max(percents):.2f})"
    operations, seconds = mean(each.teraflops for each in results), mean(each.cpu_seconds for each in results)
    return top1, str(len(results)), f"{operations:.2f}", f"{seconds:.0f}"


if __name__ == "__main__":
    typer.run(command)
