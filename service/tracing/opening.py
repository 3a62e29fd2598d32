"""Whether traces are made, decided before anything of the SDK is imported."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from service.errors import StartError
from service.settings import TraceSettings

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

_NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
_PROTOCOL = "http/protobuf"
_ALL = "parentbased_always_on"
_SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    _ALL,
    "parentbased_always_off",
    "parentbased_traceidratio",
)
FLUSH_S = 1.0


def check_tracing(settings: TraceSettings, environment: Mapping[str, str] = os.environ) -> None:
    """Whether the traces that are asked for can be made.

    Raises:
        StartError: if the libraries are not installed, or if the environment asks for what there is not.
    """
    if not settings.tracing:
        return
    if not all(map(_is_installed, _NEEDED)):
        raise StartError("--tracing needs the OpenTelemetry SDK: pip install 'patchserve[otel]'")
    exporter = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if exporter not in {"otlp", "none"}:
        raise StartError(f"OTEL_TRACES_EXPORTER is {exporter!r}: traces go out as otlp, or none do")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := environment.get(name) or _PROTOCOL) != _PROTOCOL:
            raise StartError(f"{name} is {protocol!r}: only {_PROTOCOL} is spoken, at port 4318 of most collectors")
    _check_sampler(environment)


def _check_sampler(environment: Mapping[str, str]) -> None:
    """The library samples everything where it does not understand, which is dear."""
    sampler = (environment.get("OTEL_TRACES_SAMPLER") or _ALL).lower()
    if sampler not in _SAMPLERS:
        raise StartError(f"OTEL_TRACES_SAMPLER is {sampler!r}: choose {', '.join(_SAMPLERS)}")
    share = environment.get("OTEL_TRACES_SAMPLER_ARG", "")
    if sampler.endswith("ratio") and not re.fullmatch(r"0?\.\d+|[01](\.0*)?", share):
        raise StartError(f"OTEL_TRACES_SAMPLER_ARG is {share!r}: {sampler} needs a number from 0 to 1, such as 0.1")


def open_tracing(
    settings: TraceSettings, log: FilteringBoundLogger, clock: Callable[[], float], process: str = "all"
) -> "Tracing | None":
    """What makes spans in this process; None if nobody wants any. To be called after the last fork: it has a thread.

    Args:
        settings: whether traces are asked for.
        log: is told when they cannot be delivered.
        clock: monotonic, seconds; that of every time a span is given.
        process: what this one does, where there are several.

    Raises:
        StartError: see `check_tracing`.
    """
    check_tracing(settings)
    if not settings.tracing or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    from service.tracing.export import open_processor  # noqa: PLC0415 - it is an extra, and takes 0.2 s to import
    from service.tracing.spans import Tracing  # noqa: PLC0415

    try:
        return Tracing(open_processor(log), clock, process)
    except ValueError as error:  # of the exporter's own variables
        raise StartError(f"the OTEL_ variables cannot be used: {error}") from None


@asynccontextmanager
async def delivered(tracing: "Tracing | None") -> AsyncIterator[None]:
    """Send what waits when the service has ended, for a moment."""
    try:
        yield
    finally:
        if tracing is not None:
            await asyncio.to_thread(tracing.close, FLUSH_S)


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
