"""How many replicas a queue needs. Ray Serve calls the policy; nothing of Ray is imported here.

The controller of Ray Serve loads this module by value, so it stands on nothing of ours.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

WAIT = "engine_wait_s"  # what a replica reports: its queued patches over the speed of its engine


class Observed(Protocol):
    """The part of `ray.serve.config.AutoscalingContext` that is needed here."""

    aggregated_metrics: Mapping[str, Mapping[Any, float]] | None
    current_num_replicas: int
    target_num_replicas: int


class QueueScaling:
    """A policy for Ray Serve, which applies bounds and delays to what it says.

    Args:
        target_wait_s: queued work of one replica that is aimed at, seconds.
    """

    def __init__(self, target_wait_s: float) -> None:
        self._target_wait_s = target_wait_s

    def __call__(self, observed: Observed) -> tuple[float, dict[str, Any]]:
        """Replicas wanted, and nothing to remember."""
        waits = (observed.aggregated_metrics or {}).get(WAIT, {}).values()
        # Who starts, or has not been asked yet, says nothing of the load: stay.
        if not observed.current_num_replicas or len(waits) < observed.current_num_replicas:
            return observed.target_num_replicas, {}
        return replicas_for(waits, self._target_wait_s), {}


def replicas_for(waits_s: Iterable[float], target_wait_s: float) -> float:
    """So many replicas that each has the aimed-at work, if all are equally fast.

    Args:
        waits_s: queued work of each replica, seconds.
        target_wait_s: the work of one replica that is aimed at, seconds.
    """
    return sum(waits_s) / target_wait_s
