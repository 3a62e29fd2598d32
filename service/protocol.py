"""HTTP/1.1 on one connection: uvicorn's httptools protocol with limits that it does not have.

Added: a bound on connections and on requests that wait in one, a deadline for the headers, bounds on their number and
size and on the address, exactly one Host, trailers that never become headers, offers of other protocols that change
nothing, refusals as problem documents in the order of the requests, a pace for clients that are refused and come back
at once, an end for those that do not read, and a gentle end for the others: a reply that is sent before its request
body has arrived would be lost in a connection reset if the socket were closed at once, so what still arrives is read
and dropped for a while.
"""

# ruff: noqa: D102 - the methods without a docstring are those of asyncio and uvicorn

import asyncio
import re
import sys
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.connections import Doorway, places_for_connections
from service.door import Door
from service.errors import AddressTooLong, BadRequest, HeadersTooLarge, Overloaded, RequestError, UploadTimeout
from service.metrics import Metrics
from service.pacing import RefusalPace
from service.problems import problem_response
from service.security_headers import SECURITY_HEADERS
from service.settings import Settings
from service.tracking import PROBES, new_request_id, note_refusal
from service.upgrades import has_offer, open_parser, without_offer

_HOST = re.compile(rb"([A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")  # RFC 3986, 3.2.2 and 3.2.3
_VERSIONS = {"1.0", "1.1"}  # the parser knows 0.9 and 2.0 as well
_SHED = {"overloaded", "rate_limited"}  # refusals that say when to come again
_MOST_WAITING = 16  # pipelined requests of one connection: each keeps its headers, and the start of its body


def bounded_protocol(settings: Settings, metrics: Metrics, door: Door | None = None) -> type[HttpToolsProtocol]:
    """The protocol class for these settings, in the form that uvicorn takes.

    Raises:
        StartError: if too few files may be open.
    """
    doorway, pace = Doorway(places_for_connections(settings)), RefusalPace()

    class _Bounded(BoundedProtocol):
        def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **rest: Any) -> None:
            super().__init__(settings, metrics, doorway, door, pace, config, server_state, app_state, **rest)

    return _Bounded


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        doorway: Doorway,
        door: Door | None,
        pace: RefusalPace,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        **rest: Any,
    ) -> None:
        super().__init__(config, server_state, app_state, **rest)
        self._settings = settings
        self._metrics = metrics
        self._doorway = doorway
        self._served = False  # otherwise only a probe is answered
        self._door = door
        self._reading_headers = True
        self._header_fields = 0
        self._header_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._pace = pace
        self._resting: asyncio.TimerHandle | None = None
        self._offer_ends: int | None = None  # where in the data the header ends of a request that offers an upgrade
        self._violation: RequestError | None = None
        self._refused = False  # nothing more is parsed
        self._dropping = False  # waiting for the rest of a body whose reply has been sent
        self._replying: RequestResponseCycle | None = None  # the latest whose reply has begun

    # --- connection -------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gentle = GentleTransport(transport, self)
        super().connection_made(self._gentle)
        self._metrics.connections.inc()
        self._served = self._doorway.enter(self)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._doorway.leave(self, served=self._served)
        self._metrics.connections.dec()
        self._stop_timer()
        self._stop_unread_timer()
        if self._resting is not None:
            self._resting.cancel()
        self._refused = True
        self._gentle.let_go()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._reading_headers:
            self._header_bytes += len(data)
            self._await_headers()
        super().data_received(data)
        while self._offer_ends is not None:
            data = self._without_offer(data, self._offer_ends)
            super().data_received(data)
        # A single huge header is seen by the parser's callbacks only when it is complete.
        if self._reading_headers and self._header_bytes > self._allowed_bytes and not self._refused:
            self._violation = HeadersTooLarge()
            self.send_400_response("")

    def _unsupported_upgrade_warning(self) -> None:
        """Where uvicorn catches the parser's exception, which says where the header ends."""
        offer = sys.exception()
        self._offer_ends = None if offer is None else int(offer.args[0])

    def _without_offer(self, data: bytes, header_ends: int) -> bytes:
        """The request that has just been read, and what came behind its header, for another parser."""
        head = without_offer(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self.parser, self._offer_ends = open_parser(self), None
        return head + data[header_ends:]

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread_timer()
        if self.transport.is_closing():
            self._await_reader()

    def abort(self) -> None:
        """Close now; nothing more is sent."""
        self.transport.abort()

    def begins_reply(self) -> bool:
        """Whether what uvicorn writes now is the head of a reply whose body it writes next; asked once a write."""
        cycle = self.cycle
        begins = cycle is not self._replying and cycle is not None and cycle.response_started
        if begins:
            self._replying = cycle
        return begins and cycle.expected_content_length > 0

    # --- parser callbacks -------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_fields = 0
        self._await_headers()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._settings.max_url_bytes:
            self._violate(AddressTooLong())

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._reading_headers:
            return  # a trailer: uvicorn would add it to the headers of a request that is being served
        self._header_fields += 1
        if self._header_fields > self._settings.max_header_fields:
            self._violate(HeadersTooLarge())
        super().on_header(name, value.rstrip(b" \t"))  # the parser leaves what may follow a value
        if sum(len(name) + len(value) for name, value in self.headers) > self._settings.max_header_bytes:
            self._violate(HeadersTooLarge())

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if not has_offer(self.headers):  # it is CONNECT
                self._violate(BadRequest())
            return
        version = self.parser.get_http_version()
        hosts = [value for name, value in self.headers if name == b"host"]
        missing = not hosts and version == "1.1"
        if version not in _VERSIONS or missing or len(hosts) > 1 or (hosts and not _HOST.fullmatch(hosts[0])):
            self._violate(BadRequest())
        if len(self.pipeline) >= _MOST_WAITING or not (self._served or self._asks_for_probe()):
            self._violate(Overloaded(1, self._settings.overload_status))
        if version == "1.0":
            self.expect_100_continue = False  # RFC 9110, 10.1.1: such a client would take it for the reply
        super().on_headers_complete()
        self.cycle.keep_alive = self.cycle.keep_alive and self._served
        self._reading_headers = False
        self._stop_timer()
        if self._dropping:  # refused at the door
            self._start_timer(self._settings.linger_timeout_s, self.transport.close)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Where uvicorn makes a task of a request, whose body may not be here yet.

        Pipelined requests go by the app: each would be refused inside the refusal of the one before.
        """
        if self._door is not None and cycle.keep_alive and not self.pipeline:
            reply = self._door.refusal(cycle.scope)  # type: ignore[arg-type]
            if reply is not None:
                self.transport.write(reply)
                cycle.scope["state"]["problem"] = Overloaded.code
                cycle.response_started = cycle.response_complete = True
                self.on_response_complete()
                cycle.on_response = _nothing  # as uvicorn does behind the app: no circle with this connection
                return
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self.cycle.more_body = False  # uvicorn leaves it when the reply went first
        self._reading_headers = True
        self._header_bytes = 0
        if self._dropping:
            self._dropping = False
            self._stop_timer()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        shed = self.cycle.scope.get("state", {}).get("problem") in _SHED
        super().on_response_complete()
        if shed:
            self._rest()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return  # or a later request is already being served
        if self._violation is not None:
            self._metrics.request_ended("unmatched", self._violation.code)
            self._refuse(self._violation)
        elif self.cycle.more_body:
            self._unset_keepalive_if_required()
            self._dropping = True
            self._start_timer(self._settings.linger_timeout_s, self.transport.close)

    def _asks_for_probe(self) -> bool:
        return self.url.partition(b"?")[0].decode("latin-1") in PROBES

    # --- refusals ---------------------------------------------------------------------------------------------------
    @property
    def _allowed_bytes(self) -> int:
        return self._settings.max_header_bytes + self._settings.max_url_bytes

    def _violate(self, error: RequestError) -> None:
        """Stop the parser; `data_received` of the base class then asks for the refusal."""
        self._violation = error
        raise ValueError(error.code)

    def _headers_late(self) -> None:
        self._timer = None
        if self._header_bytes == 0:
            self.transport.close()  # nothing was asked, so nothing is answered
            return
        self._violation = UploadTimeout()
        self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Refuse the request that is being parsed, after the answers to those before it."""
        self._violation = self._violation or BadRequest()
        self._stop_timer()
        self._refused = True
        if not self._reading_headers:
            self._end_malformed_body()
        elif self.cycle is None or self.cycle.response_complete:
            self._metrics.request_ended("unmatched", self._violation.code)
            self._refuse(self._violation)
        # Otherwise on_response_complete goes on when the requests before this one have been answered.

    def _end_malformed_body(self) -> None:
        """The request is in its handler, or waits for it: there it ends as if the client had left."""
        waiting = any(cycle is self.cycle for cycle, _ in self.pipeline)
        if not waiting and not self.cycle.response_started:
            error = self._violation or BadRequest()
            note_refusal(self.cycle.scope, error)
            self._refuse(error)
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        if waiting:
            self._start_timer(self._settings.header_timeout_s, self.transport.close)
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, error: RequestError) -> None:
        request_id = new_request_id()
        response = problem_response(error, request_id)
        headers = [
            *response.raw_headers,
            (b"x-request-id", request_id.encode()),
            *SECURITY_HEADERS,
            (b"connection", b"close"),
        ]
        lines = [f"HTTP/1.1 {error.status} {error.title}".encode(), *(name + b": " + value for name, value in headers)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body))
        self.transport.close()

    def _rest(self) -> None:
        """Read on in a moment, if refusals come too fast."""
        rest_s = self._pace.rest_s(self.loop.time())
        if rest_s > 0 and self._resting is None and not self.transport.is_closing():
            self._metrics.rests.inc()
            self.transport.pause_reading()
            self._resting = self.loop.call_later(rest_s, self._read_on)

    def _read_on(self) -> None:
        self._resting = None
        self.transport.resume_reading()

    # --- the end ----------------------------------------------------------------------------------------------------
    def close_gently(self, transport: asyncio.Transport) -> None:
        """Close now if the client has nothing more to say, otherwise after it has said it, or after a while."""
        unread = self._violation is not None or (self.cycle is not None and self.cycle.more_body)
        if not unread or self._settings.linger_timeout_s == 0:
            transport.close()
            self._await_reader()
            return
        self._refused = True
        if transport.can_write_eof():
            transport.write_eof()
        transport.resume_reading()
        self._start_timer(self._settings.linger_timeout_s, self.abort)

    def _await_reader(self) -> None:
        """A transport closes when all is sent, and a client that does not read would keep it open for ever."""
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(self._settings.reply_timeout_s, self.abort)

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _await_headers(self) -> None:
        if self._timer is None:
            self._start_timer(self._settings.header_timeout_s, self._headers_late)

    def _start_timer(self, seconds: float, then: Any) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nothing() -> None:
    pass


class GentleTransport(asyncio.Transport):
    """A transport whose `close` lets a reply reach a client that is still sending.

    Head and body of a reply go together: sent one by one, they wake the client twice. A head whose body does not follow
    at once, because it is a stream or there is none, goes alone.
    """

    def __init__(self, transport: asyncio.Transport, protocol: BoundedProtocol) -> None:
        super().__init__()
        self._transport = transport
        self._protocol = protocol
        self._closing = False
        self._head = b""

    def close(self) -> None:
        if self._closing:
            self._transport.close()
            return
        self._send_head()
        self._closing = True
        self._protocol.close_gently(self._transport)

    def let_go(self) -> None:
        """The connection is lost: what still holds this transport writes nothing, and no longer holds the protocol.

        Otherwise every connection would be a circle, and what the collector finds of thousands stops the loop.
        """
        self._closing = True
        self._head = b""
        del self._protocol

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        if self._protocol.begins_reply():
            self._send_head()
            self._head = bytes(data)
            self._protocol.loop.call_soon(self._send_head)
        else:
            head, self._head = self._head, b""
            self._transport.write(head + data)

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head and not self._closing:
            self._transport.write(head)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        self._transport.abort()
