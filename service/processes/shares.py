"""How the cores of a machine, and what may run on them, are divided among replicas."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

from service.errors import StartError
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica has.

    Attributes:
        cores: the numbers of those that it keeps to; none: it goes where the kernel puts it.
        threads: that run at a time.
    """

    cores: tuple[int, ...]
    threads: int


def divide(allowed: Collection[int], usable: int, replicas: int) -> list[Share]:
    """A share for each replica, as equal as they can be.

    Where a quota leaves less than the allowed cores nobody keeps to any: every container on the machine would choose
    the same ones.

    Args:
        allowed: the numbers of the cores that the affinity mask allows.
        usable: how many cores' worth of time there is, see `service.cores.usable_cores`.
        replicas: how many, at most `usable`.
    """
    ends = [number * usable // replicas for number in range(replicas + 1)]
    cores = sorted(allowed) if usable == len(allowed) else []
    return [Share(tuple(cores[begin:end]), end - begin) for begin, end in pairwise(ends)]


def settings_of(settings: Settings, share: Share) -> Settings:
    """The settings of one replica."""
    return settings.model_copy(
        update={
            "engine_threads": settings.engine_threads or share.threads,
            "engine_lanes": settings.lanes(share.threads),
            "decode_threads": settings.decode_threads or share.threads,
            "max_pixels_in_flight": math.ceil(settings.max_pixels_in_flight / settings.replicas),
        }
    )


def check_replicas(settings: Settings, cores: int) -> None:
    """Refuse what replicas cannot do.

    Raises:
        StartError: naming the flags.
    """
    replicas = settings.replicas
    each = cores // replicas
    if settings.http_workers > 1:
        raise StartError(
            f"--replicas {replicas} and --http-workers {settings.http_workers} exclude each other: a replica is "
            "a whole service in one process; leave one of them out"
        )
    if settings.provider != "cpu":
        raise StartError(
            f"--replicas {replicas} needs --provider cpu: on a GPU each would hold the model once more and run smaller "
            "batches; put --http-workers before the one engine instead"
        )
    if replicas > cores:
        raise StartError(f"--replicas {replicas} is more than the {cores} cores that may be used: each needs its own")
    for flag, value in (("lanes", settings.engine_lanes), ("threads", settings.engine_threads)):
        if value > each:
            raise StartError(
                f"--engine-{flag} {value} is more than the cores of one of --replicas {replicas}, {each} of {cores}"
            )
