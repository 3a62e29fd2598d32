"""What a service that is all in one process has in common with others like it, if there are any."""

from collections.abc import Callable
from dataclasses import dataclass, field

from service.access import Gate
from service.admission import Ledger, Rate
from service.reload import Reload


def _reload_alone(reload: Reload) -> Reload:
    return reload


@dataclass(frozen=True, slots=True)
class Neighbours:
    """By default there are none.

    Attributes:
        gate: where keys are checked and counted; None if there are no keys.
        speed: of the engine in this process, patches a second.
        ledger: what this process has accepted and not yet answered.
        share_reload: makes of the reload of this process what the routes of the admin call.
    """

    gate: Gate | None
    speed: Rate = field(default_factory=Rate)
    ledger: Ledger = field(default_factory=Ledger)
    share_reload: Callable[[Reload], Reload] = _reload_alone
