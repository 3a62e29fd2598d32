"""One end of the connection between an HTTP process and the engine process, on an event loop.

Records that are put in the same turn of the loop leave in one datagram. When the other side does not read, records wait
here and leave together later; how many there can be is bounded by the slots of the patch memory.
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
)

Receive = Callable[[Kind, Lives, Iterator[Record]], None]


class Channel:
    """Args: this side's socket of a SOCK_SEQPACKET pair, non-blocking, who is told of what arrives, and of the end."""

    def __init__(self, end: socket.socket, receive: Receive, ended: Callable[[], None] = lambda: None) -> None:
        self._end = end
        self._receive = receive
        self._ended = ended
        self._waiting: dict[Kind, bytearray] = {}
        self._flush_due = False
        self._loop: asyncio.AbstractEventLoop | None = None
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
        if not self._flush_due and self._loop is not None:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def forget(self) -> None:
        """Drop what waits: it was for an earlier life of the other side."""
        self._waiting.clear()

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
            self._receive(*unpack(datagram))

    def _end_of_life(self) -> None:
        """Nobody can be on the other side any more."""
        self.forget()
        if self._loop is not None:
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            self._loop = None
            self._ended()
