"""One request of a bench: pictures in turn, and what became of them. No retries: they would hide what is measured."""

import asyncio
import json
from itertools import cycle

import httpx

from service.bench.samples import Fate
from service.calls.pictures import media_type_of

_MOST_CONNECTIONS = 512  # of an open loop; requests beyond wait, and their latency counts


class Sender:
    """Sends pictures to a service: `async with Sender(...) as sender: await sender()`.

    Args:
        url: of the service.
        pictures: bytes of image files, sent in turn.
        headers: of every request, such as the API key.
        connections: at most; None: as many as an open loop may have.
        timeout_s: of one request.
    """

    def __init__(
        self, url: str, pictures: list[bytes], headers: dict[str, str], connections: int | None, timeout_s: float
    ) -> None:
        most = connections or _MOST_CONNECTIONS
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=10)
        self._http = httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=None)  # noqa: S113 - below
        self._bodies = cycle([(picture, {"Content-Type": media_type_of(picture)}) for picture in pictures])
        self._timeout_s = timeout_s

    async def __aenter__(self) -> "Sender":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def __call__(self) -> tuple[Fate, str]:
        """Send the next picture; what became of it, and why."""
        body, headers = next(self._bodies)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._http.post("/classify", content=body, headers=headers)
        except TimeoutError:
            return Fate.FAILED, "no reply in time"
        except httpx.RequestError as error:
            return Fate.FAILED, f"no reply: {type(error).__name__}"
        return fate_of(response.status_code, response.content)


def fate_of(status: int, body: bytes) -> tuple[Fate, str]:
    """What a reply means."""
    if status == 200:
        return Fate.ANSWERED, ""
    try:
        code = json.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        code = "of a proxy or another service"
    return Fate.REFUSED if status in {429, 503} else Fate.FAILED, f"{status} {code}"
