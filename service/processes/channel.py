"""One end of the connection between an HTTP process and the engine process, on an event loop.

Records that are put in the same turn of the loop leave in one datagram. When the other side does not read, records wait
here and leave together later; how many there can be is bounded by the slots of the patch memory. Lines of text may be
longer than a datagram and are put together again.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator

from service.processes.messages import (
    MAX_DATAGRAM_BYTES,
    Kind,
    Lives,
    Record,
    most_bytes,
    pack_header,
    pack_record,
    unpack,
    unpack_records,
)

_MOST_LINE_BYTES = 64 << 20
Receive = Callable[[Kind, Lives, Iterator[Record]], None]
Hear = Callable[[Lives, bytes], None]


class Channel:
    """One end.

    Args:
        end: this side's socket of a SOCK_SEQPACKET pair, non-blocking.
        receive: is told of records.
        hear: is told of every whole line of text, without its end.
        ended: is told that nobody can be on the other side any more.
    """

    def __init__(
        self, end: socket.socket, receive: Receive, hear: Hear, ended: Callable[[], None] = lambda: None
    ) -> None:
        self._end = end
        self._receive = receive
        self._hear = hear
        self._ended = ended
        self._waiting: dict[Kind, bytearray] = {}
        self._flush_due = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._text = bytearray()  # the beginning of a line
        self._text_lives = Lives(0, 0)  # of whoever said it
        self.lives = Lives(0, 0)

    def open(self) -> None:
        """Listen on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._end, self._read)

    def close(self) -> None:
        """Stop listening; what was put goes out if there is room at once."""
        if self._loop is not None:
            self._flush()
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            self._loop = None

    def put(self, kind: Kind, record: Record | None = None) -> None:
        """Send a record, or an empty datagram, at the end of this turn of the loop."""
        box = self._waiting.setdefault(kind, bytearray())
        if record is not None:
            box += pack_record(kind, record)
        self._flush_soon()

    def say(self, line: bytes) -> None:
        """Send a line of text; `line` has no line end in it."""
        self._waiting.setdefault(Kind.TEXT, bytearray()).extend(line + b"\n")
        self._flush_soon()

    def forget(self) -> None:
        """Drop what waits: it was for an earlier life of the other side."""
        self._waiting.clear()

    def _flush_soon(self) -> None:
        if not self._flush_due and self._loop is not None:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._loop is None:
            return
        try:
            while self._waiting:
                self._send_first()
        except BlockingIOError:
            self._loop.add_writer(self._end, self._flush)
        except OSError:
            self._end_of_life()
        else:
            self._loop.remove_writer(self._end)

    def _send_first(self) -> None:
        kind, box = next(iter(self._waiting.items()))
        part = most_bytes(kind)
        self._end.send(pack_header(kind, self.lives) + box[:part])
        del box[:part]
        if not box:
            del self._waiting[kind]

    def _read(self) -> None:
        while self._loop is not None:
            try:
                datagram = self._end.recv(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError:
                datagram = b""
            if not datagram:
                self._end_of_life()
                return
            kind, lives, body = unpack(datagram)
            if kind == Kind.TEXT:
                self._read_text(lives, body)
            else:
                self._receive(kind, lives, unpack_records(kind, body))

    def _read_text(self, lives: Lives, body: memoryview) -> None:
        if lives != self._text_lives:  # whoever said the beginning is dead
            self._text_lives = lives
            self._text.clear()
        self._text += body
        *lines, rest = self._text.split(b"\n") if b"\n" in bytes(body) else [self._text]
        self._text = rest
        if len(rest) > _MOST_LINE_BYTES:
            self._text = bytearray()
            raise ValueError(f"a line of more than {_MOST_LINE_BYTES} bytes")
        for line in lines:
            self._hear(lives, bytes(line))

    def _end_of_life(self) -> None:
        """Nobody can be on the other side any more."""
        self.forget()
        if self._loop is not None:
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            self._loop = None
            self._ended()
