"""A server that answers as it is told, whatever is asked: for what a healthy service never does on purpose."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

DROP = b""  # instead of a reply: close the connection


@dataclass
class Script:
    """What was asked, and how often somebody connected.

    Attributes:
        url: of the server.
        requests: head and body of each.
        connections: how many were made.
    """

    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


def reply(status: int, body: str = "{}", **headers: str) -> bytes:
    """A whole HTTP reply; underscores in names of headers become hyphens."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body.encode())}", "Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", body]).encode()


@contextmanager
def scripted(*replies: bytes) -> Iterator[Script]:
    """Give these replies, one a request, then close every connection; `DROP` closes one."""
    script, left = Script(), iter(replies)
    listener = socket.create_server(("127.0.0.1", 0))
    script.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            script.connections += 1
            with connection:
                _converse(connection, script, left)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _converse(connection: socket.socket, script: Script, left: Iterator[bytes]) -> None:
    connection.settimeout(5)
    while request := _request(connection):
        script.requests.append(request)
        answer = next(left, DROP)
        if answer == DROP:
            return
        connection.sendall(answer)
        if len(answer) < _declared(answer) + answer.index(b"\r\n\r\n") + 4:
            return  # a reply that is cut off ends its connection


def _request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received or len(received) < received.index(b"\r\n\r\n") + 4 + _declared(received):
        try:
            chunk = connection.recv(65536)
        except OSError:
            return b""
        if not chunk:
            return b""
        received += chunk
    return received


def _declared(message: bytes) -> int:
    for line in message.split(b"\r\n\r\n")[0].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0
