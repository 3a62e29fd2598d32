from dataclasses import replace

import pytest
from tiny_artifact import MANIFEST

from model.manifest import Accuracy, Manifest
from service.admission import crowded_wait_s
from service.app import open_brown_out
from service.brownout import BrownOut, Step, steps_of
from service.engine import Model
from service.settings import Settings

CURVE = Accuracy("a set", ((25, 0.70), (50, 0.80), (100, 0.90)))


def measured(**preprocessing: object) -> Manifest:
    spec = replace(MANIFEST.preprocessing, **preprocessing)  # type: ignore[arg-type]
    return replace(MANIFEST, accuracy=CURVE, preprocessing=spec)


def test_a_model_without_a_curve_is_never_degraded() -> None:
    assert steps_of(MANIFEST, max_loss=1.0) == ()


def test_steps_are_shares_of_what_an_image_has_with_the_accuracy_between_measured_points() -> None:
    steps = steps_of(measured(), max_loss=1.0)
    assert [step.max_patches for step in steps] == [100, 75, 50]
    assert [step.top1 for step in steps] == pytest.approx([0.90, 0.85, 0.80])


def test_a_model_of_one_size_counts_from_its_native_grid() -> None:
    steps = steps_of(measured(resize="squash"), max_loss=1.0)
    assert [step.max_patches for step in steps] == [49, 36, 24]
    assert steps[2].top1 == 0.70, "below the first point its accuracy is the best that is known"


def test_a_step_that_costs_too_much_is_left_out() -> None:
    assert [step.max_patches for step in steps_of(measured(), max_loss=0.06)] == [100, 75]
    assert [step.max_patches for step in steps_of(measured(), max_loss=0.0)] == [100]


@pytest.mark.parametrize("default_timeout_ms", [500, 1000, 2000, 20_000])
def test_the_wait_that_a_crowd_is_left_with_is_enough_for_a_step(default_timeout_ms: int) -> None:
    settings = Settings(default_timeout_ms=default_timeout_ms, brown_out_wait_ms=500)
    brown_out = open_brown_out(settings, Model(measured(), "", "cpu"))
    for now_s in (0.0, 2.0):
        brown_out.observe(0.9 * crowded_wait_s(settings), now_s)
    assert brown_out.level == 1


class Bench:
    """Observes four times a second, with a wait that is aimed at 1 s."""

    def __init__(self, steps: int = 3) -> None:
        self.now_s = 100.0
        self.brown_out = BrownOut(tuple(Step(100 // (1 + number), 0.9) for number in range(steps)), 1.0)

    def wait(self, wait_s: float, seconds: float) -> int:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.brown_out.observe(wait_s, self.now_s)
            self.now_s += 0.25
        return self.brown_out.level


def test_it_rises_one_step_a_second_while_the_wait_is_over_half_of_the_target() -> None:
    bench = Bench()
    assert bench.wait(0.51, 1.0) == 0
    assert bench.wait(0.51, 0.25) == 1
    assert bench.brown_out.max_patches == 50
    assert bench.wait(0.51, 1.0) == 1
    assert bench.wait(0.51, 0.25) == 2
    assert bench.wait(9.0, 60.0) == 2, "there is no third step"


def test_a_short_burst_changes_nothing() -> None:
    bench = Bench()
    for _ in range(10):
        assert bench.wait(5.0, 0.75) == 0
        assert bench.wait(0.3, 0.25) == 0


def test_it_falls_only_after_ten_quiet_seconds_a_step() -> None:
    bench = Bench()
    bench.wait(1.0, 10.0)
    assert bench.wait(0.1, 10.0) == 2
    assert bench.wait(0.1, 0.25) == 1
    assert bench.wait(0.3, 60.0) == 1, "between the thresholds nothing changes"
    assert bench.wait(0.0, 10.25) == 0
    assert bench.brown_out.max_patches is None


@pytest.mark.parametrize("steps", [0, 1])
def test_without_a_second_step_nothing_happens(steps: int) -> None:
    bench = Bench(steps)
    assert bench.wait(9.0, 60.0) == 0
    assert bench.brown_out.max_patches is None
