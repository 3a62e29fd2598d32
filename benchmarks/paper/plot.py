"""Pictures of the reproduction: points are means over the seeds that were run, bars their range."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.paper.experiments import HYBRID, RESNET, VIT, families, sizes
from benchmarks.paper.trials import Result, Trial

FAMILIES = {VIT: "ViT", HYBRID: "hybrid", RESNET: "ResNet"}
Measure = Callable[[Result], float]


_BY_IMAGES: dict[str, Measure] = {"training images": lambda each: each.trial.images}
_BY_COST: dict[str, Measure] = {
    "10^12 operations of training": lambda each: each.teraflops,
    "seconds of one core": lambda each: each.cpu_seconds,
}
PICTURES = {"sizes": (sizes, _BY_IMAGES), "families": (families, _BY_COST)}


def draw(done: Mapping[Trial, Result], folder: Path) -> set[str]:
    """Write `NAME.svg` for the experiments that compare families, as soon as there are two of them.

    Returns:
        the names.
    """
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: small, and searchable
    mpl.rcParams["svg.hashsalt"] = "paper"  # the same file from the same numbers
    drawn = set()
    seeds = sorted({trial.seed for trial in done})
    for name, (experiment, measures) in PICTURES.items():
        results = [done[trial] for seed in seeds for trial in experiment(seed) if trial in done]
        if len({each.trial.model for each in results}) > 1:
            _draw(results, measures, folder / f"{name}.svg")
            drawn.add(name)
    return drawn


def _draw(results: Sequence[Result], measures: Mapping[str, Measure], path: Path) -> None:
    """A panel for each measure, a line for each family."""
    canvas = Canvas(figsize=(4.2 * len(measures), 3.4), layout="constrained")
    panels = canvas.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, (label, measure) in zip(panels, measures.items(), strict=True):
        for model, name in FAMILIES.items():
            _line(axes, [each for each in results if each.trial.model == model], measure, name)
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("top-1, %")
    panels[0].legend()
    canvas.savefig(path, metadata={"Date": None})


def _line(axes: Axes, results: Sequence[Result], measure: Measure, name: str) -> None:
    """Mean and range of the seeds, at the mean of what they cost."""
    groups: dict[tuple[int, int], list[Result]] = {}
    for each in results:
        groups.setdefault((each.trial.images, each.trial.seen), []).append(each)
    points = sorted((mean(map(measure, group)), _percents(group)) for group in groups.values())
    centres = [mean(percents) for _, percents in points]
    below = [mean(percents) - min(percents) for _, percents in points]
    above = [max(percents) - mean(percents) for _, percents in points]
    if points:
        axes.errorbar([x for x, _ in points], centres, [below, above], fmt="o-", ms=4, capsize=3, label=name)


def _percents(results: Sequence[Result]) -> list[float]:
    return [100 * each.top1 for each in results if each.top1 is not None]
