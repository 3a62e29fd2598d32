from service.standing import StandingQueue


def test_a_burst_is_no_standing_queue() -> None:
    queue = StandingQueue(calm_s=0.2, patience_s=1.0)
    assert not queue.stands(1.9, 10.0)
    assert not queue.stands(1.0, 10.9)
    assert not queue.stands(0.1, 11.0)
    assert not queue.stands(1.9, 11.5)


def test_a_queue_stands_until_it_is_nearly_empty() -> None:
    queue = StandingQueue(calm_s=0.2, patience_s=1.0)
    assert [queue.stands(wait_s, now_s) for wait_s, now_s in [(1.9, 0.0), (1.9, 1.1), (0.3, 2.0), (0.2, 3.0)]] == [
        False,
        True,
        True,
        False,
    ]
    assert not queue.stands(1.9, 3.1)


def test_time_without_requests_does_not_count_once_the_queue_is_seen_empty() -> None:
    queue = StandingQueue(calm_s=0.2, patience_s=1.0)
    queue.stands(1.9, 0.0)
    assert not queue.stands(0.0, 100.0)
