"""The thread that asks does the work itself, and finds the next images read."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.batch.entries import UNREADABLE, Entry, Slice
from service.batch.one_core import SameThread, read_ahead


def test_work_is_done_by_who_submits_it() -> None:
    future = SameThread().submit(threading.get_ident)
    assert future.done()
    assert future.result() == threading.get_ident()


def test_a_failure_waits_for_who_asks() -> None:
    future = SameThread().submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        future.result()


def test_entries_come_in_order_with_what_their_files_say(tmp_path: Path) -> None:
    entries = [Entry("missing", Slice(tmp_path / "missing")), Entry("held", b"held")]
    for number in range(50):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
        entries.append(Entry(str(number), Slice(tmp_path / str(number))))
    found = list(read_ahead(iter(entries)))
    assert [entry.key for entry in found] == [entry.key for entry in entries]
    assert [entry.content for entry in found] == [UNREADABLE, b"held", *(b"%d" % number for number in range(50))]


def test_it_reads_a_little_ahead_and_no_more() -> None:
    """All files of a folder would fill the memory."""
    taken: list[str] = []

    def counted() -> Iterator[Entry]:
        for number in range(1000):
            taken.append(str(number))
            yield Entry(str(number), b"")

    assert next(read_ahead(counted())).key == "0"
    assert len(taken) <= 64
