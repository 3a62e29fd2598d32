from collections import Counter

import numpy as np
import pytest

from service.bench.samples import Fate, Sample, figures_of, histogram


def answered(due_s: float, latency_s: float, late_s: float = 0.0) -> Sample:
    return Sample(due_s, latency_s, Fate.ANSWERED, late_s=late_s)


def test_warm_up_does_not_count() -> None:
    figures = figures_of([answered(0.5, 9.0), answered(1.0, 0.2), answered(2.9, 0.2), answered(3.0, 7.0)], 1.0, 3.0)
    assert [sample.due_s for sample in figures.samples] == [1.0, 2.9]
    assert figures.latencies_s.tolist() == [0.2, 0.2]


def test_answers_count_when_they_come_whenever_they_were_due() -> None:
    figures = figures_of([answered(0.5, 1.0), answered(1.5, 0.1), answered(2.9, 0.5)], 1.0, 3.0)
    assert figures.answers_per_s == 1.0  # the first two, in two seconds


def test_refusals_and_failures_are_apart_and_have_no_latency() -> None:
    samples = [
        answered(0, 0.1),
        Sample(0.1, 5.0, Fate.REFUSED, "429 overloaded"),
        Sample(0.2, 5.0, Fate.REFUSED, "429 overloaded"),
        Sample(0.3, 5.0, Fate.FAILED, "500 internal"),
    ]
    figures = figures_of(samples, 0, 1)
    assert [figures.count(fate) for fate in Fate] == [1, 2, 1]
    assert figures.reasons(Fate.REFUSED) == Counter({"429 overloaded": 2})
    assert figures.latencies_s.tolist() == [0.1]
    assert figures.to_dict()["reasons"] == {"429 overloaded": 2, "500 internal": 1}


def test_percentiles_that_few_answers_cannot_show_are_left_out() -> None:
    assert figures_of([answered(0, 0.1)], 0, 1).percentiles_ms() == {}
    hundred = figures_of([answered(0, index / 1000) for index in range(1, 101)], 0, 1).percentiles_ms()
    assert list(hundred) == [0.5, 0.9, 0.95, 0.99]
    assert hundred[0.5] == pytest.approx(50.5)


def test_seconds_are_whole_and_hold_every_request() -> None:
    figures = figures_of([answered(1.0, 0.1), answered(2.2, 0.1), answered(3.4, 0.1)], 1.0, 3.5)
    assert [row[Fate.ANSWERED] for row in figures.per_second()] == [1, 1, 1]


def test_lateness_is_that_of_this_program() -> None:
    assert figures_of([answered(0, 1, late_s=0.003)], 0, 1).lateness_ms() == pytest.approx(3)
    assert figures_of([], 0, 1).lateness_ms() == 0


@pytest.mark.parametrize("latencies", [[0.1], [0.1, 0.1], [0.001, 0.01, 0.1, 1.0], [0.0, 0.5]])
def test_a_histogram_loses_no_answer(latencies: list[float]) -> None:
    rows = histogram(np.array(latencies))
    assert sum(count for _, _, count in rows) == len(latencies)
    assert all(low < high for low, high, _ in rows)
    assert histogram(np.array([])) == []
