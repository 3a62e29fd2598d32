"""The place of one HTTP process at the engine process: takes its submissions to the scheduler, sends answers back."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, cast

from model.preprocess import PatchSequence
from service.errors import DeadlineExceeded, Draining, Overloaded
from service.processes.channel import Channel
from service.processes.messages import Answer, Cancellation, Kind, Lives, Outcome, Record, Submission
from service.processes.slab import PatchSlab
from service.scheduler import Inference


class Queue(Protocol):
    """The part of `service.scheduler.Scheduler` that is needed here."""

    def submit(self, sequence: PatchSequence, deadline_s: float) -> asyncio.Future[Inference]:
        """A future of the answer."""


class Desk:
    """Serves one HTTP process, and its successors when it dies.

    Args:
        end: this side of the connection.
        slab: the patch memory of that process.
        queue: in front of the engine.
        engine_life: how often the engine process has been started, from 1.
        refused: told of a record that makes no sense.
    """

    def __init__(
        self, end: socket.socket, slab: PatchSlab, queue: Queue, engine_life: int, refused: Callable[[], None]
    ) -> None:
        self._slab = slab
        self._queue = queue
        self._refused = refused
        self.left = asyncio.Event()  # nobody can sit on the other side any more
        self._channel = Channel(end, self._receive, self.left.set)
        self._channel.lives = Lives(engine_life, http=0)
        self._futures: dict[int, asyncio.Future[Inference]] = {}

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
            elif kind == Kind.CANCELLATION:
                self._cancel(cast("Cancellation", record).ticket)

    def _welcome(self, http_life: int) -> None:
        """A new HTTP process: from here on no slot is touched for the one before it."""
        before, self._futures = self._futures, {}
        self._channel.lives = self._channel.lives._replace(http=http_life)
        self._channel.forget()
        for future in before.values():
            future.cancel()
        self._channel.put(Kind.HELLO)

    def _submit(self, submission: Submission) -> None:
        grid = submission.rows, submission.columns
        try:
            patches = self._slab.patches(submission.slot, grid[0] * grid[1])
        except ValueError:  # an HTTP process decodes hostile files: what it says is checked
            self._refused()
            self._send(Answer(submission.ticket, Outcome.FAILED, 0, 0.0, 0.0))
            return
        future = self._queue.submit(PatchSequence(patches, grid, 0, 0, ""), submission.deadline_s)
        self._futures[submission.ticket] = future
        future.add_done_callback(partial(self._answer, submission.ticket, submission.slot))

    def _cancel(self, ticket: int) -> None:
        if ticket in self._futures:
            self._futures[ticket].cancel()

    def _answer(self, ticket: int, slot: int, future: asyncio.Future[Inference]) -> None:
        if self._futures.get(ticket) is not future:
            return  # of an HTTP process that is dead: its slot may have a new owner
        del self._futures[ticket]
        outcome = _outcome_of(future)
        if outcome != Outcome.ANSWERED:
            self._send(Answer(ticket, outcome, 0, 0.0, 0.0))
            return
        inference = future.result()
        self._slab.write_ranking(slot, inference.ranking)
        self._send(Answer(ticket, outcome, inference.batch_images, inference.queue_s, inference.inference_s))

    def _send(self, answer: Answer) -> None:
        self._channel.put(Kind.ANSWER, answer)


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
