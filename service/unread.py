"""A large reply, whose bytes count as memory until the client has read them.

A small one is gone when it is written. One that is larger than the buffers of a connection stays for as long as its
client does not read, and a picture is much larger than the upload that it was made of.
"""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.admission import Ledger


class LargeReply(Response):
    """ASGI: the reply.

    Args:
        content: all of it.
        media_type: of it.
        ledger: where its bytes count.
    """

    def __init__(self, content: bytes, media_type: str, ledger: Ledger) -> None:
        super().__init__(content, media_type=media_type)
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and wait until the connection has taken it or is closed."""
        self._ledger.add_bytes(len(self.body))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            await send({"type": "http.response.body"})  # a server holds this back while it cannot write
        finally:
            self._ledger.add_bytes(-len(self.body))
