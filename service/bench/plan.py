"""What load, and making it."""

from dataclasses import dataclass

from service.bench.arrivals import poisson_arrivals
from service.bench.loops import closed_loop, open_loop
from service.bench.samples import Sample
from service.bench.sending import Sender
from service.calls.terms import key_headers


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        connections: of a closed loop; ignored with a rate.
        rate: requests a second of an open loop; None: a closed one.
        warm_up_s: of the same load before what is measured.
        seconds: what is measured.
        timeout_s: of one request.
        seed: of the arrivals.
    """

    connections: int
    rate: float | None
    warm_up_s: float
    seconds: float
    timeout_s: float
    seed: int

    @property
    def total_s(self) -> float:
        """How long requests are sent."""
        return self.warm_up_s + self.seconds

    def __str__(self) -> str:
        """For people."""
        if self.rate is None:
            return f"closed loop, {self.connections} connections"
        return f"open loop, {self.rate:g} requests/s (Poisson, seed {self.seed}), latency from the due time"


async def carry_out(plan: Plan, url: str, api_key: str | None, pictures: list[bytes], samples: list[Sample]) -> None:
    """Make the load; samples are added as replies come, so that whoever interrupts has them."""
    connections = plan.connections if plan.rate is None else None
    async with Sender(url, pictures, key_headers(api_key), connections, plan.timeout_s) as sender:
        if plan.rate is None:
            await closed_loop(sender, plan.connections, plan.total_s, samples)
        else:
            await open_loop(sender, poisson_arrivals(plan.rate, plan.total_s, plan.seed), samples)
