from types import SimpleNamespace
from typing import Any, cast

import pytest
from ranked import ranking_of

from service.errors import DeadlineExceeded, InvalidImage
from service.pipeline import Job
from service.scheduler import Inference
from service.stages import Stage, stages_of

NOW_S = 9.0


def job(**fields: Any) -> Job:
    return Job(grid=(2, 3), **fields)


def spans(made: list[Stage]) -> list[tuple[str, float, float, str | None]]:
    return [(stage.name, pytest.approx(stage.began_s), pytest.approx(stage.ended_s), stage.error) for stage in made]


def decoded(**fields: Any) -> Job:
    """The decoder was free at 1.5 and done at 4."""
    sequence = cast("Any", SimpleNamespace())
    return job(decode_began_s=1.0, decode_ended_s=4.0, decode_s=2.0, preprocess_s=0.5, sequence=sequence, **fields)


def test_an_answered_image_was_everywhere() -> None:
    found = Inference(ranking_of(1, classes=3), queue_s=1.0, inference_s=2.0, batch_images=4)
    made = stages_of(decoded(queued_s=5.0, inference=found), 3, NOW_S)
    assert spans(made) == [
        ("decode", 1.5, 3.5, None),
        ("preprocess", 3.5, 4.0, None),
        ("queue", 5.0, 6.0, None),
        ("inference", 6.0, 8.0, None),
    ]
    assert {stage.facts["image"] for stage in made} == {3}
    assert (made[2].facts["patches"], made[3].facts["batch_images"]) == (6, 4)


def test_an_image_that_is_given_up_in_the_queue_was_there_until_then() -> None:
    made = stages_of(decoded(queued_s=5.0, error=DeadlineExceeded()), 0, NOW_S)
    assert spans(made)[2:] == [("queue", 5.0, NOW_S, "deadline_exceeded")]


@pytest.mark.parametrize(("ended_s", "until_s"), [(2.0, 2.0), (None, NOW_S)])
def test_decoding_that_gives_nothing_is_one_stage(ended_s: float | None, until_s: float) -> None:
    failed = job(decode_began_s=1.0, decode_ended_s=ended_s, error=InvalidImage(formats="PNG"))
    assert spans(stages_of(failed, 0, NOW_S)) == [("decode", 1.0, until_s, "invalid_image")]


def test_an_image_that_got_nowhere_has_none() -> None:
    assert stages_of(job(), 0, NOW_S) == []
