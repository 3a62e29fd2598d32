"""Tells a load that is a little too high from one of which most is refused.

Then somebody is always there to take the next place, so a long queue keeps nothing busy that a short one would not: it
only makes every answer late, and the overload outlasts its cause by the time that the queue takes.

Requests are what can be counted, not clients, and a single client that asks again at once is refused hundreds of times
a second. So a moment in which most are refused is no crowd, three fifths of a second are. And since the shorter queue
goes on refusing clients that would all fit into the longer one, a crowd is doubted after some seconds: a real one shows
again, and the queue was the longer one for no more than that.
"""

_SPELL_S = 0.2
_PROOF, _DOUBT = 3, 25  # spells in a row


class Crowd:
    """Counts who was accepted and who was refused of late. Pure; the clock's readings are arguments."""

    def __init__(self) -> None:
        self._spell = 0  # the present one, counted from the beginning of the clock
        self._accepted = 0
        self._refused = 0
        self._in_a_row = 0  # spells before the present one in which more were refused

    def accept(self, now_s: float) -> None:
        """One more was."""
        self._turn(now_s)
        self._accepted += 1

    def refuse(self, now_s: float) -> None:
        """One more was."""
        self._turn(now_s)
        self._refused += 1

    def is_mostly_refused(self, now_s: float) -> bool:
        """Whether more than half were, in each spell of late."""
        self._turn(now_s)
        return self._in_a_row >= _PROOF

    def _turn(self, now_s: float) -> None:
        spell = int(now_s / _SPELL_S)
        if spell <= self._spell:
            return
        refusing = spell == self._spell + 1 and self._refused > self._accepted
        self._in_a_row = (self._in_a_row + 1) % _DOUBT if refusing else 0
        self._spell, self._accepted, self._refused = spell, 0, 0
