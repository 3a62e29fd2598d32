"""What became of one request, and the figures of many."""

import enum
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)


class Fate(enum.StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"  # 429 and 503: the service protects itself
    FAILED = "failed"  # everything else: another status, a broken connection, no reply in time


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    Attributes:
        due_s: when it should have been sent, from the start of the load. In a closed loop that is when it was sent.
        latency_s: from then to the end of the reply.
        fate: what became of it.
        reason: `429 overloaded` and the like; empty if it was answered.
        late_s: how much later than due it was sent: of this program, not of the service.
    """

    due_s: float
    latency_s: float
    fate: Fate
    reason: str = ""
    late_s: float = 0.0

    @property
    def end_s(self) -> float:
        """When its reply had come, from the start of the load."""
        return self.due_s + self.latency_s


@dataclass(frozen=True, slots=True)
class Figures:
    """A stretch of load between two moments.

    Attributes:
        begin_s, end_s: the stretch, from the start of the load; what is before is warm-up.
        samples: the requests that were due in it.
        answers_per_s: answers that came in it, whenever they were due.
        latencies_s: of the answered samples, rising.
    """

    begin_s: float
    end_s: float
    samples: tuple[Sample, ...]
    answers_per_s: float
    latencies_s: NDArray[np.float64]

    def count(self, fate: Fate) -> int:
        """How many samples had this fate."""
        return sum(sample.fate == fate for sample in self.samples)

    def reasons(self, fate: Fate) -> Counter[str]:
        """How many samples of this fate had which reason."""
        return Counter(sample.reason for sample in self.samples if sample.fate == fate)

    def percentiles_ms(self) -> dict[float, float]:
        """Latency that a share of the answers stayed below, milliseconds; only shares that leave an answer above."""
        count = len(self.latencies_s)
        shares = [share for share in SHARES if count * (1 - share) >= 1 - 1e-9]
        return {share: 1000 * float(np.quantile(self.latencies_s, share)) for share in shares}

    def lateness_ms(self) -> float:
        """The 99th percentile of how late this program was, milliseconds."""
        return 1000 * float(np.quantile([sample.late_s for sample in self.samples], 0.99)) if self.samples else 0.0

    def per_second(self) -> list[dict[Fate, int]]:
        """Samples of each fate, by the whole second in which they were due."""
        rows: list[dict[Fate, int]] = [dict.fromkeys(Fate, 0) for _ in range(math.ceil(self.end_s - self.begin_s))]
        for sample in self.samples:
            rows[min(len(rows) - 1, int(sample.due_s - self.begin_s))][sample.fate] += 1
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "seconds": self.end_s - self.begin_s,
            "requests": len(self.samples),
            **{str(fate): self.count(fate) for fate in Fate},
            "reasons": dict(self.reasons(Fate.REFUSED) + self.reasons(Fate.FAILED)),
            "answers_per_s": self.answers_per_s,
            "latency_ms": {f"p{100 * share:g}": value for share, value in self.percentiles_ms().items()},
            "program_late_p99_ms": self.lateness_ms(),
        }


def figures_of(samples: Sequence[Sample], begin_s: float, end_s: float) -> Figures:
    """The figures of the requests that were due between two moments."""
    inside = tuple(sorted((each for each in samples if begin_s <= each.due_s < end_s), key=lambda each: each.due_s))
    ended = sum(each.fate == Fate.ANSWERED and begin_s <= each.end_s < end_s for each in samples)
    latencies = np.sort([each.latency_s for each in inside if each.fate == Fate.ANSWERED])
    return Figures(begin_s, end_s, inside, ended / (end_s - begin_s), latencies.astype(np.float64))


def histogram(latencies_s: NDArray[np.float64], bins: int = 16) -> list[tuple[float, float, int]]:
    """From, to (milliseconds) and how many, in bins of equal ratio: latencies spread over orders of magnitude."""
    if not len(latencies_s):
        return []
    latencies_s = np.maximum(latencies_s, 1e-5)  # nothing is as quick as 0, which has no ratio to anything
    low, high = float(latencies_s[0]), float(latencies_s[-1])
    edges = np.geomspace(low, max(high, low * 1.01), bins + 1)
    edges[0], edges[-1] = low, max(edges[-1], high)  # rounding must lose no end
    counts, _ = np.histogram(latencies_s, edges)
    starts, ends = (1000 * edges[:-1]).tolist(), (1000 * edges[1:]).tolist()
    return list(zip(starts, ends, counts.tolist(), strict=True))
