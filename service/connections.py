"""How many connections are open, and the places kept for probes when there are too many."""

import resource
from pathlib import Path
from typing import Protocol

from service.errors import StartError
from service.settings import HttpSettings

_SPARE = 64  # connections over the limit that are heard, in case they are probes
_OTHER_FILES = 64  # opened after the start: sockets just accepted or not yet closed, pipes, a model
_FEWEST = 16


class Abortable(Protocol):
    """A connection, as far as it matters here."""

    def abort(self) -> None:
        """Close it now; nothing more is sent."""


class Doorway:
    """Lets connections in.

    One that comes when all places are taken gets a spare place, where only a probe is answered. When those are taken
    too, the one that has had its spare place for longest loses it: a probe says what it wants at once, and a crowd
    that says nothing cannot keep it out.

    Args:
        places: connections that are served.
        spare: more of them, for probes.
    """

    def __init__(self, places: int, spare: int = _SPARE) -> None:
        self._free = places
        self._most_spare = spare
        self._spare: dict[Abortable, None] = {}  # oldest first

    def enter(self, connection: Abortable) -> bool:
        """Whether the connection got one of the places that are served; otherwise it got a spare one."""
        if self._free > 0:
            self._free -= 1
            return True
        if len(self._spare) >= self._most_spare:
            oldest = next(iter(self._spare))
            del self._spare[oldest]
            oldest.abort()
        self._spare[connection] = None
        return False

    def leave(self, connection: Abortable, *, served: bool) -> None:
        """The connection is closed; `served` is what `enter` said."""
        if served:
            self._free += 1
        else:
            self._spare.pop(connection, None)


def places_for_connections(settings: HttpSettings) -> int:
    """As many connections as are wanted, or as the limit of open files allows; that limit is raised as far as it may.

    Raises:
        StartError: if next to none are allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = len(list(Path("/proc/self/fd").iterdir())) + _OTHER_FILES + _SPARE
    wanted = settings.max_connections + others
    limit = max(soft, min(hard, wanted)) if hard != resource.RLIM_INFINITY else max(soft, wanted)
    if limit > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    places = min(settings.max_connections, limit - others)
    if places < min(_FEWEST, settings.max_connections):
        raise StartError(f"only {limit} files may be open, too few to serve connections: raise the limit (ulimit -n)")
    return places
