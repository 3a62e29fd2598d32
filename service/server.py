"""The process: socket, signals, start and end.

The end, step by step: SIGTERM or Ctrl-C makes readiness 503 while serving goes on for the drain delay, so that load
balancers look away; then the socket closes and what was accepted is finished; what is left after the grace period gets
503. A second signal ends the process at once.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.engine import Engine
from service.errors import StartError
from service.lifecycle import Lifecycle, Phase
from service.logs import BackgroundStream, open_log, quiet_libraries
from service.metrics import Metrics
from service.protocol import bounded_protocol
from service.settings import HttpSettings, Settings

_FLUSH_S = 1.0


def serve(settings: Settings, engine: Engine | None = None) -> None:
    """Serve until told to stop, all in this process; does not return.

    Args:
        settings: everything that can be chosen.
        engine: by default the model of the settings, loaded here.

    Raises:
        StartError: if the service cannot start.
    """
    quiet_libraries()
    hangs_up = hasattr(signal, "SIGHUP") and not sys.stderr.isatty()  # on a terminal it says that the terminal is gone
    if hangs_up:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something that could be loaded again
    lifecycle = Lifecycle()
    stream = BackgroundStream(sys.stderr)
    log = open_log(settings, stream, is_terminal=sys.stderr.isatty())
    app = create_app(settings, engine=engine, lifecycle=lifecycle, log=log)
    app.state.metrics.watch("log_lines_lost", "Log lines that could not be written", lambda: stream.lost)
    (listener,) = listen(settings)

    def serving() -> None:
        log.info("models_loaded", **app.state.models.facts())
        announce(listener)

    server = Server(
        server_config(app, settings, app.state.metrics),
        lifecycle,
        settings.drain_delay_s,
        (signal.SIGINT, signal.SIGTERM),
        serving,
    )
    if hangs_up:
        server.reload_with(app.state.reload.soon)
    server.run(sockets=[listener])
    log.info("stopped", failed=lifecycle.failed)
    stream.close(timeout_s=1.0)
    # A decoder or an engine that hangs in its thread must not hold the exit.
    leave(1 if lifecycle.failed else 0)


def server_config(app: FastAPI, settings: Settings, metrics: Metrics) -> uvicorn.Config:
    """How uvicorn runs the app."""
    return uvicorn.Config(
        app,
        http=bounded_protocol(settings, metrics, app.state.door),
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


class Server(uvicorn.Server):
    """uvicorn's server with our order of ending.

    Args:
        config: see `server_config`.
        lifecycle: told of every phase.
        drain_delay_s: from the signal to the closing of the socket, seconds.
        signals: that begin the end.
        serving: called when connections are taken.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        lifecycle: Lifecycle,
        drain_delay_s: float,
        signals: Sequence[signal.Signals],
        serving: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_delay_s = drain_delay_s
        self._signals = signals
        self._serving = serving
        self._alive: Connection | None = None
        self._reload: Callable[[], None] | None = None
        self._closing_at_s: float | None = None

    def end_with(self, alive: Connection) -> None:
        """End as after a signal when this connection comes to its end."""
        self._alive = alive

    def reload_with(self, reload: Callable[[], None]) -> None:
        """Call this, in the event loop, for every SIGHUP."""
        self._reload = reload

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends the process."""
        if self._closing_at_s is not None:
            leave(128 + sig)
        self._drain()

    def _drain(self) -> None:
        self._lifecycle.advance(Phase.DRAINING)
        self._closing_at_s = self._closing_at_s or time.monotonic() + self._drain_delay_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so once the service takes connections."""
        await super().startup(sockets)
        if self._alive is not None:
            asyncio.get_running_loop().add_reader(self._alive, self._orphaned)
        if self._reload is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        gc.freeze()  # what is loaded by now stays: the collector need not look at it again
        if not self.should_exit:
            self._serving()

    def _orphaned(self) -> None:
        if self._alive is not None:
            asyncio.get_running_loop().remove_reader(self._alive)
        self._drain()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; true ends serving."""
        if self._lifecycle.failed:
            self._drain()
        due = self._closing_at_s is not None and time.monotonic() >= self._closing_at_s
        return await super().on_tick(counter) or due

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take nothing new, then finish."""
        self._lifecycle.advance(Phase.CLOSING)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but without raising the signal again at the end: a drained process ends with status 0."""
        before = {each: signal.signal(each, self.handle_exit) for each in self._signals}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def listen(settings: HttpSettings, count: int = 1, *, join: bool = False) -> list[socket.socket]:
    """Bind before the loop starts, so that a port in use is one line and the announced port is the real one.

    Args:
        settings: host and port.
        count: sockets on the one port; the kernel deals connections out among them.
        join: the port is one that this service has already, see `share`.

    Raises:
        StartError: if the address cannot be had.
    """
    listeners = [_bind(settings.host, settings.port, join=join)]
    port = listeners[0].getsockname()[1]
    if count > 1:
        share(listeners[0])
    listeners += [_bind(settings.host, port, join=True) for _ in range(1, count)]
    return listeners


def share(listener: socket.socket) -> None:
    """Let more sockets of this user listen on its port. Not before it has the port: nobody else shall be there."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _bind(host: str, port: int, *, join: bool) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if join:
            share(listener)
        listener.bind(address)
    except OSError as error:
        raise StartError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def announce(listener: socket.socket) -> None:
    """Print where the service is, and a command to try it with."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)  # noqa: S104 - compared, not bound
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    sample = next(iter(sorted(Path("tests/data").glob("*.jpg"))), Path("photo.jpg"))
    print(f"patchserve listens on {url}\n\n    curl -F file=@{sample} {url}/classify\n", flush=True)  # noqa: T201


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on the same kind of event loop that serves HTTP."""
    factory = None
    if _loop_name() == "uvloop":
        import uvloop  # noqa: PLC0415 - there is none on Windows

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)


def _loop_name() -> str:
    try:
        import uvloop  # noqa: F401, PLC0415 - there is none on Windows
    except ImportError:
        return "asyncio"
    return "uvloop"


def leave(status: int) -> NoReturn:
    """End the process now, whatever its threads do, and whether or not somebody reads what it says."""
    flushing = threading.Thread(target=_flush, daemon=True)  # waits for the log's thread, which may wait for a reader
    flushing.start()
    flushing.join(_FLUSH_S)
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
