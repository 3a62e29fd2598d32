from service.errors import DeviceLost, NotReady
from service.lifecycle import Lifecycle, Phase


def test_whoever_fails_first_says_what_is_answered() -> None:
    lifecycle = Lifecycle()
    lifecycle.advance(Phase.SERVING)
    assert (lifecycle.failed, lifecycle.refusal) == (False, None)
    lifecycle.fail(NotReady)
    lifecycle.fail()
    assert lifecycle.failed
    assert isinstance(lifecycle.refusal, NotReady)
    assert isinstance(lifecycle.unready, NotReady)


def test_by_default_it_was_the_device() -> None:
    lifecycle = Lifecycle()
    lifecycle.fail()
    assert isinstance(lifecycle.refusal, DeviceLost)
