"""The composition root: the one place that knows every part."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from service.access import Gate, guarded, open_gate
from service.accounts import Accounts, SlowLog
from service.admin import admin_router
from service.admission import Admission, Ledger, Speed, crowded_wait_s
from service.brownout import BrownOut, steps_of
from service.canary import Canary
from service.classify import Classifier, ShortWay, classify_router
from service.cores import usable_cores
from service.decoding.opening import Decoders
from service.door import AdmissionDoor
from service.embed import Embedder, embed_router
from service.engine import Engine, Model
from service.errors import DeviceLostError, NotReady
from service.explain import Explainer, explain_router
from service.footprint import resident_bytes
from service.heartbeat import Heartbeat
from service.library import Change, Library
from service.lifecycle import Lifecycle, Phase
from service.loaded import Loaded, Loader, open_engine
from service.logs import open_log, standard_error
from service.metrics import Metrics
from service.models import Behind, Models
from service.neighbours import Neighbours
from service.observers import DecodeObserver, EngineObserver
from service.openapi import describe_keys
from service.page_files import page_router
from service.painting import Painter
from service.pipeline import LocalMemory, Pipeline
from service.pixels import PixelBudget
from service.problems import install_handlers
from service.reload import Reload, Reloading
from service.routes import information_router
from service.self_test import check_decoder_limits
from service.settings import Settings
from service.tracing.opening import delivered, open_tracing
from service.tracking import Tracking
from service.trial import try_model
from service.v2.inference import Inference
from service.v2.routes import inference_router
from service.watched import Runs, WatchedEngine

if TYPE_CHECKING:
    from service.tracing.spans import Tracing


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    lifecycle: Lifecycle | None = None,
    log: FilteringBoundLogger | None = None,
    clock: Callable[[], float] = time.monotonic,
    neighbours: Neighbours | None = None,
    tracing: "Tracing | None" = None,
) -> FastAPI:
    """Load the models and put the service together around them, all in this process.

    Args:
        settings: everything that can be chosen.
        engine: by default the model of the settings, loaded here.
        lifecycle: written by a server that drains; by default nobody does.
        log: by default standard error.
        clock: monotonic, seconds.
        neighbours: what it has in common with other processes like this one; by default there are none.
        tracing: by default that of the settings.

    Raises:
        StartError: if the model, the provider or the settings cannot serve.
    """
    log = log or open_log(settings, standard_error(), is_terminal=False)
    neighbours = neighbours or Neighbours(open_gate(settings, clock=clock))
    tracing = tracing or open_tracing(settings, log, clock)
    lifecycle = lifecycle or Lifecycle()
    metrics, speed = Metrics(), neighbours.speed
    metrics.watch("engine_patches_per_second", "Speed of the engine, moving average", lambda: speed.all_per_s)
    decoders = open_decoders(settings, metrics, log)
    observer = EngineObserver(metrics, speed, log, lambda _: lifecycle.fail())
    given = iter([engine] if engine else [])
    runs = Runs(clock)

    def look_for_a_hung_run(now_s: float) -> None:
        if runs.running_s(now_s) > settings.engine_timeout_s and not lifecycle.failed:
            observer.device_lost(DeviceLostError(f"a batch has been in the engine for {settings.engine_timeout_s:g} s"))

    loader = Loader(
        lambda chosen: open_engine(chosen, next(given, None)),
        observer,
        clock,
        lambda engine: WatchedEngine(engine, runs),
        decoders.open,  # here, for a reload is in a thread
        tracing,
    )
    library = Library(settings, loader, try_model)
    library.load()

    def behind(loaded: Loaded) -> Behind:
        spec = loaded.model.manifest.preprocessing
        canary = Canary(loaded.queue, spec, loaded.engine.golden_logits, observer.device_lost, clock)
        return Behind(
            loaded.model, loaded.queue, LocalMemory(spec.patch_dim), loaded.close, canary.watch, has_logits=True
        )

    def connect(models: Models) -> Reload:
        async def switch(change: Change[Loaded]) -> None:
            models.put(change.name, [behind(loaded) for loaded in change.after])

        return neighbours.share_reload(Reloading(library, switch, metrics, log))

    backend = Backend(
        versions={name: [behind(loaded) for loaded in versions] for name, versions in library.versions().items()},
        default=library.default,
        speed=speed,
        ledger=neighbours.ledger,
        connect=connect,
        open=_nothing,
        close=_nothing,
    )
    return assemble_app(
        settings, backend, decoders, metrics, lifecycle, log, clock, neighbours.gate, tracing, [look_for_a_hung_run]
    )


async def _nothing() -> None:
    """Models in this process need no connection."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What stands behind the HTTP side: in the same process, or in one of its own.

    Attributes:
        versions: of each name what is behind it at the start, newest first.
        default: the name that answers requests which name none.
        speed: of the engine, patches a second.
        ledger: what is accepted and not yet answered.
        connect: is given the models, which it may change from then on; returns what loads them again.
        open: called before the first request.
        close: called after the last one, when every model is closed.
    """

    versions: Mapping[str, Sequence[Behind]]
    default: str
    speed: Speed
    ledger: Ledger
    connect: Callable[[Models], Reload]
    open: Callable[[], Awaitable[None]]
    close: Callable[[], Awaitable[None]]


def open_decoders(settings: Settings, metrics: Metrics, log: FilteringBoundLogger) -> Decoders:
    """Decoders of the settings, none of which is open yet."""
    return Decoders(settings, settings.decode_threads or usable_cores(), DecodeObserver(metrics, log))


def assemble_app(
    settings: Settings,
    backend: Backend,
    decoders: Decoders,
    metrics: Metrics,
    lifecycle: Lifecycle,
    log: FilteringBoundLogger,
    clock: Callable[[], float],
    gate: Gate | None,
    tracing: "Tracing | None",
    listeners: Sequence[Callable[[float], None]] = (),
) -> FastAPI:
    """The HTTP side in front of a backend, and behind a gate if there are API keys; it closes `tracing` at its end.

    `listeners` are told the time at every beat of the event loop.

    Raises:
        StartError: if the decoders do not start, or do not refuse what they must.
    """
    specs = [behind.model.manifest.preprocessing for versions in backend.versions.values() for behind in versions]
    check_decoder_limits(specs[0], settings.image_limits())
    # One image a lane: with less an overload would leave a lane idle.
    busy_patches = settings.lanes(usable_cores()) * max(spec.max_patches for spec in specs)
    admission = Admission(settings, decoders.threads, backend.speed, backend.ledger, busy_patches=busy_patches)
    lifecycle.require(decoders.able)
    pool = ThreadPoolExecutor(decoders.threads, thread_name_prefix="decode")
    pixels = PixelBudget(settings.max_pixels_in_flight)

    def open_pipeline(behind: Behind) -> tuple[Pipeline, BrownOut]:
        brown_out = open_brown_out(settings, behind.model)
        manifest = behind.model.manifest
        pipeline = Pipeline(
            manifest,
            settings.image_limits(),
            admission,
            behind.queue,
            behind.memory,
            pool,
            pixels,
            decoders.open(manifest.preprocessing),
            clock,
            decoders.observer,
            lambda: brown_out.max_patches,
            exact_decode=settings.exact_decode,
        )
        return pipeline, brown_out

    models = Models(backend.default, open_pipeline, settings.canary_interval_s)
    for name, versions in backend.versions.items():
        models.put(name, versions)
    reload = backend.connect(models)
    _watch(metrics, backend.ledger, models)

    def learn_wait(now_s: float) -> None:
        models.observe_wait(admission.engine_wait_s(), now_s)

    look_for_hung_decoders = partial(_end_without_decoders, decoders, lifecycle, log)
    heartbeat = Heartbeat(clock, metrics, log, [learn_wait, look_for_hung_decoders, *listeners])
    lifecycle.loop_turns = lambda: heartbeat.in_time
    accounts = Accounts(metrics, SlowLog(log, settings.slow_request_ms / 1000), clock)
    parts = (settings, models, admission, lifecycle, accounts, clock)
    classifier = Classifier(*parts)
    explainer = Explainer(*parts, Painter(settings, pool, pixels, decoders.open, clock))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with decoders.kept(), delivered(tracing):
            await backend.open()
            models.open()
            beating = asyncio.create_task(heartbeat.beat())
            lifecycle.advance(Phase.SERVING)
            yield
            lifecycle.advance(Phase.CLOSING)
            beating.cancel()
            await models.close()
            await backend.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def wrap(inner: ASGIApp) -> ASGIApp:
        app = guarded(ShortWay(inner, classifier), settings, gate, metrics, log)
        return Tracking(app, metrics, log, lifecycle, clock, tracing)

    app = _Service(wrap, lifespan, gate)
    app.state.metrics = metrics
    app.state.reload = reload
    app.state.models = models
    app.state.admission = admission
    app.state.door = AdmissionDoor(settings, admission, lifecycle, metrics, log, clock)
    install_handlers(app)
    inference = Inference(settings, models, admission, lifecycle, accounts, pool, clock)
    for router in (
        classify_router(classifier),
        embed_router(Embedder(*parts)),
        explain_router(explainer),
        information_router(models, lifecycle, metrics),
        page_router(),
        admin_router(reload),
        inference_router(models, lifecycle, inference),
    ):
        app.include_router(router)
    return app


def _end_without_decoders(decoders: Decoders, lifecycle: Lifecycle, log: FilteringBoundLogger, _: float) -> None:
    if decoders.lost() and not lifecycle.failed:
        log.error("decoders_lost", reason="no decode thread comes back: this process ends")
        lifecycle.fail(NotReady)


def _watch(metrics: Metrics, ledger: Ledger, models: Models) -> None:
    metrics.watch("queue_patches", "Patches accepted and not yet answered", lambda: ledger.all_queue_patches)
    metrics.watch("upload_bytes", "Uploads in memory and pictures not yet read, bytes", lambda: ledger.all_upload_bytes)
    metrics.watch("resident_bytes", "Resident memory of all processes of the service", resident_bytes)
    metrics.watch("brown_out_level", "Steps of fewer patches an image", models.brown_out_level)


class _Service(FastAPI):
    """FastAPI inside one more layer, outside of the layers that FastAPI itself adds, and perhaps behind a gate."""

    def __init__(
        self,
        wrap: Callable[[ASGIApp], ASGIApp],
        lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
        gate: Gate | None,
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
        self._gate = gate

    def openapi(self) -> dict[str, Any]:
        """The document, made once, with the keys that are needed."""
        is_new = self.openapi_schema is None
        document = super().openapi()
        if is_new and self._gate is not None:
            describe_keys(document, self._gate)
        return document

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


def open_brown_out(settings: Settings, model: Model) -> BrownOut:
    """The brown-out of this model; one that never acts if it is switched off or its cost is not known."""
    steps = steps_of(model.manifest, settings.brown_out_max_loss) if settings.brown_out else ()
    # Half of it is where steps begin: never above the wait that a crowd is left with, or they would not come at all.
    return BrownOut(steps, min(settings.brown_out_wait_ms / 1000, 1.5 * crowded_wait_s(settings)))
