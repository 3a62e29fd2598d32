"""From single measurements to medians, the best peer, the ceiling and ratios: pure arithmetic.

A ratio is taken within a round, where both sides were measured minutes apart, and the median of the rounds is kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from benchmarks.peers.results import Result

AHEAD = 1.2  # of the best peer: the goal where the engine is not the limit
OF_CEILING = 0.97  # the goal where it is


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians over the rounds of one server in one cell.

    Attributes:
        rates: requests per second by round; empty if any round had errors.
        p50_ms, p99_ms, cpu_ms: latency and processor time per request, milliseconds.
        error: of the round that had one.
    """

    rates: Mapping[int, float]
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_ms: float = 0.0
    error: str = ""

    @property
    def rate(self) -> float:
        """Requests per second, 0 without a figure."""
        return median(self.rates.values()) if self.rates else 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """One cell: all servers side by side.

    Attributes:
        servers: by name.
        ceiling: images per second without HTTP, the better form, by round; empty if not measured.
    """

    servers: Mapping[str, Figure]
    ceiling: Mapping[int, float]

    def best_but(self, name: str) -> str | None:
        """The server with the highest median rate, `name` left out; None if no other has a figure."""
        rates = {other: figure.rate for other, figure in self.servers.items() if other != name and figure.rates}
        return max(rates, key=lambda other: rates[other]) if rates else None

    def ahead(self, name: str) -> float | None:
        """Rate of `name` to that of the best other server; None if one of them has no figure."""
        best = self.best_but(name)
        return _ratio(self._rates(name), self._rates(best)) if best else None

    def of_ceiling(self, name: str) -> float | None:
        """Rate of `name` to the ceiling; None if one of them was not measured."""
        return _ratio(self._rates(name), self.ceiling)

    def reaches_goal(self, name: str) -> bool:
        """First, and far enough ahead of the others or close enough to the ceiling."""
        ahead, share = self.ahead(name), self.of_ceiling(name)
        if ahead is None or share is None or ahead < 1:
            return False
        return ahead >= AHEAD or share >= OF_CEILING

    def _rates(self, name: str) -> Mapping[int, float]:
        return self.servers[name].rates if name in self.servers else {}


Key = tuple[str, str, int]  # model, workload, connections


def standings(results: Iterable[Result], ceilings: Iterable[str]) -> dict[Key, Standing]:
    """All cells, in the order in which they were first measured; ceilings are theirs whatever the connections."""
    results, forms = list(results), set(ceilings)
    rows: dict[Key, dict[str, list[Result]]] = {}
    for result in results:
        cell = result.cell
        if cell.server not in forms:
            of_cell = rows.setdefault((cell.model, cell.workload, cell.connections), {})
            of_cell.setdefault(cell.server, []).append(result)
    without_http = [result for result in results if result.cell.server in forms and not result.error]
    return {
        key: Standing({name: _figure(group) for name, group in of_cell.items()}, _ceiling(without_http, *key[:2]))
        for key, of_cell in rows.items()
    }


def _figure(rounds: list[Result]) -> Figure:
    if error := next((each.error for each in rounds if each.error), ""):
        return Figure({}, error=error)
    return Figure(
        {each.cell.round: each.requests_per_s for each in rounds},
        median(each.p50_ms for each in rounds),
        median(each.p99_ms for each in rounds),
        median(each.cpu_ms for each in rounds),
    )


def _ceiling(without_http: list[Result], model: str, workload: str) -> dict[int, float]:
    best: dict[int, float] = {}
    for result in without_http:
        cell = result.cell
        if (cell.model, cell.workload) == (model, workload):
            best[cell.round] = max(best.get(cell.round, 0.0), result.requests_per_s)
    return best


def _ratio(rates: Mapping[int, float], others: Mapping[int, float]) -> float | None:
    """Median over the rounds that both have."""
    shared = [rates[turn] / others[turn] for turn in rates if others.get(turn)]
    return median(shared) if shared else None
