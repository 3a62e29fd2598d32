"""Between our values and those of httpx: what it is told, and what its replies and exceptions mean."""

import random
import time
from typing import Any

import httpx

from service.calls.answers import AnswerT, read_answer
from service.calls.context import trace_headers
from service.calls.failures import CallError, NoConnection, NotUnderstood, TimedOut
from service.calls.questions import Question
from service.calls.tries import Retries, Tries

_KEEP_S = 10.0  # the service closes connections that are idle for 15


class Terms:
    """What both clients are told, checked.

    Args:
        url, api_key, timeout_s, retries: as `service.client.Client` has them.

    Attributes:
        http: arguments of `httpx.Client` and `httpx.AsyncClient`.

    Raises:
        ValueError: if the address, the key or the timeout cannot be used.
    """

    def __init__(self, url: str, api_key: str | None, timeout_s: float, retries: Retries) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be above 0, not {timeout_s}")
        address = _address(url)
        self._shown = str(address.copy_with(username=None, password=None))
        self._timeout_s = timeout_s
        self._retries = retries
        self.http: dict[str, Any] = {
            "base_url": address,
            "headers": {"User-Agent": "patchserve-client", **key_headers(api_key)},
            "limits": httpx.Limits(max_connections=None, keepalive_expiry=_KEEP_S),
        }

    def tries(self, retries: Retries | None) -> Tries:
        """The attempts of one call; with another patience than the client's if one is given."""
        return Tries(retries or self._retries, self._timeout_s, time.monotonic, random.random, self._failure_of)

    def _failure_of(self, error: BaseException) -> CallError | None:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            return TimedOut(f"{self._shown} did not answer in time: within {self._timeout_s:g} s, or what was left")
        if isinstance(error, httpx.TransportError):
            return NoConnection(f"{self._shown}: {str(error) or type(error).__name__}")
        return NotUnderstood(f"{self._shown}: {error}") if isinstance(error, httpx.RequestError) else None


def key_headers(api_key: str | None) -> dict[str, str]:
    """The header of a key: not Authorization, which may hold what a proxy in between asks for.

    Raises:
        ValueError: if it can be no key.
    """
    if api_key is None:
        return {}
    if not (api_key and api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key):
        raise ValueError("the API key is empty or has characters that no key has: is there a line end in it?")
    return {"X-API-Key": api_key}


def request(question: Question[Any], tries: Tries) -> dict[str, Any]:
    """Arguments of `stream` for one attempt."""
    return {
        "method": question.method,
        "url": question.path,
        "params": question.params,
        "headers": {**question.headers, **trace_headers()},
        "content": question.content,
        "timeout": tries.timeout_s,
    }


def answer(question: Question[AnswerT], response: httpx.Response) -> AnswerT:
    """What a reply says.

    Raises:
        ServiceError: if it is a refusal.
        NotUnderstood: if it is not of patchserve.
    """
    return read_answer(response.status_code, response.headers, response.content, question.read, time.time())


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in {"http", "https"} or not address.host:
        raise ValueError(f"{url!r} is no address: write http://HOST:PORT or https://HOST")
    return address
