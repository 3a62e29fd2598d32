"""One reload in all replicas: whoever was asked for it is told what came of it when all have done it.

    replica that was asked          parent               every replica, the asked one too
    ReloadCall, its own number -->
                                    ReloadCall       -->
                                                     <-- ReloadEnd
                               <--  ReloadEnd

There is one reload at a time. A replica that then serves something else than the others, because it refused a file or
read it at another moment, is replaced: its successor opens what the files are.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from service.processes.documents import ReloadCall, ReloadEnd
from service.reload import Reloaded, worst_of

_LONGEST_S = 30.0  # after the first has done it


@dataclass(frozen=True, slots=True)
class _Asked:
    row: int | None
    call: ReloadCall


class Relay:
    """In the parent.

    Args:
        rows: of the replicas that serve now.
        say: says something to the replica of a row.
        replace: lets the replica of a row end when it has answered what it had accepted.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        rows: Callable[[], Collection[int]],
        say: Callable[[int, ReloadCall | ReloadEnd], None],
        replace: Callable[[int], None],
        clock: Callable[[], float],
    ) -> None:
        self._rows = rows
        self._say = say
        self._replace = replace
        self._clock = clock
        self._waiting: deque[_Asked] = deque()
        self._now: _Asked | None = None
        self._number = 0
        self._left: set[int] = set()
        self._ends: dict[int, ReloadEnd] = {}  # in the order in which they came
        self._late_at_s = float("inf")

    def ask(self, call: ReloadCall, row: int | None = None) -> None:
        """Have all replicas do it, after what they were asked before; `row` is told, None: nobody."""
        self._waiting.append(_Asked(row, call))
        self._begin_next()

    def hear(self, row: int, end: ReloadEnd) -> None:
        """A replica has done it."""
        if row not in self._left or end.call != self._number:
            return
        self._left.remove(row)
        self._ends[row] = end
        self._late_at_s = min(self._late_at_s, self._clock() + _LONGEST_S)
        self._end_if_all()

    def lose(self, row: int) -> None:
        """A replica has died."""
        self._waiting = deque(asked for asked in self._waiting if asked.row != row)
        self._left.discard(row)
        self._ends.pop(row, None)
        if self._now is not None and self._now.row == row:
            self._now = _Asked(None, self._now.call)
        self._end_if_all()

    @property
    def late(self) -> Collection[int]:
        """Replicas that do not do it, long after another has."""
        return frozenset(self._left) if self._clock() >= self._late_at_s else frozenset()

    def _begin_next(self) -> None:
        while self._now is None and self._waiting:
            self._now = self._waiting.popleft()
            self._number += 1
            self._left, self._ends, self._late_at_s = set(self._rows()), {}, float("inf")
            for row in sorted(self._left):
                self._say(row, ReloadCall(call=self._number, name=self._now.call.name))
            self._end_if_all()

    def _end_if_all(self) -> None:
        if self._now is None or self._left:
            return
        asked, self._now = self._now, None
        if asked.row is not None:
            self._say(asked.row, _sum_up(asked.call.call, list(self._ends.values())))
        for row in odd_ones(self._ends):
            self._replace(row)
        self._begin_next()


def _sum_up(call: int, ends: Collection[ReloadEnd]) -> ReloadEnd:
    """What is said about all: the worst."""
    done = [end.reloaded for end in ends if end.reloaded is not None]
    failed = any(end.reloaded is None and end.known for end in ends)
    if failed or not done:
        return ReloadEnd(call=call, known=failed or not ends)
    return ReloadEnd(call=call, reloaded=worst_of(done))


def odd_ones(ends: Mapping[int, ReloadEnd]) -> list[int]:
    """The rows of replicas that serve something else than the last one of those that refused least."""
    done = {row: end.reloaded for row, end in ends.items() if end.reloaded is not None}
    best = min(reversed(done.values()), key=_refusals, default=[])
    wanted = {each.name: each.new for each in best if each.outcome != "refused"}
    served = {row: {each.name: each.new for each in done.get(row, ())} for row in ends}
    return [row for row in ends if not wanted.items() <= served[row].items()]


def _refusals(reloaded: Collection[Reloaded]) -> int:
    return sum(each.outcome == "refused" for each in reloaded)
