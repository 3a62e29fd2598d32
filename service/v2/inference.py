"""An inference request from its first byte to its reply, through the same gates and queues as /classify."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import Response

from model.preprocess import PatchSequence
from service.accounts import Accounts, Upload
from service.admission import Admission
from service.disconnects import cancel_when_gone
from service.lifecycle import Lifecycle
from service.models import Models, Served
from service.pipeline import Job, Wanted
from service.problems import refuse
from service.replies import Timing
from service.settings import Settings
from service.tracking import origin_of
from service.uploads import body_headers, read_whole
from service.v2.body import LENGTH_HEADER, json_length, read_request
from service.v2.documents import RequestParameters
from service.v2.inputs import read_inputs
from service.v2.outputs import Wish, extras_of, read_wishes, write_reply

_BODY_HEADERS = frozenset({b"content-length", b"content-encoding", LENGTH_HEADER.encode()})
# JSON of less than this is read, and values fewer than this are written, about as fast as a thread is woken.
_SMALL_BYTES = 65_536
_SMALL_VALUES = 10_000
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A request that has been read: `images` or `sequences`, never both. Its document, which is large, is not kept."""

    id: str
    parameters: RequestParameters
    images: list[bytes]
    sequences: list[PatchSequence]
    wishes: list[Wish]


class Inference:
    """The parts that one inference request passes through.

    Args:
        settings: the limits.
        models: to choose from.
        admission: the gate.
        lifecycle: whether anybody is served.
        accounts: told of what was done.
        pool: threads for large JSON; those that decode.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        settings: Settings,
        models: Models,
        admission: Admission,
        lifecycle: Lifecycle,
        accounts: Accounts,
        pool: ThreadPoolExecutor,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._models = models
        self._admission = admission
        self._lifecycle = lifecycle
        self._accounts = accounts
        self._pool = pool
        self._clock = clock

    async def __call__(self, request: Request, name: str) -> Response:
        """Answer one request with the model NAME or NAME@VERSION.

        Raises:
            RequestError: what stands in the way of the whole request; that of an image is the reply.
        """
        if refusal := self._lifecycle.refusal:
            raise refusal
        with self._models.choose(name) as served:
            return await self._answer(request, served)

    async def _answer(self, request: Request, served: Served) -> Response:
        headers = body_headers(request.scope, _BODY_HEADERS)
        # The request's own timeout is in its body.
        self._admission.check_open(self._clock(), self._settings.default_timeout_ms / 1000)
        with self._admission.hold_upload() as memory:
            body = await read_whole(
                headers, request.receive, self._settings, self._settings.formats, memory, self._clock
            )
            queued = self._admission.ledger.all_queue_patches
            upload = Upload(self._clock(), memory.taken, queued)
            with cancel_when_gone(request.receive):
                length = json_length(headers, len(body))
                asked = await self._soon(length < _SMALL_BYTES, self._read, body, length, served)
                jobs = await self._infer(request, asked, served, upload.ended_s)
        timing = self._accounts.close(request, jobs, upload)
        if error := next((job.error for job in jobs if job.error is not None), None):
            return refuse(request, error)
        return await self._reply(request, served, asked, jobs, timing)

    def _read(self, body: bytes, length: int, served: Served) -> _Asked:
        request, tensors = read_request(body, length)
        manifest, has_logits = served.manifest, served.behind.has_logits
        wishes = read_wishes(request, len(manifest.labels), has_logits=has_logits, explain=manifest.explain)
        images, sequences = read_inputs(tensors, manifest.preprocessing, self._settings.max_files)
        return _Asked(request.id, request.parameters, images, sequences, wishes)

    async def _infer(self, request: Request, asked: _Asked, served: Served, uploaded_s: float) -> list[Job]:
        parameters, own = asked.parameters, served.manifest.preprocessing.max_patches
        wanted = Wanted(
            0,
            min(parameters.max_patches or own, own),
            uploaded_s + self._timeout_s(parameters.timeout),
            parameters.allow_degraded,
            extras_of(asked.wishes),
            origin_of(request),
        )
        if asked.sequences:
            return await served.pipeline.classify_cut(asked.sequences, wanted)
        return await served.pipeline.classify(asked.images, wanted)

    def _timeout_s(self, microseconds: int) -> float:
        """Clients set a time after which they stop waiting; one that is longer than ours is no mistake."""
        timeout_ms = microseconds / 1000 if microseconds else self._settings.default_timeout_ms
        return min(timeout_ms, self._settings.max_timeout_ms) / 1000

    async def _reply(
        self, request: Request, served: Served, asked: _Asked, jobs: list[Job], timing: Timing
    ) -> Response:
        self._accounts.answer(request, jobs, timing)
        labels = served.manifest.labels
        inferences = [job.inference for job in jobs if job.inference is not None]
        attentions = [each.found.attention for each in inferences if each.found.attention is not None]
        small = len(jobs) * len(labels) * len(asked.wishes) + sum(map(len, attentions)) < _SMALL_VALUES
        head = _head(served, asked.id, degraded=any(job.degraded for job in jobs))
        rankings = [each.ranking for each in inferences]
        return await self._soon(small, write_reply, head, asked.wishes, rankings, labels, attentions)

    async def _soon(self, small: bool, work: Callable[..., _T], *arguments: Any) -> _T:
        """Now if it is small, else in a thread, so that the event loop turns."""
        if small:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _head(served: Served, request_id: str, *, degraded: bool) -> dict[str, Any]:
    head: dict[str, Any] = {"model_name": served.name.name, "model_version": served.name.version}
    if request_id:
        head["id"] = request_id
    if degraded:
        head["parameters"] = {"degraded": True}
    return head
