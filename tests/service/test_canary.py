import asyncio

import numpy as np
import pytest
from ranked import ranking_of
from tiny_artifact import MANIFEST

from model.golden import golden_patches
from model.preprocess import PatchSequence
from service.canary import Canary, same_answer
from service.errors import DeadlineExceeded, DeviceLostError, Internal, RequestError
from service.predictions import Ranking, rank
from service.scheduler import Inference

pytestmark = pytest.mark.anyio

HEALTHY = np.array([3.0, 1.0, 0.5], np.float32)


class FakeQueue:
    """Answers in turn with what it was given."""

    def __init__(self, *answers: Ranking | RequestError) -> None:
        self.answers = list(answers)
        self.images: list[PatchSequence] = []

    def submit(self, sequence: PatchSequence, deadline_s: float) -> asyncio.Future[Inference]:
        self.images.append(sequence)
        future: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        if not self.answers:
            return future
        answer = self.answers.pop(0)
        if isinstance(answer, RequestError):
            future.set_exception(answer)
        else:
            future.set_result(Inference(answer, 0.0, 0.0, 1))
        return future


async def watch(*answers: Ranking | RequestError) -> tuple[FakeQueue, list[DeviceLostError]]:
    """Ask until all answers are used up or the model is sick."""
    queue, sick = FakeQueue(*answers), []
    canary = Canary(queue, MANIFEST.preprocessing, HEALTHY, sick.append, lambda: 0.0)
    watching = asyncio.create_task(canary.watch(0.0))
    for _ in range(50):
        await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait([watching])
    return queue, sick


async def test_a_model_that_answers_as_before_is_healthy() -> None:
    queue, sick = await watch(*[rank(HEALTHY)] * 5)
    assert sick == []
    assert np.array_equal(queue.images[0].patches, golden_patches(MANIFEST.preprocessing))


@pytest.mark.parametrize("wrong", [rank(HEALTHY[::-1].copy()), Internal()])
async def test_two_wrong_answers_in_a_row_make_a_sick_model(wrong: Ranking | RequestError) -> None:
    queue, sick = await watch(rank(HEALTHY), wrong, rank(HEALTHY), wrong, wrong, rank(HEALTHY))
    assert len(sick) == 1
    assert len(queue.answers) == 1, "and then it is not asked again"


async def test_an_answer_that_comes_too_late_says_nothing() -> None:
    _, sick = await watch(*[DeadlineExceeded()] * 6, rank(HEALTHY))
    assert sick == []


def test_answers_are_the_same_when_every_class_has_nearly_the_same_share() -> None:
    assert same_answer(rank(HEALTHY + np.float32(1e-3)), rank(HEALTHY))
    close = np.array([1.0, 1.001, 0.0], np.float32)
    assert same_answer(rank(close), rank(close[[1, 0, 2]])), "neighbours may swap"
    assert not same_answer(ranking_of(0), ranking_of(1))
    assert same_answer(rank(np.empty(0, np.float32)), rank(np.empty(0, np.float32)))
