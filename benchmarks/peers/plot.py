"""The plot of a workload: requests per second as a share of the loop without HTTP, a panel for each model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from benchmarks.peers.catalog import OURS
from benchmarks.peers.standings import Key, Standing


def plot(cells: Mapping[Key, Standing], servers: Sequence[str], path: Path) -> None:
    """Write an SVG."""
    models = list(dict.fromkeys(key[0] for key in cells))
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: small, and searchable
    mpl.rcParams["svg.hashsalt"] = "peers"  # the same file from the same numbers
    canvas = Canvas(figsize=(3.2 * len(models) + 1.6, 3.4), layout="constrained")
    for axes, model in zip(canvas.subplots(1, len(models), sharey=True, squeeze=False)[0], models, strict=True):
        _panel(axes, {key[2]: standing for key, standing in cells.items() if key[0] == model}, servers)
        axes.set_title(model)
    axes.set_ylim(bottom=0)  # of all panels, which share it; earlier it would cut what later panels hold
    canvas.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    canvas.supxlabel("connections", fontsize="medium")
    canvas.supylabel("share of the loop without HTTP", fontsize="medium")
    canvas.savefig(path, metadata={"Date": None})


def _panel(axes: Axes, by_connections: Mapping[int, Standing], servers: Sequence[str]) -> None:
    counts = sorted(by_connections)
    for server in servers:
        shares = [_share(by_connections[count], server) for count in counts]
        ours = server == OURS
        axes.plot(range(len(counts)), shares, "o-", label=server, lw=2.4 if ours else 1, ms=4, zorder=3 if ours else 2)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.axhline(1, color="grey", lw=0.8, ls="--")
    axes.grid(axis="y", alpha=0.3)


def _share(standing: Standing, server: str) -> float:
    """Not a number where there is no figure: the line has a gap."""
    if server not in standing.servers or not standing.servers[server].rates or not standing.ceiling:
        return float("nan")
    return standing.servers[server].rate / median(standing.ceiling.values())
