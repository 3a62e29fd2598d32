"""The process: socket, signals, start and end.

The end, step by step: SIGTERM or Ctrl-C makes readiness 503 while serving goes on for the drain delay, so that load
balancers look away; then the socket closes and what was accepted is finished; what is left after the grace period gets
503. A second signal ends the process at once.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from service.app import create_app
from service.errors import StartError
from service.lifecycle import Lifecycle, Phase
from service.logs import BackgroundStream, open_log, quiet_libraries
from service.protocol import bounded_protocol
from service.settings import Settings


def serve(settings: Settings) -> None:
    """Serve until told to stop; does not return.

    Raises:
        StartError: if the service cannot start.
    """
    quiet_libraries()
    lifecycle = Lifecycle()
    stream = BackgroundStream(sys.stderr)
    log = open_log(settings, stream, is_terminal=sys.stderr.isatty())
    app = create_app(settings, lifecycle=lifecycle, log=log)
    app.state.metrics.watch("log_lines_lost", "Log lines that could not be written", lambda: stream.lost)
    listener = _listen(settings)
    config = uvicorn.Config(
        app,
        http=bounded_protocol(settings, app.state.metrics),
        loop=_loop_name(),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_timeout_s,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    _Server(config, lifecycle, settings.drain_delay_s).run(sockets=[listener])
    log.info("stopped")
    stream.close(timeout_s=1.0)
    # A decoder or an engine that hangs in its thread must not hold the exit.
    _leave(0)


class _Server(uvicorn.Server):
    """uvicorn's server with our order of ending."""

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_delay_s: float) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_delay_s = drain_delay_s
        self._closing_at_s: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends the process."""
        if self._closing_at_s is not None:
            _leave(128 + sig)
        self._lifecycle.advance(Phase.DRAINING)
        self._closing_at_s = time.monotonic() + self._drain_delay_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say where the service is once it takes connections."""
        await super().startup(sockets)
        for listener in sockets or []:
            _announce(listener)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; true ends serving."""
        due = self._closing_at_s is not None and time.monotonic() >= self._closing_at_s
        return await super().on_tick(counter) or due

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, then finish."""
        self._lifecycle.advance(Phase.CLOSING)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but without raising the signal again at the end: a drained process ends with status 0."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {each: signal.signal(each, self.handle_exit) for each in signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def _listen(settings: Settings) -> socket.socket:
    """Bind before the loop starts, so that a port in use is one line and the announced port is the real one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise StartError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _announce(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)  # noqa: S104 - compared, not bound
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    sample = next(iter(sorted(Path("tests/data").glob("*.jpg"))), Path("photo.jpg"))
    print(f"patchserve listens on {url}\n\n    curl -F file=@{sample} {url}/classify\n", flush=True)  # noqa: T201


def _loop_name() -> str:
    try:
        import uvloop  # noqa: F401, PLC0415 - there is none on Windows
    except ImportError:
        return "asyncio"
    return "uvloop"


def _leave(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(status)
