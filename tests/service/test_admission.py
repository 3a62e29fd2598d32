import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.admission import Admission, Rate, decode_cost
from service.errors import Overloaded
from service.settings import AdmissionSettings


def gate(engine_rate: Rate | None = None, **settings: int) -> Admission:
    return Admission(AdmissionSettings(**settings), 2, engine_rate or Rate(), jitter=random.Random(0))  # noqa: S311 - a fixed seed


def test_room_is_given_back_exactly_once() -> None:
    admission = gate(max_queue_patches=100)
    with admission.reserve(60, 0.0, 10.0):
        assert admission.ledger.queue_patches == 60
        with pytest.raises(Overloaded), admission.reserve(50, 0.0, 10.0):
            pass
        assert admission.ledger.queue_patches == 60
    assert admission.ledger.queue_patches == 0


def test_room_is_given_back_after_an_error() -> None:
    admission = gate()
    with pytest.raises(KeyError), admission.reserve(60, 0.0, 10.0):
        raise KeyError
    assert admission.ledger.queue_patches == 0


def test_a_full_house_refuses_before_the_body() -> None:
    admission = gate(max_queue_patches=10)
    admission.check_open()
    with admission.reserve(10, 0.0, 10.0), pytest.raises(Overloaded):
        admission.check_open()


def test_predicted_lateness_is_refused() -> None:
    rate = Rate()
    rate.observe(100, 1.0)
    admission = gate(rate, max_queue_patches=10_000)
    with admission.reserve(300, 0.0, 10.0):
        with pytest.raises(Overloaded) as refusal, admission.reserve(1, 0.0, 2.9):
            pass
        assert 3 <= (refusal.value.retry_after_s or 0) <= 5
        with admission.reserve(1, 0.0, 4.1):
            pass


def test_predicted_lateness_is_refused_before_the_body() -> None:
    rate = Rate()
    rate.observe(100, 1.0)
    admission = gate(rate, max_queue_patches=10_000)
    with admission.reserve(300, 0.0, 10.0):
        with pytest.raises(Overloaded):
            admission.check_open(0.0, 2.9)
        admission.check_open(0.0, 4.1)


def waiting(seconds: float, busy_patches: int = 0) -> Admission:
    """A gate before so many seconds of work."""
    rate = Rate()
    rate.observe(100, 1.0)
    admission = Admission(AdmissionSettings(), 2, rate, busy_patches=busy_patches)
    admission.ledger.add_patches(int(100 * seconds))
    return admission


def crowd(admission: Admission) -> Admission:
    """The same after most of a second in which all were refused, at 1.0."""
    for tenth in range(3, 10):
        with pytest.raises(Overloaded):
            admission.check_open(tenth / 10, 0.001)
    return admission


def test_half_of_the_time_may_be_waiting_and_a_fifth_where_most_are_refused() -> None:
    waiting(0.99).check_open(1.0, 2.0)
    with pytest.raises(Overloaded):
        waiting(1.01).check_open(1.0, 2.0)
    crowd(waiting(0.39)).check_open(1.0, 2.0)
    with pytest.raises(Overloaded):
        crowd(waiting(0.41)).check_open(1.0, 2.0)
    with pytest.raises(Overloaded), crowd(waiting(0.41)).reserve(1, 1.0, 3.0):
        pass


def test_a_crowd_is_gone_when_as_many_are_accepted() -> None:
    admission = crowd(waiting(0.39))
    with admission.reserve(1, 1.1, 3.1):
        pass
    admission.ledger.add_patches(60)
    with pytest.raises(Overloaded):
        admission.check_open(1.1, 2.0)
    admission.check_open(1.3, 2.0)


def test_who_has_more_time_than_the_default_may_use_it() -> None:
    for timeout_s, wait_s in ((2.0, 1.0), (3.0, 2.0), (1.5, 0.75), (30.0, 24.0)):
        waiting(wait_s - 0.01).check_open(1.0, timeout_s)
        with pytest.raises(Overloaded):
            waiting(wait_s + 0.02).check_open(1.0, timeout_s)


def test_no_crowd_leaves_a_lane_idle() -> None:
    crowd(waiting(0.8, busy_patches=80)).check_open(1.0, 2.0)
    with pytest.raises(Overloaded):
        crowd(waiting(0.8, busy_patches=79)).check_open(1.0, 2.0)


def test_what_is_accepted_has_time_for_its_own_run() -> None:
    waiting(0.5, busy_patches=140).check_open(1.0, 2.0)
    with pytest.raises(Overloaded):
        waiting(0.7, busy_patches=140).check_open(1.0, 2.0)
    waiting(0.0, busy_patches=1000).check_open(1.0, 2.0)


def test_slow_decoding_is_predicted_too() -> None:
    admission = gate()
    admission.decode_rate.observe(1000, 1.0)
    for _ in range(4):
        admission.decode_begins(1000)
    assert admission.predicted_wait_s() == pytest.approx(2.0)
    with pytest.raises(Overloaded), admission.reserve(1, 0.0, 1.9):
        pass
    for _ in range(4):
        admission.decode_ended(1000)
    assert admission.predicted_wait_s() == 0


def test_a_large_image_costs_as_much_as_its_pixels() -> None:
    assert decode_cost(7000, 7000) > 400 * decode_cost(224, 224)
    assert decode_cost(1, 1) > 0.4 * decode_cost(224, 224), "opening a file has its price"


def test_an_empty_house_never_refuses_so_a_bad_estimate_heals() -> None:
    rate = Rate()
    rate.observe(1, 1000.0)
    admission = gate(rate)
    with admission.reserve(1000, 0.0, 0.001):
        pass


def test_the_status_of_a_refusal_is_a_setting() -> None:
    admission = gate(max_queue_patches=1, overload_status=503)
    with pytest.raises(Overloaded) as refusal, admission.reserve(2, 0.0, 1.0):
        pass
    assert (refusal.value.status, refusal.value.retry_after_s) == (503, 1)


def test_uploads_share_one_memory() -> None:
    admission = gate(max_upload_memory_bytes=100)
    with admission.hold_upload() as first, admission.hold_upload() as second:
        first.take(60)
        second.take(40)
        with pytest.raises(Overloaded):
            second.take(1)
        with pytest.raises(Overloaded):
            admission.check_open()
    assert admission.ledger.upload_bytes == 0


def test_a_rate_follows_what_it_sees() -> None:
    rate = Rate(memory_s=1.0)
    assert rate.time_for(5) == 0.0
    rate.observe(100, 1.0)
    assert rate.per_s == pytest.approx(100)
    for _ in range(10):
        rate.observe(1000, 1.0)
    assert rate.per_s == pytest.approx(1000, rel=0.01)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=40))
def test_what_is_held_never_passes_the_bound(steps: list[tuple[int, bool]]) -> None:
    admission, held = gate(max_queue_patches=100), []
    for patches, release in steps:
        if release and held:
            held.pop().__exit__(None, None, None)
            continue
        room = admission.reserve(patches, 0.0, 1.0)
        try:
            room.__enter__()
        except Overloaded:
            assert admission.ledger.queue_patches + patches > 100
        else:
            held.append(room)
        assert admission.ledger.queue_patches <= 100
    while held:
        held.pop().__exit__(None, None, None)
    assert admission.ledger.queue_patches == 0
