from collections.abc import Sequence

from service.processes.documents import ReloadCall, ReloadEnd
from service.processes.relay import Relay
from service.reload import Reloaded
from service.replies import ModelName


def served(version: str, outcome: str = "reloaded", name: str = "birds") -> Reloaded:
    """What a replica says of a name of which it serves this version now."""
    return Reloaded(name, outcome, None, ModelName(name=name, version=version, digest=f"sha256:{version}"))


STRANGER = Reloaded("", "refused", None, None)


class Parent:
    """Replicas that say what they are told to."""

    def __init__(self, *rows: int) -> None:
        self.rows = list(rows)
        self.said: list[tuple[int, ReloadCall | ReloadEnd]] = []
        self.replaced: list[int] = []
        self.now_s = 0.0
        self.relay = Relay(
            lambda: self.rows,
            lambda row, document: self.said.append((row, document)),
            self.replaced.append,
            lambda: self.now_s,
        )

    def asked(self) -> list[int]:
        """The rows that have been told to reload, since this was last asked."""
        told, self.said = self.said, []
        return [row for row, document in told if isinstance(document, ReloadCall)]

    def do(self, number: int, row: int, *reloaded: Reloaded) -> None:
        """A replica has done the reload of this number."""
        self.relay.hear(row, ReloadEnd(call=number, reloaded=list(reloaded)))


def answers(parent: Parent) -> Sequence[tuple[int, ReloadEnd]]:
    return [(row, document) for row, document in parent.said if isinstance(document, ReloadEnd)]


def test_whoever_asked_is_told_when_all_have_done_it() -> None:
    parent = Parent(1, 2, 3)
    parent.relay.ask(ReloadCall(call=70, name="birds"), row=2)
    assert parent.said == [(row, ReloadCall(call=1, name="birds")) for row in (1, 2, 3)]
    parent.do(1, 1, served("2"))
    parent.do(1, 3, served("2"))
    assert not answers(parent)
    parent.do(1, 2, served("2"))
    assert answers(parent) == [(2, ReloadEnd(call=70, reloaded=[served("2")]))]
    assert parent.replaced == []


def test_one_reload_at_a_time() -> None:
    parent = Parent(1, 2)
    parent.relay.ask(ReloadCall(call=1, name="birds"), row=1)
    assert parent.asked() == [1, 2]
    parent.relay.ask(ReloadCall(call=1, name="fish"), row=2)
    parent.relay.ask(ReloadCall(call=0, name=None))
    assert parent.asked() == []
    for number in (1, 2, 3):
        parent.do(number, 1, served("2"))
        parent.do(number, 1, served("2"))  # said twice: counts once
        parent.do(number + 1, 2, served("2"))  # of no reload that is under way
        parent.do(number, 2, served("2"))
    assert [(row, document.call) for row, document in answers(parent)] == [(1, 1), (2, 1)]
    assert [row for row, document in parent.said if isinstance(document, ReloadCall)] == [1, 2, 1, 2]


def test_the_dead_hold_nobody_up() -> None:
    parent = Parent(1, 2)
    parent.relay.ask(ReloadCall(call=5, name=None), row=1)
    parent.do(1, 1, served("2"))
    parent.relay.lose(2)
    assert answers(parent) == [(1, ReloadEnd(call=5, reloaded=[served("2")]))]


def test_the_dead_are_told_nothing() -> None:
    parent = Parent(1, 2)
    parent.relay.ask(ReloadCall(call=5, name=None), row=1)
    parent.relay.ask(ReloadCall(call=6, name=None), row=1)
    parent.relay.lose(1)
    parent.do(1, 2, served("2"))
    assert answers(parent) == []
    parent.asked()
    parent.relay.ask(ReloadCall(call=7, name=None), row=2)
    assert parent.asked() == [1, 2]  # what the dead one had asked for besides is forgotten


def test_with_no_replica_a_reload_is_over_at_once() -> None:
    parent = Parent()
    parent.relay.ask(ReloadCall(call=1, name=None))
    parent.rows = [1]
    parent.relay.ask(ReloadCall(call=1, name=None))
    assert parent.asked() == [1]


def test_whoever_asked_is_told_the_worst() -> None:
    parent = Parent(1, 2)
    parent.relay.ask(ReloadCall(call=1, name="birds"), row=1)
    parent.do(1, 1, served("2"))
    parent.do(1, 2, served("1", "refused"))
    assert answers(parent) == [(1, ReloadEnd(call=1, reloaded=[served("1", "refused")]))]


def test_an_unknown_name_and_a_failure_are_told_apart() -> None:
    parent = Parent(1, 2)
    for number, known in ((1, False), (2, True)):
        parent.relay.ask(ReloadCall(call=9, name="birds"), row=1)
        parent.relay.hear(1, ReloadEnd(call=number, known=False))
        parent.relay.hear(2, ReloadEnd(call=number, known=known))
    assert [document.known for _, document in answers(parent)] == [False, True]
    assert parent.replaced == []


def test_a_replica_that_serves_something_else_is_replaced() -> None:
    parent = Parent(1, 2, 3)
    parent.relay.ask(ReloadCall(call=0, name=None))
    parent.do(1, 1, served("1", "refused"), STRANGER)  # no memory, perhaps
    parent.do(1, 2, served("2"), STRANGER)  # the file was replaced once more before the last read it
    parent.do(1, 3, served("3"), STRANGER)
    assert parent.replaced == [1, 2]


def test_a_replica_without_the_name_is_replaced() -> None:
    parent = Parent(1, 2)
    parent.relay.ask(ReloadCall(call=0, name="birds"))
    parent.do(1, 1, served("2"))
    parent.relay.hear(2, ReloadEnd(call=1, known=False))
    assert parent.replaced == [2]


def test_a_bad_file_displaces_nobody() -> None:
    parent = Parent(1, 2)
    parent.relay.ask(ReloadCall(call=0, name=None))
    parent.do(1, 1, served("1", "refused"), served("5", "unchanged", "fish"))
    parent.do(1, 2, served("2", "refused"), served("5", "unchanged", "fish"))
    assert parent.replaced == []


def test_who_does_not_do_it_long_after_another_is_late() -> None:
    parent = Parent(1, 2, 3)
    parent.relay.ask(ReloadCall(call=0, name=None))
    parent.now_s = 1000.0
    assert not parent.relay.late  # a large model takes all of them that long
    parent.do(1, 2, served("2"))
    parent.now_s += 29
    assert not parent.relay.late
    parent.now_s += 2
    assert parent.relay.late == {1, 3}
    parent.relay.lose(1)
    parent.relay.lose(3)
    assert not parent.relay.late
