"""The Python client: `Client` and, for asyncio, `AsyncClient`. It needs httpx and nothing of the server.

    with Client("http://localhost:8000") as client:
        print(client.classify("photo.jpg").best.label)

What is asked, how replies are read and when a call is made again stands in `service.calls`, once for both. Connections
are kept and used again; a client may be shared by threads, or by the tasks of one event loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Unpack

import httpx

from service.calls.answers import (
    AnswerT,
    Classification,
    Embedding,
    Explanation,
    ModelInfo,
    ModelName,
    Outcome,
    Prediction,
)
from service.calls.failures import (
    AccessDenied,
    Busy,
    CallError,
    ImageRefused,
    NoConnection,
    NotUnderstood,
    ServiceError,
    TimedOut,
    TooLate,
    Unavailable,
    UnknownModel,
    UnreadableImage,
)
from service.calls.pictures import Picture, bytes_of, name_of
from service.calls.questions import (
    MODELS,
    READY,
    EmbedOptions,
    Options,
    Question,
    check_many,
    classification_of,
    embedding_of,
    explanation_of,
)
from service.calls.terms import Terms, answer, request
from service.calls.tries import NEVER, Retries

__all__ = [
    "AccessDenied",
    "AsyncClient",
    "Busy",
    "CallError",
    "Classification",
    "Client",
    "EmbedOptions",
    "Embedding",
    "Explanation",
    "ImageRefused",
    "ModelInfo",
    "ModelName",
    "NoConnection",
    "NotUnderstood",
    "Options",
    "Outcome",
    "Picture",
    "Prediction",
    "Retries",
    "ServiceError",
    "TimedOut",
    "TooLate",
    "Unavailable",
    "UnknownModel",
    "UnreadableImage",
]

_UNREADY = (NoConnection, TimedOut, Unavailable)


class Client:
    """A patchserve service.

    Args:
        url: where it listens, such as `http://localhost:8000`.
        api_key: where the service has keys.
        timeout_s: of one attempt: for the connection, and for each wait for bytes of the reply.
        retries: when and how often a call is made again.
        transport: of httpx, for another way to the service or a certificate of one's own.

    Raises:
        ValueError: if the address, the key or the timeout cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._terms = Terms(url, api_key, timeout_s, retries or Retries())
        self._http = httpx.Client(**self._terms.http, transport=transport)
        self._closed = threading.Event()

    def classify(self, picture: Picture, **options: Unpack[Options]) -> Classification:
        """Classify one image.

        Args:
            picture: a path, bytes of an image file, a binary file, a Pillow image or a uint8 array.
            options: see `Options`.

        Raises:
            CallError: if there is no answer; `service.calls.failures` shows the tree.
            TypeError: if there is no such option.
        """
        return self._ask(classification_of(bytes_of(picture), options))

    def explain(self, picture: Picture, **options: Unpack[Options]) -> Explanation:
        """As `classify`, and where the model looks; it must have been exported with `--explain`."""
        return self._ask(explanation_of(bytes_of(picture), options))

    def embed(self, picture: Picture, **options: Unpack[EmbedOptions]) -> Embedding:
        """The features of one image, see `EmbedOptions`; errors are those of `classify`."""
        return self._ask(embedding_of(bytes_of(picture), options))

    def classify_many(
        self, pictures: Iterable[Picture], *, concurrency: int = 8, **options: Unpack[Options]
    ) -> Generator[Outcome, None, None]:
        """Classify many images, `concurrency` at a time; outcomes come in the order of the images.

        Images are taken from `pictures` as they are needed, at most twice `concurrency` ahead of the outcomes. One
        that fails does not stop the others.
        """
        check_many(concurrency, options)
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="patchserve")
        ahead: deque[Future[Outcome]] = deque()
        try:
            for place, picture in enumerate(pictures):
                # A thread does not know which trace the caller is in; its context does.
                ahead.append(pool.submit(copy_context().run, self._outcome, place, picture, options))
                if len(ahead) >= 2 * concurrency:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def models(self) -> list[ModelInfo]:
        """What the service serves.

        Raises:
            CallError: if there is no answer.
        """
        return self._ask(MODELS)

    def ready(self) -> bool:
        """Whether the service would classify now; asks once.

        Raises:
            CallError: if what answers is no patchserve.
        """
        try:
            self._ask(READY, NEVER)
        except _UNREADY:
            return False
        return True

    def close(self) -> None:
        """Close the connections, and end the pauses between attempts."""
        self._closed.set()
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _outcome(self, place: int, picture: Picture, options: Options) -> Outcome:
        try:
            return Outcome(place, name_of(picture), self.classify(picture, **options))
        except CallError as error:
            return Outcome(place, name_of(picture), error=error)

    def _ask(self, question: Question[AnswerT], retries: Retries | None = None) -> AnswerT:
        tries = self._terms.tries(retries)
        while True:
            with tries, self._http.stream(**request(question, tries)) as response:
                tries.reply_begins()
                response.read()
                return answer(question, response)
            if self._closed.wait(tries.pause_s):
                raise NoConnection("the client was closed before the service had answered")


class AsyncClient:
    """A patchserve service, for asyncio. Arguments, results and errors are those of `Client`."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._terms = Terms(url, api_key, timeout_s, retries or Retries())
        self._http = httpx.AsyncClient(**self._terms.http, transport=transport)

    async def classify(self, picture: Picture, **options: Unpack[Options]) -> Classification:
        """As `Client.classify`; files are read and pictures encoded in a thread."""
        return await self._ask(classification_of(await _read(picture), options))

    async def explain(self, picture: Picture, **options: Unpack[Options]) -> Explanation:
        """As `Client.explain`."""
        return await self._ask(explanation_of(await _read(picture), options))

    async def embed(self, picture: Picture, **options: Unpack[EmbedOptions]) -> Embedding:
        """As `Client.embed`."""
        return await self._ask(embedding_of(await _read(picture), options))

    async def classify_many(
        self, pictures: Iterable[Picture], *, concurrency: int = 8, **options: Unpack[Options]
    ) -> AsyncGenerator[Outcome, None]:
        """As `Client.classify_many`."""
        check_many(concurrency, options)
        places = asyncio.Semaphore(concurrency)
        ahead: deque[asyncio.Task[Outcome]] = deque()

        async def outcome(place: int, picture: Picture) -> Outcome:
            async with places:
                return await self._outcome(place, picture, options)

        try:
            for place, picture in enumerate(pictures):
                ahead.append(asyncio.create_task(outcome(place, picture)))
                if len(ahead) >= 2 * concurrency:
                    yield await ahead.popleft()
            while ahead:
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def models(self) -> list[ModelInfo]:
        """As `Client.models`."""
        return await self._ask(MODELS)

    async def ready(self) -> bool:
        """As `Client.ready`."""
        try:
            await self._ask(READY, NEVER)
        except _UNREADY:
            return False
        return True

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _outcome(self, place: int, picture: Picture, options: Options) -> Outcome:
        try:
            return Outcome(place, name_of(picture), await self.classify(picture, **options))
        except CallError as error:
            return Outcome(place, name_of(picture), error=error)

    async def _ask(self, question: Question[AnswerT], retries: Retries | None = None) -> AnswerT:
        tries = self._terms.tries(retries)
        while True:
            with tries:
                async with self._http.stream(**request(question, tries)) as response:
                    tries.reply_begins()
                    await response.aread()
                    return answer(question, response)
            await asyncio.sleep(tries.pause_s)


async def _read(picture: Picture) -> bytes:
    return picture if isinstance(picture, bytes) else await asyncio.to_thread(bytes_of, picture)
