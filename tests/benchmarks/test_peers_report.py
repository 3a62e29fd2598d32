"""The arithmetic between measurements and tables: medians, ratios by round, the goal, errors."""

from pathlib import Path

import pytest

from benchmarks.peers.plan import Wanted, itinerary
from benchmarks.peers.report import document, missed, place_table
from benchmarks.peers.results import Cell, Result, append, read
from benchmarks.peers.standings import Standing, standings

CEILINGS = ("one-engine", "process-per-core")


def result(server: str, rate: float, turn: int = 1, connections: int = 32, error: str = "") -> Result:
    if server in CEILINGS:
        connections = 0
    numbers = (0.0, 0.0, 0.0, 0.0) if error else (rate, 10.0 * turn, 20.0 * turn, 1.0 * turn)
    return Result(Cell("bundled", "224x224", connections, server, turn), *numbers, error=error)


def only(results: list[Result]) -> Standing:
    (standing,) = standings(results, CEILINGS).values()
    return standing


def test_figures_are_medians_of_the_rounds() -> None:
    figure = only([result("ours", rate, turn) for turn, rate in enumerate((5.0, 100.0, 9.0), 1)]).servers["ours"]
    assert (figure.rate, figure.p50_ms, figure.p99_ms, figure.cpu_ms) == (9.0, 20.0, 40.0, 2.0)


def test_ratios_are_taken_within_a_round() -> None:
    ours = [result("ours", rate, turn) for turn, rate in enumerate((10.0, 200.0, 33.0), 1)]
    theirs = [result("theirs", rate, turn) for turn, rate in enumerate((10.0, 100.0, 30.0), 1)]
    assert only([*ours, *theirs]).ahead("ours") == pytest.approx(
        1.1
    )  # of 1.0, 2.0, 1.1; of medians it would be 1.1 too
    assert only([*ours[:2], *theirs[:2]]).ahead("ours") == pytest.approx(1.5)  # of medians it would be 1.91


def test_a_round_that_only_one_side_has_does_not_count() -> None:
    standing = only([result("ours", 50.0), result("ours", 900.0, 2), result("theirs", 100.0)])
    assert standing.ahead("ours") == pytest.approx(0.5)


def test_the_best_peer_is_never_oneself() -> None:
    standing = only([result("ours", 50.0), result("slow", 10.0), result("fast", 40.0)])
    assert standing.best_but("ours") == "fast"
    assert only([result("ours", 50.0)]).best_but("ours") is None


def test_the_ceiling_is_the_better_form_of_each_round() -> None:
    rounds = [("one-engine", 80.0, 1), ("process-per-core", 100.0, 1), ("one-engine", 50.0, 2)]
    standing = only([result("ours", 50.0), result("ours", 45.0, 2), *(result(*each) for each in rounds)])
    assert standing.ceiling == {1: 100.0, 2: 50.0}
    assert standing.of_ceiling("ours") == pytest.approx(0.7)  # of 0.5 and 0.9


def test_a_server_with_errors_in_one_round_has_no_figure() -> None:
    standing = only([result("ours", 50.0), result("theirs", 90.0), result("theirs", 0.0, 2, error="3 error answers")])
    assert standing.servers["theirs"].error == "3 error answers"
    assert standing.best_but("ours") is None
    assert standing.ahead("theirs") is None


@pytest.mark.parametrize(
    ("peer", "ceiling", "reached"),
    [
        (50.0, 100.0, True),  # twice the peer
        (59.0, 60.5, True),  # as fast as possible
        (59.0, 100.0, False),  # neither
        (61.0, 60.5, False),  # close to the ceiling, but second
    ],
)
def test_the_goal(peer: float, ceiling: float, reached: bool) -> None:
    standing = only([result("ours", 60.0), result("theirs", peer), result("one-engine", ceiling)])
    assert standing.reaches_goal("ours") is reached


def test_goals_missed_come_first_and_are_counted() -> None:
    close = [result("ours", 60.0), result("theirs", 59.0), result("one-engine", 100.0)]
    clear = [result("ours", 60.0, connections=8), result("theirs", 20.0, connections=8)]
    cells = standings([*close, *clear], CEILINGS)
    text = document(cells, "ours", ["ours", "theirs"])
    assert text.startswith("Goal (first, and 1.2 x the best peer or 0.97 of the loop without HTTP): missed in 1 of 2")
    assert "- bundled, 224x224, 32 connections: 1.02 x theirs, 0.60 of the ceiling" in missed(cells, "ours")


def test_tables_show_a_gap_and_the_reason_where_there_is_no_figure() -> None:
    cells = standings([result("ours", 60.0), result("theirs", 0.0, error="5 error answers")], CEILINGS)
    assert place_table(cells, "ours").splitlines()[-1] == "| bundled | 32 | 60.0 | - | - | **-** | - | - |"
    assert "- theirs, bundled, 224x224, 32 connections: 5 error answers" in document(cells, "ours", ["ours", "theirs"])


def test_results_survive_the_file_and_the_last_line_of_a_cell_counts(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert read(path) == []
    for each in (result("ours", 1.0), result("theirs", 2.0), result("ours", 3.0)):
        append(path, each)
    assert read(path) == [result("ours", 3.0), result("theirs", 2.0)]


def test_rounds_alternate_between_servers_and_skip_what_is_done() -> None:
    wanted = Wanted(["bundled"], ["224x224"], [1, 32], ["ours", "theirs"], ["one-engine"], rounds=2)
    order = [(stop.server, stop.cells[0][0].round) for stop in itinerary(wanted, [])]
    names = ("one-engine", "ours", "theirs")
    assert order == [(name, turn) for turn in (1, 2) for name in names]
    done = [cell for stop in itinerary(wanted, [])[:2] for cell, _ in stop.cells]
    left = itinerary(wanted, done[:-1])
    assert (left[0].server, [cell.connections for cell, _ in left[0].cells]) == ("ours", [32])
    assert len(left) == 5


def test_seconds_grow_with_what_a_request_takes() -> None:
    wanted = Wanted(["B/16"], ["mixed"], [1, 100, 128], ["ours"], [], rounds=1)
    (stop,) = itinerary(wanted, [])
    few, many, most = (seconds for _, seconds in stop.cells)
    assert few < many == most
