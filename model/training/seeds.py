"""Random numbers that depend on where a run is, never on how it got there.

Every draw comes from a generator whose seed is a function of the run's seed, the epoch, the step and the process. So a
run that was killed and continued draws what it would have drawn, and no state of a generator has to be kept.
"""

import numpy as np
import torch


def seed_of(*place: int) -> int:
    """One seed for a place, such as (seed, epoch, step, process); near places have unrelated seeds."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator_at(*place: int) -> torch.Generator:
    """A generator on the CPU with the seed of a place."""
    return torch.Generator().manual_seed(seed_of(*place))
