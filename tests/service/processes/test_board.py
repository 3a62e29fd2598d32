import os

from service.processes.board import Board, Column
from service.processes.ledger import BoardLedger, BoardSpeed, ReplicaLedger, ReplicaRate


def test_all_processes_see_what_one_writes() -> None:
    board = Board(2)
    if (child := os.fork()) == 0:
        board.write(1, Column.QUEUE_PATCHES, 40)
        os._exit(0)
    os.waitpid(child, 0)
    board.write(2, Column.QUEUE_PATCHES, 2)
    assert (board.read(1, Column.QUEUE_PATCHES), board.total(Column.QUEUE_PATCHES)) == (40, 42)


def test_a_dead_process_holds_nothing_but_its_count_of_restarts() -> None:
    board = Board(1)
    for column in Column:
        board.write(1, column, 5)
    board.clear(1)
    assert [board.read(1, column) for column in Column if column != Column.RESTARTS] == [0] * (len(Column) - 1)
    assert board.read(1, Column.RESTARTS) == 5


def test_ledgers_share_one_total() -> None:
    board = Board(2)
    mine, other = BoardLedger(board, 1), BoardLedger(board, 2)
    mine.add_patches(100)
    other.add_patches(20)
    mine.add_bytes(7)
    mine.add_patches(-50)
    assert (mine.queue_patches, mine.all_queue_patches, other.all_queue_patches) == (50, 70, 70)
    assert (mine.all_upload_bytes, other.upload_bytes) == (7, 0)


def test_the_speed_is_the_engines() -> None:
    board = Board(1)
    speed = BoardSpeed(board)
    assert speed.time_for(10) == 0.0
    board.write(0, Column.PATCHES_PER_S, 200)
    assert speed.time_for(100) == 0.5


def test_a_replica_waits_for_its_own_engine_and_shares_the_limits() -> None:
    board = Board(2)
    mine, other = ReplicaLedger(board, 1), ReplicaLedger(board, 2)
    mine.add_patches(100)
    other.add_patches(20)
    assert (mine.engine_queue_patches, mine.all_queue_patches) == (100, 120)
    assert BoardLedger(board, 1).engine_queue_patches == 120


def test_the_speeds_of_replicas_add_up() -> None:
    board = Board(2)
    mine, other = ReplicaRate(board, 1), ReplicaRate(board, 2)
    mine.observe(100, 1.0)
    other.observe(50, 1.0)
    assert mine.time_for(100) == 1.0
    assert mine.all_per_s == other.all_per_s == 150.0


def test_who_serves_is_counted() -> None:
    board = Board(3)
    board.write(0, Column.LIFE, 1)  # an engine process serves no HTTP
    board.write(2, Column.LIFE, 4)
    assert board.living() == 1
