"""An hour of steady traffic, a twentieth of it hostile: every reply is checked, and memory is fitted with a line.

    PYTHONPATH=.:tests python -m benchmarks.soak --minutes 60 --results runs/soak.csv

Good images (eight JPEGs, raw bodies) must get the prediction that each got at the start; hostile ones
(`tests/hostile_images.py`) the `code` of the catalogue. Broken multipart must get `bad_multipart`. Clients that vanish
in the middle of a body get nothing. Every ten seconds the memory of all processes of the service is appended to
`--results`. The slope is that of the time after the first quarter, by Theil and Sen: the allocator takes and gives back
megabytes at a time, and a least-squares line takes such a step for growth. It counts as a leak when the lower end of
its 95 % interval is over `--max-mb-per-hour`. Status 1: a 5xx, a wrong or missing reply, or a leak.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from hostile_images import CASES

from benchmarks.arrivals import Answers, Pool
from benchmarks.fits import robust_slope
from benchmarks.images import make_jpegs
from benchmarks.load import request_of
from benchmarks.served import Served, artifact, serve

_INTERVAL_S = 10.0
_VANISHING, _BROKEN, _HOSTILE, _SHARES = "vanishing", "broken", "hostile", (0.01, 0.01, 0.03)
_BROKEN_FORM = (
    b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9\r\n\r\n"
    b"--x\r\n\r\nab"
)


def verdict(status: int, body: bytes) -> str:
    """What a reply says: the best label and its score, or the code of a problem."""
    if not body:
        return f"nothing ({status})"
    document = json.loads(body)
    if status != 200:
        return str(document["code"])
    best = document["results"][0]["predictions"][0]
    return f"{best['label']} {best['score']:.4f}"


def as_expected(expected: str | None, found: str) -> bool:
    """Whether a reply is right; None expects any prediction. An honest refusal for load is never wrong."""
    if found == "overloaded":
        return True
    return found.count(" ") > 0 and not found.startswith("nothing") if expected is None else found == expected


def growth(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Megabytes an hour after the first quarter of (seconds, megabytes), and the least that they are (95 %).

    Raises:
        ValueError: for fewer than two samples there.
    """
    late = [sample for sample in samples if sample[0] >= samples[-1][0] / 4]
    return robust_slope([seconds / 3600 for seconds, _ in late], [megabytes for _, megabytes in late])


def leaks(least: float, most: float) -> bool:
    """Whether memory grows by more than `most` megabytes an hour, beyond doubt."""
    return least > most


async def ask(served: Served, request: bytes) -> tuple[int, str]:
    """One request on a connection of its own: status and verdict."""
    seen, replies = Answers(), []
    pool = Pool(served.host, served.port, seen, lambda status, body: replies.append((status, body)), fresh=True)
    pool.send(asyncio.get_running_loop().time(), request)
    await pool.settle(35.0)
    status, body = replies[0] if replies else (0, b"")
    return status, verdict(status, body)


async def vanish(served: Served, request: bytes) -> None:
    """Leave in the middle of a body."""
    _, writer = await asyncio.open_connection(served.host, served.port)
    writer.write(request[: len(request) // 2])
    await writer.drain()
    writer.transport.abort()


async def soak(
    served: Served, rate: float, seconds: float, results: Path | None, interval_s: float = _INTERVAL_S
) -> tuple[Counter[str], list[tuple[float, float]]]:
    """Counts of what happened, and (seconds, megabytes) every `interval_s`."""
    draw = random.Random(0)  # noqa: S311 - not a secret
    good = [request_of(image, "t") for image in make_jpegs(224, 224)]
    golden = [(await ask(served, each))[1] for each in good]
    # A catalogue's image that is over a limit of 10 MiB or takes long would be another test.
    hostile = [(request_of(case.build(), "t"), case.code) for case in CASES if case.code is not None]
    seen: Counter[str] = Counter()
    samples: list[tuple[float, float]] = []

    async def one(request: bytes, expected: str) -> None:
        status, found = await ask(served, request)
        seen[f"{status}"] += 1
        if not as_expected(expected, found):
            seen["wrong"] += 1
            print(f"wrong: expected {expected}, got {status} {found}", flush=True)

    started = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        while (elapsed_s := time.monotonic() - started) < seconds:
            if elapsed_s >= len(samples) * interval_s:
                samples.append((elapsed_s, served.own_mb()))
                if results is not None:
                    results.parent.mkdir(parents=True, exist_ok=True)
                    with results.open("a") as file:
                        file.write(f"{elapsed_s:.1f},{samples[-1][1]:.2f},{json.dumps(dict(seen))}\n")
            kind = draw.choices([_VANISHING, _BROKEN, _HOSTILE, ""], [*_SHARES, 1 - sum(_SHARES)])[0]
            number = draw.randrange(len(good))
            if kind == _VANISHING:
                seen[kind] += 1
                tasks.create_task(vanish(served, good[number]))
            elif kind == _BROKEN:
                tasks.create_task(one(_BROKEN_FORM, "bad_multipart"))
            elif kind == _HOSTILE:
                request, code = draw.choice(hostile)
                tasks.create_task(one(request, str(code)))
            else:
                tasks.create_task(one(good[number], golden[number]))
            await asyncio.sleep(draw.expovariate(rate))
    return seen, samples


def command(
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the run.")] = 60.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second.")] = 10.0,
    model: Annotated[str, typer.Option(help="A variant such as Ti/16, a file, or `bundled`.")] = "Ti/16",
    option: Annotated[list[str] | None, typer.Option(help="A flag for the service.")] = None,
    results: Annotated[Path | None, typer.Option(help="Samples as CSV, appended.")] = None,
    max_mb_per_hour: Annotated[float, typer.Option(min=0, help="Growth of memory that is no leak.")] = 1.0,
) -> None:
    """Statuses, wrong replies and the slope of the memory."""
    path = None if model == "bundled" else Path(model) if model.endswith(".onnx") else artifact(model)
    with serve(path, option or []) as served:
        seen, samples = asyncio.run(soak(served, rate, 60 * minutes, results))
    errors = sum(number for status, number in seen.items() if status.startswith("5"))
    print(f"{dict(seen)}, {errors} x 5xx, {seen['wrong']} wrong, {seen['0']} without a reply")
    leaking = False
    if len(samples) > 2:
        steepness, least = growth(samples)
        leaking = leaks(least, max_mb_per_hour)
        print(f"slope {steepness:+.1f} MB an hour (at least {least:+.1f}), end {samples[-1][1]:.1f} MB")
    sys.exit(1 if errors or seen["wrong"] or seen["0"] or leaking else 0)


if __name__ == "__main__":
    typer.run(command)
