"""The results as tables and plots.

    python -m benchmarks.peers.report peers.jsonl
    python -m benchmarks.peers.report peers.jsonl --into docs/performance/peers.md

Without `--into` the tables are printed. With it everything in that file below the line `<!-- results -->` is replaced,
and a plot per workload is written beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.peers.catalog import OURS, SERVERS
from benchmarks.peers.ceiling import FORMS
from benchmarks.peers.results import read
from benchmarks.peers.standings import AHEAD, OF_CEILING, Figure, Key, Standing, standings

_MARK = "<!-- results -->"


def document(cells: Mapping[Key, Standing], name: str, servers: Sequence[str]) -> str:
    """Markdown: the goals missed by server `name`, then for each workload its place and what every server did."""
    workloads = list(dict.fromkeys(key[1] for key in cells))
    sections = [missed(cells, name)]
    for workload in workloads:
        here = {key: standing for key, standing in cells.items() if key[1] == workload}
        sections += [
            f"## {workload}",
            f"![Requests per second, as a share of the loop without HTTP]({plot_name(workload)})",
            place_table(here, name),
            "Requests per second, and in brackets CPU-milliseconds per request:",
            all_servers(here, servers, _with_cpu),
            "Latency, p50 / p99 in milliseconds:",
            all_servers(here, servers, _latency),
        ]
    if errors := _errors(cells):
        sections.append(f"Without a figure:\n\n{errors}")
    return "\n\n".join(sections) + "\n"


def missed(cells: Mapping[Key, Standing], name: str) -> str:
    """The cells in which the goal is missed, first of all."""
    lines = [
        f"- {model}, {workload}, {connections} connections: {_number(standing.ahead(name))} x "
        f"{standing.best_but(name) or 'no peer'}, {_number(standing.of_ceiling(name))} of the ceiling"
        for (model, workload, connections), standing in cells.items()
        if not standing.reaches_goal(name)
    ]
    goal = f"first, and {AHEAD} x the best peer or {OF_CEILING} of the loop without HTTP"
    verdict = f"missed in {len(lines)} of {len(cells)} cells" if lines else f"reached in all {len(cells)} cells"
    return "\n".join([f"Goal ({goal}): {verdict}.", *([""] if lines else []), *lines])


def place_table(cells: Mapping[Key, Standing], name: str) -> str:
    """Server `name` beside the best other one and the ceiling."""
    head = ("model", "connections", f"{name}, /s", "best peer", "its /s", "ratio", "without HTTP, /s", "share of it")
    rows = []
    for (model, _, connections), standing in cells.items():
        best = standing.best_but(name)
        own, other = standing.servers.get(name), standing.servers[best] if best else None
        ceiling = f"{median(standing.ceiling.values()):.1f}" if standing.ceiling else "-"
        ratios = (f"**{_number(standing.ahead(name))}**", ceiling, _number(standing.of_ceiling(name)))
        rows.append((model, str(connections), _rate(own), best or "-", _rate(other), *ratios))
    return table(head, rows)


def all_servers(cells: Mapping[Key, Standing], servers: Sequence[str], show: Callable[[Figure], str]) -> str:
    """One column per server, one row per cell."""
    rows = []
    for (model, _, connections), standing in cells.items():
        figures = (standing.servers.get(server) for server in servers)
        shown = (show(figure) if figure and figure.rates else "-" for figure in figures)
        rows.append((model, str(connections), *shown))
    return table(("model", "connections", *servers), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot_name(workload: str) -> str:
    """Of the file beside the document."""
    return f"peers-{workload}.svg"


def _errors(cells: Mapping[Key, Standing]) -> str:
    return "\n".join(
        f"- {server}, {model}, {workload}, {connections} connections: {figure.error}"
        for (model, workload, connections), standing in cells.items()
        for server, figure in standing.servers.items()
        if figure.error
    )


def _rate(figure: Figure | None) -> str:
    return f"{figure.rate:.1f}" if figure and figure.rates else "-"


def _number(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _with_cpu(figure: Figure) -> str:
    return f"{figure.rate:.1f} ({figure.cpu_ms:.1f})"


def _latency(figure: Figure) -> str:
    return f"{figure.p50_ms:.0f} / {figure.p99_ms:.0f}"


def command(
    results: Annotated[Path, typer.Argument(help="File of JSON lines.")],
    into: Annotated[Path | None, typer.Option(help="Document with the mark; plots go beside it.")] = None,
) -> None:
    """Print the tables, or write them and the plots."""
    cells = standings(read(results), FORMS)
    measured = {server for standing in cells.values() for server in standing.servers}
    servers = [server for server in SERVERS if server in measured]
    text = document(cells, OURS, servers)
    if into is None:
        print(text)
        return
    head, mark, _ = into.read_text().partition(_MARK)
    if not mark:
        raise SystemExit(f"{into} has no line {_MARK}")
    into.write_text(f"{head}{mark}\n\n{text}")
    from benchmarks.peers.plot import plot  # noqa: PLC0415 - matplotlib

    for workload in {key[1] for key in cells}:
        here = {key: standing for key, standing in cells.items() if key[1] == workload}
        plot(here, servers, into.with_name(plot_name(workload)))


if __name__ == "__main__":
    typer.run(command)
