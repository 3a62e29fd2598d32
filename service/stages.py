"""The stages that an image went through, from the times that were taken on its way: pure, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from service.pipeline import Job


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a request.

    Attributes:
        name: one of the fields of `service.replies.Timing`.
        began_s, ended_s: on the clock.
        error: the code of the problem that ended it.
        facts: numbers that belong to it.
    """

    name: str
    began_s: float
    ended_s: float
    error: str | None = None
    facts: Mapping[str, int] = field(default_factory=dict)


def stages_of(job: Job, image: int, now_s: float) -> list[Stage]:
    """The stages of one image, in order; between two of them it waited for a thread.

    The last one of an image that was given up lasts until then, with the error of the image: where that was waiting or
    running in the engine process, it is `queue`.

    Args:
        job: is over.
        image: its place in the request, from 0.
        now_s: on the clock.
    """
    return _decoding(job, image, now_s) + _inferring(job, image, now_s)


def _decoding(job: Job, image: int, now_s: float) -> list[Stage]:
    if job.decode_began_s is None:
        return []
    ended_s = job.decode_ended_s or now_s
    if job.sequence is None:
        return [Stage("decode", job.decode_began_s, ended_s, _code_of(job), {"image": image})]
    cut_s = ended_s - job.preprocess_s
    return [
        Stage("decode", cut_s - job.decode_s, cut_s, facts={"image": image}),
        Stage("preprocess", cut_s, ended_s, facts={"image": image}),
    ]


def _inferring(job: Job, image: int, now_s: float) -> list[Stage]:
    if job.queued_s is None:
        return []
    facts = {"image": image, "patches": job.grid[0] * job.grid[1]}
    found = job.inference
    if found is None:
        return [Stage("queue", job.queued_s, now_s, _code_of(job), facts)]
    runs_s = job.queued_s + found.queue_s
    batch = {"image": image, "batch_images": found.batch_images}
    return [
        Stage("queue", job.queued_s, runs_s, facts=facts),
        Stage("inference", runs_s, runs_s + found.inference_s, facts=batch),
    ]


def _code_of(job: Job) -> str | None:
    return None if job.error is None else job.error.code
