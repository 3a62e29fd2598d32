from dataclasses import dataclass, field

import pytest

from service.scaling import WAIT, QueueScaling, replicas_for


@dataclass
class Observed:
    waits: dict[str, float]
    current_num_replicas: int
    target_num_replicas: int
    aggregated_metrics: dict[str, dict[str, float]] | None = field(init=False)

    def __post_init__(self) -> None:
        self.aggregated_metrics = {WAIT: self.waits} if self.waits else None


def wanted(*waits: float, replicas: int = 2, target: int = 2) -> float:
    return QueueScaling(0.2)(Observed({str(each): wait for each, wait in enumerate(waits)}, replicas, target))[0]


def test_work_is_shared_until_each_has_as_much_as_is_aimed_at() -> None:
    assert replicas_for([0.4, 0.2], 0.2) == pytest.approx(3)
    assert replicas_for([0.0, 0.0], 0.2) == 0


def test_a_long_queue_wants_more_and_a_short_one_fewer() -> None:
    assert wanted(0.5, 0.5) == pytest.approx(5)
    assert wanted(0.02, 0.02) == pytest.approx(0.2)


def test_as_many_as_there_are_where_not_everybody_has_been_asked() -> None:
    assert wanted(0.9, replicas=2, target=3) == 3
    assert wanted(replicas=2, target=3) == 3
    assert wanted(replicas=0, target=1) == 1
