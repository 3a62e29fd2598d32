"""Lines of text over a connection; records are in test_connection.py."""

import socket
from collections.abc import Iterator

import pytest
from two_processes import until

from service.processes.channel import Channel
from service.processes.messages import MAX_DATAGRAM_BYTES, Kind, Lives, pack_header

pytestmark = pytest.mark.anyio


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
    yield pair
    for end in pair:
        end.close()


def listening(end: socket.socket) -> list[tuple[Lives, bytes]]:
    heard: list[tuple[Lives, bytes]] = []
    Channel(end, lambda *_: None, lambda *line: heard.append(line)).open()
    return heard


async def test_lines_of_any_length_arrive_whole_and_in_order(ends: tuple[socket.socket, socket.socket]) -> None:
    speaker = Channel(ends[0], lambda *_: None, lambda *_: None)
    speaker.open()
    lines = [b"", b"short", b"x" * 10 * MAX_DATAGRAM_BYTES, "\N{SNOWMAN}".encode() * 99_999, b"end"]
    for line in lines:
        speaker.say(line)
    heard = listening(ends[1])
    await until(lambda: len(heard) == len(lines))
    assert heard == [(Lives(0, 0), line) for line in lines]


async def test_the_beginning_of_a_line_dies_with_whoever_said_it(ends: tuple[socket.socket, socket.socket]) -> None:
    heard = listening(ends[1])
    ends[0].send(pack_header(Kind.TEXT, Lives(1, 1)) + b"whole\nhal")
    ends[0].send(pack_header(Kind.TEXT, Lives(2, 1)) + b"new\n")
    await until(lambda: len(heard) == 2)
    assert heard == [(Lives(1, 1), b"whole"), (Lives(2, 1), b"new")]


async def test_what_was_for_an_earlier_life_is_forgotten(ends: tuple[socket.socket, socket.socket]) -> None:
    speaker = Channel(ends[0], lambda *_: None, lambda *_: None)
    speaker.open()
    speaker.say(b"old")
    speaker.forget()
    speaker.say(b"new")
    heard = listening(ends[1])
    await until(lambda: bool(heard))
    assert heard == [(Lives(0, 0), b"new")]
