"""The composition root: the one place that knows every part."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.access import Gate, guarded, open_gate
from service.admission import Admission, Ledger, Rate, Speed
from service.batching import BatchLimits, Lanes
from service.brownout import BrownOut, steps_of
from service.canary import Canary
from service.classify import Classifier, ShortWay, classify_router
from service.cores import usable_cores
from service.decoding.opening import kept, open_decoder
from service.engine import Engine, Model
from service.errors import DeviceLostError, StartError
from service.heartbeat import Heartbeat
from service.lifecycle import Lifecycle, Phase
from service.logs import open_log, standard_error
from service.metrics import Metrics
from service.observers import DecodeObserver, EngineObserver
from service.pipeline import LocalMemory, PatchMemory, Pipeline, Queue
from service.pixels import PixelBudget
from service.problems import install_handlers
from service.routes import information_router
from service.runner import BatchRunner
from service.scheduler import Scheduler
from service.self_test import check_decoder_limits
from service.settings import Settings
from service.tracking import Tracking
from service.watched import WatchedEngine


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    lifecycle: Lifecycle | None = None,
    log: FilteringBoundLogger | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Load the model and put the service together around it, all in this process.

    Args:
        settings: everything that can be chosen.
        engine: by default the model of the settings, loaded here.
        lifecycle: written by a server that drains; by default nobody does.
        log: by default standard error.
        clock: monotonic, seconds.

    Raises:
        StartError: if the model, the provider or the settings cannot serve.
    """
    log = log or open_log(settings, standard_error(), is_terminal=False)
    gate = open_gate(settings, clock=clock)
    engine = open_engine(settings, engine)
    spec = engine.model.manifest.preprocessing
    metrics, rate, limits = Metrics(), Rate(), batch_limits(settings, engine.model, engine.lanes)
    watched = WatchedEngine(engine, clock)
    runner = BatchRunner(watched, clock, engine.open_memory(limits), engine.lanes.number)
    runner.warm_up()
    watched.seen = True
    lifecycle = lifecycle or Lifecycle()
    observer = EngineObserver(metrics, rate, log, lambda _: lifecycle.fail())
    scheduler = Scheduler(runner.run, limits, clock, observer, engine.lanes)
    metrics.watch("engine_patches_per_second", "Speed of the engine, moving average", lambda: rate.per_s)

    background: list[asyncio.Task[None]] = []

    async def open_() -> None:
        if settings.canary_interval_s:
            canary = Canary(scheduler, spec, engine.golden_logits, observer.device_lost, clock)
            background.append(asyncio.create_task(canary.watch(settings.canary_interval_s)))

    async def close() -> None:
        for task in background:
            task.cancel()
        await scheduler.close()
        runner.close()

    backend = Backend(
        model=engine.model,
        queue=scheduler,
        memory=LocalMemory(spec.patch_dim),
        speed=rate,
        ledger=Ledger(),
        open=open_,
        close=close,
    )

    def look_for_a_hung_run(now_s: float) -> None:
        if watched.running_s(now_s) > settings.engine_timeout_s and not lifecycle.failed:
            observer.device_lost(DeviceLostError(f"a batch has been in the engine for {settings.engine_timeout_s:g} s"))

    return assemble_app(settings, backend, metrics, lifecycle, log, clock, gate, [look_for_a_hung_run])


def open_engine(settings: Settings, engine: Engine | None = None) -> Engine:
    """The engine of the settings, or this one, checked and warm.

    Raises:
        StartError: if the model, the provider or the settings cannot serve.
    """
    engine = engine or Engine(settings)
    _check_budgets(settings, engine.model)
    engine.warm_up()
    return engine


@dataclass(frozen=True, slots=True)
class Backend:
    """What stands behind the HTTP side: in the same process, or in one of its own.

    Attributes:
        model: what is served.
        queue: takes patch sequences, answers with the best classes.
        memory: where patches are written for it.
        speed: of the engine, patches a second.
        ledger: what is accepted and not yet answered.
        open: called before the first request.
        close: called after the last one.
    """

    model: Model
    queue: Queue
    memory: PatchMemory
    speed: Speed
    ledger: Ledger
    open: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


def assemble_app(
    settings: Settings,
    backend: Backend,
    metrics: Metrics,
    lifecycle: Lifecycle,
    log: FilteringBoundLogger,
    clock: Callable[[], float],
    gate: Gate | None,
    listeners: Sequence[Callable[[float], None]] = (),
) -> FastAPI:
    """The HTTP side in front of a backend, and behind a gate if there are API keys.

    `listeners` are told the time at every beat of the event loop.

    Raises:
        StartError: if the decoders do not start, or do not refuse what they must.
    """
    check_decoder_limits(backend.model.manifest.preprocessing, settings.image_limits())
    decode_threads = settings.decode_threads or usable_cores()
    # One image a lane: with less an overload would leave a lane idle.
    busy_patches = settings.lanes(usable_cores()) * backend.model.manifest.preprocessing.max_patches
    admission = Admission(settings, decode_threads, backend.speed, backend.ledger, busy_patches=busy_patches)
    metrics.watch("queue_patches", "Patches accepted and not yet answered", lambda: backend.ledger.all_queue_patches)
    metrics.watch("upload_bytes", "Bytes of uploads in memory", lambda: backend.ledger.all_upload_bytes)
    brown_out = open_brown_out(settings, backend.model)
    metrics.watch("brown_out_level", "Steps of fewer patches an image", lambda: brown_out.level)

    def learn_wait(now_s: float) -> None:
        brown_out.observe(admission.engine_wait_s(), now_s)

    heartbeat = Heartbeat(clock, metrics, log, [learn_wait, *listeners])
    lifecycle.loop_turns = lambda: heartbeat.in_time
    pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
    pixels = PixelBudget(settings.max_pixels_in_flight)
    observer = DecodeObserver(metrics, log)
    decoder = open_decoder(settings, backend.model.manifest.preprocessing, decode_threads, observer)
    lifecycle.require(decoder.able)
    pipeline = Pipeline(
        backend.model.manifest,
        settings.image_limits(),
        admission,
        backend.queue,
        backend.memory,
        pool,
        pixels,
        decoder,
        clock,
        observer,
        lambda: brown_out.max_patches,
        exact_decode=settings.exact_decode,
    )
    classifier = Classifier(settings, backend.model, pipeline, admission, lifecycle, metrics, clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with kept(decoder, observer.threads_hung):
            await backend.open()
            beating = asyncio.create_task(heartbeat.beat())
            lifecycle.advance(Phase.SERVING)
            yield
            lifecycle.advance(Phase.CLOSING)
            beating.cancel()
            await backend.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def wrap(inner: ASGIApp) -> ASGIApp:
        app = guarded(ShortWay(inner, classifier), settings, gate, metrics, log)
        return Tracking(app, metrics, log, lifecycle, clock)

    app = _Service(wrap, lifespan)
    app.state.metrics = metrics
    install_handlers(app)
    app.include_router(classify_router(classifier))
    app.include_router(information_router(backend.model, lifecycle, metrics, brown_out.steps))
    return app


class _Service(FastAPI):
    """FastAPI inside one more layer, outside of the layers that FastAPI itself adds."""

    def __init__(
        self, wrap: Callable[[ASGIApp], ASGIApp], lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]
    ) -> None:
        super().__init__(
            title="patchserve",
            summary="A Vision Transformer as an image-classification service",
            lifespan=lifespan,
            openapi_url=None,  # served by our own route, and counted
            docs_url=None,  # the stock page loads its scripts from a CDN
            redoc_url=None,
            redirect_slashes=False,  # a redirect would echo the Host header
        )
        self._wrap = wrap

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As Starlette's: FastAPI's own asks the environment at every request whether it shall trace it."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        return self._wrap(super().build_middleware_stack())


def batch_limits(settings: Settings, model: Model, lanes: Lanes) -> BatchLimits:
    """What one batch of this model may hold."""
    return BatchLimits(
        settings.max_batch_patches,
        settings.max_batch_images,
        settings.overhead_patches(lanes.number),
        model.manifest.mixed_grids,
    )


def open_brown_out(settings: Settings, model: Model) -> BrownOut:
    """The brown-out of this model; one that never acts if it is switched off or its cost is not known."""
    steps = steps_of(model.manifest, settings.brown_out_max_loss) if settings.brown_out else ()
    return BrownOut(steps, settings.brown_out_wait_ms / 1000)


def _check_budgets(settings: Settings, model: Model) -> None:
    """A request that could never be accepted is a wrong setting, not an overload."""
    if settings.default_timeout_ms > settings.max_timeout_ms:
        raise StartError(f"--default-timeout-ms is over --max-timeout-ms, {settings.max_timeout_ms}")
    needed = model.manifest.preprocessing.max_patches
    for flag, value in (
        ("--max-batch-patches", settings.max_batch_patches),
        ("--max-queue-patches", settings.max_queue_patches),
    ):
        if value < needed:
            raise StartError(f"{flag} is {value}, but one image of this model may have {needed} patches")
