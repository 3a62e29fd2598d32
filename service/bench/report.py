"""Figures on the terminal."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from service.bench.samples import Fate, Figures, histogram

_BAR_WIDTH = 40


def parts_of(figures: Figures) -> Iterator[Table | str]:
    """What became of the requests, the figures in a line, percentiles, and how latencies spread."""
    yield _fates(figures)
    yield summary_of(figures)
    if len(figures.latencies_s):
        yield _percentiles(figures)
        yield _histogram(figures)


def summary_of(figures: Figures) -> str:
    """One line; how late this program was is of an open loop, for in a closed one nothing is due."""
    seconds, late_ms = figures.end_s - figures.begin_s, figures.lateness_ms()
    late = f"; 99 % were sent at most {late_ms:.1f} ms late" if late_ms else ""
    rate = f"{figures.answers_per_s:.1f} answers/s over {seconds:g} s"
    return f"{rate}{late}; latency of the {len(figures.latencies_s)} answered:"


def _fates(figures: Figures) -> Table:
    table = Table("Requests", "", "Share", box=SIMPLE_HEAD)
    total = max(1, len(figures.samples))
    for fate in Fate:
        count = figures.count(fate)
        table.add_row(fate, str(count), f"{count / total:.1%}")
        for reason, number in figures.reasons(fate).most_common():
            if reason:
                table.add_row(Text(f"  {reason}"), str(number), f"{number / total:.1%}", style="dim")
    return table


def _percentiles(figures: Figures) -> Table:
    cells = [(f"p{100 * share:g}", f"{value:.1f} ms") for share, value in figures.percentiles_ms().items()]
    cells.append(("longest", f"{1000 * figures.latencies_s[-1]:.1f} ms"))
    table = Table(*(name for name, _ in cells), box=SIMPLE_HEAD)
    table.add_row(*(value for _, value in cells))
    return table


def _histogram(figures: Figures) -> Table:
    rows = histogram(figures.latencies_s)
    most = max(count for _, _, count in rows)
    table = Table("from ms", "to ms", "answers", "", box=SIMPLE_HEAD)
    for low, high, count in rows:
        table.add_row(f"{low:.1f}", f"{high:.1f}", str(count), "█" * -(-_BAR_WIDTH * count // most))
    return table
