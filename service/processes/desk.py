"""The place of one HTTP process at the engine process: takes its submissions to the schedulers, sends answers back."""

import asyncio
import socket
from collections.abc import Iterator
from functools import partial
from typing import cast

from structlog.typing import FilteringBoundLogger

from model.preprocess import PatchSequence
from service.errors import DeadlineExceeded, Draining, Overloaded
from service.processes.calls import carry_out
from service.processes.channel import Channel
from service.processes.documents import (
    Document,
    Holding,
    Prepared,
    ReloadCall,
    read_document,
    write_document,
)
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
from service.processes.office import Office
from service.processes.shelf import Shelf
from service.processes.slab import PatchSlab
from service.reload import Reload
from service.scheduler import Inference
from service.tracing.references import SpanReference


class Desk:
    """Serves one HTTP process, and its successors when it dies.

    Args:
        end: this side of the connection.
        slab: the patch memory of that process.
        shelf: the versions that it may submit to.
        office: agrees with it about them.
        reload: loads them again.
        engine_life: how often the engine process has been started, from 1.
        log: is told of what makes no sense, and of reloads that fail in a way of their own.
    """

    def __init__(
        self,
        end: socket.socket,
        slab: PatchSlab,
        shelf: Shelf,
        office: Office,
        reload: Reload,
        engine_life: int,
        log: FilteringBoundLogger,
    ) -> None:
        self._slab = slab
        self._shelf = shelf
        self._agreement = office.agree(self._say)
        self._reload = reload
        self._log = log
        self.left = asyncio.Event()  # nobody can sit on the other side any more
        self._channel = Channel(end, self._receive, self._hear, self.left.set)
        self._channel.lives = Lives(engine_life, http=0)
        self._futures: dict[int, asyncio.Future[Inference]] = {}
        self._reloading: set[asyncio.Task[None]] = set()

    def open(self, http_life: int) -> None:
        """Listen, and say so to the HTTP process of this life if there is one; 0: there is none yet."""
        self._channel.open()
        if http_life:
            self._welcome(http_life)

    def close(self) -> None:
        """Stop listening."""
        self._channel.close()

    def _receive(self, kind: Kind, lives: Lives, records: Iterator[Record]) -> None:
        if kind == Kind.GREETING and lives.http > self._channel.lives.http:
            self._welcome(lives.http)
        if lives != self._channel.lives:
            return  # to an engine process before this one, or from an HTTP process that is dead
        for record in records:
            if kind == Kind.SUBMISSION:
                self._submit(cast("Submission", record))
            elif kind == Kind.TRACED_SUBMISSION:
                traced = cast("TracedSubmission", record)
                self._submit(Submission(*traced[:-2]), SpanReference(traced.trace_id, traced.span_id))
            elif kind == Kind.CANCELLATION:
                self._cancel(cast("Cancellation", record).ticket)

    def _welcome(self, http_life: int) -> None:
        """A new HTTP process: from here on no slot is touched for the one before it."""
        before, self._futures = self._futures, {}
        self._channel.lives = self._channel.lives._replace(http=http_life)
        self._channel.forget()
        for future in before.values():
            future.cancel()
        self._agreement.begin()

    # --- images -------------------------------------------------------------------------------------------------------
    def _submit(self, submission: Submission, origin: SpanReference | None = None) -> None:
        shelved = self._shelf.find(submission.version)
        if shelved is None:
            self._send(_refusal(submission.ticket, Outcome.REPLACED))
            return
        grid = submission.rows, submission.columns
        count = grid[0] * grid[1]
        try:
            patches = self._slab.patches(submission.page, count, shelved.patch_dim, shelved.max_patches)
            extras = shelved.offered(submission.extras)
        except ValueError:  # an HTTP process decodes hostile files: what it says is checked
            self._log.error("bad_submission")
            self._send(_refusal(submission.ticket, Outcome.FAILED))
            return
        sequence = PatchSequence(patches, grid, 0, 0, "")
        future = shelved.loaded.queue.submit(sequence, submission.deadline_s, extras, origin)
        self._futures[submission.ticket] = future
        future.add_done_callback(partial(self._answer, submission.ticket, submission.page, patches.size))

    def _cancel(self, ticket: int) -> None:
        if ticket in self._futures:
            self._futures[ticket].cancel()

    def _answer(self, ticket: int, page: int, size: int, future: asyncio.Future[Inference]) -> None:
        if self._futures.get(ticket) is not future:
            return  # of an HTTP process that is dead: its slot may have a new owner
        del self._futures[ticket]
        outcome = _outcome_of(future)
        if outcome != Outcome.ANSWERED:
            self._send(_refusal(ticket, outcome))
            return
        inference = future.result()
        embedding = inference.found.embedding
        features = 0 if embedding is None else len(embedding)
        self._slab.write_ranking(page, size, inference.ranking)
        self._slab.write_found(page, size, inference.found)
        self._send(Answer(ticket, outcome, inference.batch_images, features, inference.queue_s, inference.inference_s))

    def _send(self, answer: Answer) -> None:
        self._channel.put(Kind.ANSWER, answer)

    # --- models -------------------------------------------------------------------------------------------------------
    def _hear(self, lives: Lives, line: bytes) -> None:
        if lives != self._channel.lives:
            return
        try:
            said = read_document(line)
        except ValueError:
            self._log.error("bad_submission")
            return
        if isinstance(said, ReloadCall):
            task = asyncio.get_running_loop().create_task(self._reload_for(lives, said))
            self._reloading.add(task)
            task.add_done_callback(self._reloading.discard)
        elif isinstance(said, Prepared | Holding):
            self._agreement.hear(said)
        else:
            self._log.error("bad_submission")

    async def _reload_for(self, lives: Lives, asked: ReloadCall) -> None:
        ended = await carry_out(asked, self._reload, self._log)
        if lives == self._channel.lives:  # else whoever asked is dead
            self._say(ended)

    def _say(self, document: Document) -> None:
        self._channel.say(write_document(document))


def _refusal(ticket: int, outcome: Outcome) -> Answer:
    return Answer(ticket, outcome, 0, 0, 0.0, 0.0)


def _outcome_of(future: asyncio.Future[Inference]) -> Outcome:
    if future.cancelled():
        return Outcome.CANCELLED
    error = future.exception()
    if error is None:
        return Outcome.ANSWERED
    if isinstance(error, DeadlineExceeded):
        return Outcome.EXPIRED
    if isinstance(error, Overloaded):
        return Outcome.OVERLOADED
    return Outcome.DRAINING if isinstance(error, Draining) else Outcome.FAILED
