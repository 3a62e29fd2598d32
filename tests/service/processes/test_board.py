import os

from service.processes.board import Board, Column
from service.processes.ledger import BoardLedger, BoardSpeed


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
