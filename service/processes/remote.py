"""The schedulers as an HTTP process sees them: images are submitted to the engine process, answers come back.

Patches stay in shared memory until their ticket has ended, so when the engine process dies, its successor is given
what was waiting, once, and whoever waits notices only the delay.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from model.preprocess import PatchSequence
from service.engine import Model
from service.errors import (
    DeadlineExceeded,
    Draining,
    Internal,
    ModelReplaced,
    NotReady,
    Overloaded,
    RequestError,
)
from service.extras import NOTHING, Extras
from service.predictions import MOST_RANKED
from service.processes.channel import Channel
from service.processes.documents import Catalogue, Document, read_document, write_document
from service.processes.messages import (
    Answer,
    Cancellation,
    Kind,
    Lives,
    Outcome,
    Record,
    Submission,
    TracedSubmission,
)
from service.processes.slab import PatchSlab
from service.scheduler import Inference
from service.tracing.references import SpanReference

_MOST_TRIES = 2  # an image that was with two engine processes when they died may be why
_ERRORS: dict[int, Callable[[], RequestError]] = {
    Outcome.EXPIRED: DeadlineExceeded,
    Outcome.FAILED: Internal,
    Outcome.DRAINING: Draining,
    Outcome.OVERLOADED: lambda: Overloaded(retry_after_s=1, status=503),
    Outcome.REPLACED: ModelReplaced,
}


class RemoteVersion:
    """One version of a model, as a queue.

    Args:
        model: what it is.
        number: what the engine process calls it; 0: it does not have it any more.
        queue: in front of the engine process.
    """

    __slots__ = ("_queue", "model", "number", "ranked")

    def __init__(self, model: Model, number: int, queue: "RemoteQueue") -> None:
        self.model = model
        self.number = number
        self.ranked = min(MOST_RANKED, len(model.manifest.labels))  # classes of a ranking
        self._queue = queue

    def submit(
        self,
        sequence: PatchSequence,
        deadline_s: float,
        extras: Extras = Extras.NONE,
        origin: SpanReference | None = None,
    ) -> asyncio.Future[Inference]:
        """Queue one image, see `RemoteQueue.submit`."""
        return self._queue.submit(self, sequence, deadline_s, extras, origin)


@dataclass(slots=True)
class _Waiting:
    version: RemoteVersion
    sequence: PatchSequence  # holds the slot
    deadline_s: float
    extras: Extras
    future: asyncio.Future[Inference]
    origin: SpanReference | None
    tries: int = 1


class RemoteQueue:
    """The way to the engine process.

    Args:
        end: this side of the connection.
        slab: where the patches of every submitted sequence lie.
        life: how often this HTTP process has been started, from 1.
        engine_up: whether an engine process is ready now.
        begin: is told what models there are by an engine process that is new here, before it is given anything.
        hear: is told of whatever else it says.
    """

    def __init__(
        self,
        end: socket.socket,
        slab: PatchSlab,
        life: int,
        engine_up: Callable[[], bool],
        begin: Callable[[Catalogue], None],
        hear: Callable[[Document], None],
    ) -> None:
        self._slab = slab
        self._begin = begin
        self._hear_more = hear
        self.engine_up = engine_up
        self._channel = Channel(end, self._receive, self._hear)
        self._channel.lives = Lives(engine=0, http=life)
        self._waiting: dict[int, _Waiting] = {}
        self._last_ticket = 0

    def open(self) -> None:
        """Listen on the running loop."""
        self._channel.open()

    def greet(self) -> None:
        """Say that this process is there. What the engine process answers is the first that this life hears of it.

        From then on it will touch no slot of an earlier life.
        """
        self._channel.put(Kind.GREETING)

    def close(self) -> None:
        """Stop listening."""
        self._channel.close()

    def say(self, document: Document) -> None:
        """Tell the engine process."""
        self._channel.say(write_document(document))

    def submit(
        self,
        version: RemoteVersion,
        sequence: PatchSequence,
        deadline_s: float,
        extras: Extras,
        origin: SpanReference | None,
    ) -> asyncio.Future[Inference]:
        """Queue one image, as `service.scheduler.Scheduler.submit`.

        Returns:
            A future of the answer; it raises DeadlineExceeded, Internal, Overloaded, Draining, NotReady or
            ModelReplaced.
        """
        future: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        if not self.engine_up() or not version.number:
            _fail(future, ModelReplaced() if not version.number else NotReady())
            return future
        self._last_ticket += 1
        ticket = self._last_ticket
        self._waiting[ticket] = waiting = _Waiting(version, sequence, deadline_s, extras, future, origin)
        future.add_done_callback(lambda done: self._cancel(ticket) if done.cancelled() else None)
        self._send(ticket, waiting)
        return future

    def _send(self, ticket: int, waiting: _Waiting) -> None:
        page, grid = self._slab.page_of(waiting.sequence.patches), waiting.sequence.grid
        submission = Submission(ticket, waiting.version.number, page, *grid, waiting.extras, waiting.deadline_s)
        if waiting.origin is None:
            self._channel.put(Kind.SUBMISSION, submission)
        else:
            self._channel.put(Kind.TRACED_SUBMISSION, TracedSubmission(*submission, *waiting.origin))

    def _cancel(self, ticket: int) -> None:
        if ticket in self._waiting:  # the slot stays taken until the engine has let go of it
            self._channel.put(Kind.CANCELLATION, Cancellation(ticket))

    def _hear(self, lives: Lives, line: bytes) -> None:
        mine = self._channel.lives
        if lives.http != mine.http or lives.engine < mine.engine:
            return
        said = read_document(line)
        if lives.engine == mine.engine:
            self._hear_more(said)
        elif isinstance(said, Catalogue):  # the first that a new engine process says
            self._channel.lives = lives
            self._channel.forget()
            self._begin(said)
            self._resubmit()

    def _receive(self, kind: Kind, lives: Lives, records: Iterator[Record]) -> None:
        if kind == Kind.ANSWER and lives == self._channel.lives:
            for record in records:
                self._answer(cast("Answer", record))

    def _resubmit(self) -> None:
        for ticket, waiting in list(self._waiting.items()):
            if waiting.future.done():
                del self._waiting[ticket]
            elif waiting.tries == _MOST_TRIES or not waiting.version.number:
                del self._waiting[ticket]
                _fail(waiting.future, Internal() if waiting.version.number else ModelReplaced())
            else:
                waiting.tries += 1
                self._send(ticket, waiting)

    def _answer(self, answer: Answer) -> None:
        waiting = self._waiting.pop(answer.ticket, None)
        if waiting is None or waiting.future.done():
            return
        if answer.outcome != Outcome.ANSWERED:
            _fail(waiting.future, _ERRORS.get(answer.outcome, Internal)())
            return
        patches = waiting.sequence.patches
        page = self._slab.page_of(patches)
        ranking = self._slab.read_ranking(page, patches.size, waiting.version.ranked)
        explained = len(patches) if Extras.ATTENTION in waiting.extras else 0
        found = self._slab.read_found(page, patches.size, answer.features, explained) if waiting.extras else NOTHING
        waiting.future.set_result(Inference(ranking, answer.queue_s, answer.inference_s, answer.batch_images, found))


def _fail(future: asyncio.Future[Inference], error: RequestError) -> None:
    future.set_exception(error)
    future.exception()  # marked as seen: whoever waited may be gone in this very turn of the loop
