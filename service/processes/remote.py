"""The scheduler as an HTTP process sees it: images are submitted to the engine process, answers come back.

Patches stay in shared memory until their ticket has ended, so when the engine process dies, its successor is given
what was waiting, once, and whoever waits notices only the delay.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from model.preprocess import PatchSequence
from service.errors import DeadlineExceeded, Draining, Internal, NotReady, Overloaded, RequestError
from service.processes.channel import Channel
from service.processes.messages import Answer, Cancellation, Kind, Lives, Outcome, Record, Submission
from service.processes.slab import PatchSlab
from service.scheduler import Inference

_MOST_TRIES = 2  # an image that was with two engine processes when they died may be why
_ERRORS: dict[int, Callable[[], RequestError]] = {
    Outcome.EXPIRED: DeadlineExceeded,
    Outcome.FAILED: Internal,
    Outcome.DRAINING: Draining,
    Outcome.OVERLOADED: lambda: Overloaded(retry_after_s=1, status=503),
}


@dataclass(slots=True)
class _Waiting:
    sequence: PatchSequence  # holds the slot
    deadline_s: float
    future: asyncio.Future[Inference]
    tries: int = 1


class RemoteQueue:
    """The queue in front of the engine process.

    Args:
        end: this side of the connection.
        slab: where the patches of every submitted sequence lie.
        life: how often this HTTP process has been started, from 1.
        engine_up: whether an engine process is ready now.
    """

    def __init__(self, end: socket.socket, slab: PatchSlab, life: int, engine_up: Callable[[], bool]) -> None:
        self._slab = slab
        self._engine_up = engine_up
        self._channel = Channel(end, self._receive)
        self._channel.lives = Lives(engine=0, http=life)
        self._greeted: asyncio.Event = asyncio.Event()
        self._waiting: dict[int, _Waiting] = {}
        self._last_ticket = 0

    async def open(self) -> None:
        """Connect; returns when the engine process knows of this life, and will touch no slot of an earlier one."""
        self._channel.open()
        self._channel.put(Kind.GREETING)
        await self._greeted.wait()

    def close(self) -> None:
        """Disconnect."""
        self._channel.close()

    def submit(self, sequence: PatchSequence, deadline_s: float) -> asyncio.Future[Inference]:
        """Queue one image, as `service.scheduler.Scheduler.submit`.

        Returns:
            A future of the answer; it raises DeadlineExceeded, Internal, Draining or NotReady.
        """
        future: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        if not self._engine_up():
            _fail(future, NotReady())
            return future
        self._last_ticket += 1
        ticket = self._last_ticket
        self._waiting[ticket] = waiting = _Waiting(sequence, deadline_s, future)
        future.add_done_callback(lambda done: self._cancel(ticket) if done.cancelled() else None)
        self._send(ticket, waiting)
        return future

    def _send(self, ticket: int, waiting: _Waiting) -> None:
        slot = self._slab.slot_of(waiting.sequence.patches)
        self._channel.put(Kind.SUBMISSION, Submission(ticket, slot, *waiting.sequence.grid, waiting.deadline_s))

    def _cancel(self, ticket: int) -> None:
        if ticket in self._waiting:  # the slot stays taken until the engine has let go of it
            self._channel.put(Kind.CANCELLATION, Cancellation(ticket))

    def _receive(self, kind: Kind, lives: Lives, records: Iterator[Record]) -> None:
        mine = self._channel.lives
        if lives.http != mine.http:
            return
        if kind == Kind.HELLO and lives.engine > mine.engine:
            self._channel.lives = lives
            self._channel.forget()
            self._resubmit()
            self._greeted.set()
        elif kind == Kind.ANSWER and lives == mine:
            for record in records:
                self._answer(cast("Answer", record))

    def _resubmit(self) -> None:
        for ticket, waiting in list(self._waiting.items()):
            if waiting.future.done():
                del self._waiting[ticket]
            elif waiting.tries == _MOST_TRIES:
                del self._waiting[ticket]
                _fail(waiting.future, Internal())
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
        ranking = self._slab.read_ranking(self._slab.slot_of(waiting.sequence.patches))
        waiting.future.set_result(Inference(ranking, answer.queue_s, answer.inference_s, answer.batch_images))


def _fail(future: asyncio.Future[Inference], error: RequestError) -> None:
    future.set_exception(error)
    future.exception()  # marked as seen: whoever waited may be gone in this very turn of the loop
