"""What is told of a request once its images are done: counts, spans, and a line in the log if it was slow."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import NamedTuple

from starlette.requests import Request
from starlette.types import Scope
from structlog.typing import FilteringBoundLogger

from service.metrics import Metrics
from service.pipeline import Job
from service.replies import Timing, count_images, count_stages, timing_of
from service.stages import Stage, stages_of
from service.tracking import ids_of, origin_of, remember, route_of, span_of

_MOST_LINES = 5
_PERIOD_S = 1.0
_MOST_GRIDS = 8


class Upload(NamedTuple):
    """The time of its end on the clock, its bytes, and the patches that were queued when it had come."""

    ended_s: float
    bytes: int
    queue_patches: int


class Accounts:
    """Told of every request that got as far as its images.

    Args:
        metrics: where images and stages are counted.
        slow: told of all, writes a line for those that were slow.
        clock: monotonic, seconds.
    """

    def __init__(self, metrics: Metrics, slow: "SlowLog", clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._slow = slow
        self._clock = clock

    def close(self, request: Request, jobs: Sequence[Job], upload: Upload) -> Timing:
        """The images are done, each with an answer or an error; how long it took."""
        state, now_s = request.scope["state"], self._clock()
        arrived_s = state["arrived_s"]
        timing = timing_of(jobs, upload.ended_s - arrived_s, now_s - arrived_s)
        count_images(self._metrics, jobs)
        if (span := span_of(state)) is not None and span.reference is not None:
            stages = [each for place, job in enumerate(jobs) for each in stages_of(job, place, now_s)]
            span.add([Stage("upload", arrived_s, upload.ended_s), *stages], facts_of(jobs, upload.bytes))
        self._slow.tell(request.scope, timing, jobs, upload, now_s)
        return timing

    def answer(self, request: Request, jobs: Sequence[Job], timing: Timing) -> None:
        """The reply will have the answers."""
        origin = origin_of(request)
        count_stages(self._metrics, timing, None if origin is None else origin.trace)
        remember(request, images=len(jobs), failed=sum(job.error is not None for job in jobs))


class SlowLog:
    """A warning for a request that took long, with what it takes to tell why; at most five lines a second.

    Args:
        log: where lines go.
        slow_s: how long is slow, from the end of the upload; 0: nothing is.
    """

    def __init__(self, log: FilteringBoundLogger, slow_s: float) -> None:
        self._log = log
        self._slow_s = slow_s
        self._period_began_s = float("-inf")
        self._lines = 0
        self._unlogged = 0

    def tell(self, scope: Scope, timing: Timing, jobs: Sequence[Job], upload: Upload, now_s: float) -> None:
        """Write the line if it is due; the next one says how many were not written before it."""
        if not self._slow_s or now_s - upload.ended_s < self._slow_s:
            return
        if now_s - self._period_began_s >= _PERIOD_S:
            self._period_began_s, self._lines = now_s, 0
        if self._lines == _MOST_LINES:
            self._unlogged += 1
            return
        self._lines += 1
        unlogged, self._unlogged = self._unlogged, 0
        self._log.warning(
            "slow_request",
            **ids_of(scope["state"]),
            route=route_of(scope),
            milliseconds=asdict(timing),
            **facts_of(jobs, upload.bytes),
            grids=sorted({f"{job.grid[0]}x{job.grid[1]}" for job in jobs if job.grid != (0, 0)})[:_MOST_GRIDS],
            batch_images=max((job.inference.batch_images for job in jobs if job.inference is not None), default=0),
            queue_patches=upload.queue_patches,
            errors=sorted({job.error.code for job in jobs if job.error is not None}),
            unlogged=unlogged,
        )


def facts_of(jobs: Sequence[Job], received_bytes: int) -> dict[str, int]:
    """Of all images of a request together: how many, their patches, their bytes."""
    return {"images": len(jobs), "patches": sum(job.grid[0] * job.grid[1] for job in jobs), "bytes": received_bytes}
