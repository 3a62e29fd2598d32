"""What is measured, in which order and for how long: pure planning."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from benchmarks.peers.results import Cell

CONNECTIONS = (1, 8, 32, 128)
# Seconds of a cell: several waves of requests where one takes long; the cut at the end takes up to one from the count.
_SECONDS = {"bundled": (2, 2, 2, 3), "Ti/16": (3, 4, 8, 12), "B/16": (4, 8, 16, 40)}
_ROUNDS = {"bundled": 3, "Ti/16": 2, "B/16": 1}
_CEILING_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        models, workloads, connections, servers, ceilings: by name, in order.
        seconds: of every cell; 0: by model and connections.
        rounds: over all servers; 0: by model.
    """

    models: Sequence[str]
    workloads: Sequence[str]
    connections: Sequence[int]
    servers: Sequence[str]
    ceilings: Sequence[str]
    seconds: float = 0.0
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """One visit: cells of one server that are measured while it runs, each with its seconds."""

    model: str
    server: str
    cells: tuple[tuple[Cell, float], ...]


def itinerary(wanted: Wanted, done: Collection[Cell]) -> list[Stop]:
    """Visits in order: models, in each rounds, in each the ceilings and every server once; nothing twice."""
    stops = []
    for model in wanted.models:
        for turn in range(1, (wanted.rounds or _ROUNDS.get(model, 2)) + 1):
            for ceiling in wanted.ceilings:
                seconds = wanted.seconds or _CEILING_SECONDS
                cells = [(Cell(model, workload, 0, ceiling, turn), seconds) for workload in wanted.workloads]
                stops.append((model, ceiling, cells))
            stops += [(model, server, _cells(wanted, model, server, turn)) for server in wanted.servers]
    left = ((model, server, [each for each in cells if each[0] not in done]) for model, server, cells in stops)
    return [Stop(model, server, tuple(cells)) for model, server, cells in left if cells]


def _cells(wanted: Wanted, model: str, server: str, turn: int) -> list[tuple[Cell, float]]:
    return [
        (Cell(model, workload, connections, server, turn), wanted.seconds or seconds_of(model, connections))
        for workload in wanted.workloads
        for connections in wanted.connections
    ]


def seconds_of(model: str, connections: int) -> float:
    """Of a cell: those of the listed numbers of connections; between them, the next larger one's."""
    listed = _SECONDS.get(model, _SECONDS["B/16"])
    return float(next((s for c, s in zip(CONNECTIONS, listed, strict=True) if connections <= c), listed[-1]))
