"""The composition root: the one place that knows every part."""

import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger

from service.admission import Admission
from service.batching import BatchLimits
from service.classify import Classifier, classify_router
from service.engine import Engine
from service.errors import StartError
from service.lifecycle import Lifecycle, Phase
from service.logs import open_log, standard_error
from service.metrics import Metrics
from service.observers import Observer
from service.pipeline import Pipeline, warm_up_decoders
from service.problems import install_handlers
from service.routes import information_router
from service.runner import BatchRunner
from service.scheduler import Scheduler
from service.settings import Settings
from service.tracking import Tracking


def create_app(
    settings: Settings,
    *,
    engine: Engine | None = None,
    lifecycle: Lifecycle | None = None,
    log: FilteringBoundLogger | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Load the model and put the service together around it.

    Args:
        settings: everything that can be chosen.
        engine: by default the model of the settings, loaded here.
        lifecycle: written by a server that drains; by default nobody does.
        log: by default standard error.
        clock: monotonic, seconds.

    Raises:
        StartError: if the model, the provider or the settings cannot serve.
    """
    lifecycle = lifecycle or Lifecycle()
    log = log or open_log(settings, standard_error(), is_terminal=False)
    engine = engine or Engine(settings)
    _check_budgets(settings, engine)
    engine.warm_up()
    warm_up_decoders(engine.model.manifest.preprocessing, settings)

    metrics = Metrics()
    decode_threads = settings.decode_threads or os.cpu_count() or 1
    admission = Admission(settings, decode_threads)
    observer = Observer(metrics, admission, log)
    runner = BatchRunner(engine, clock)
    scheduler = Scheduler(runner.run, _batch_limits(settings, engine), clock, observer)
    pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
    pipeline = Pipeline(
        engine.model.manifest,
        settings.image_limits(),
        admission,
        scheduler,
        pool,
        clock,
        observer,
        exact_decode=settings.exact_decode,
    )
    classifier = Classifier(settings, engine.model, pipeline, admission, lifecycle, metrics, clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        lifecycle.advance(Phase.SERVING)
        yield
        lifecycle.advance(Phase.CLOSING)
        await scheduler.close()
        runner.close()
        pool.shutdown(wait=False, cancel_futures=True)

    app = _Service(lambda inner: Tracking(inner, metrics, log, lifecycle, clock), lifespan)
    app.state.metrics = metrics
    install_handlers(app)
    app.include_router(classify_router(classifier))
    app.include_router(information_router(engine.model, lifecycle, metrics))
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

    def build_middleware_stack(self) -> ASGIApp:
        return self._wrap(super().build_middleware_stack())


def _batch_limits(settings: Settings, engine: Engine) -> BatchLimits:
    return BatchLimits(
        settings.max_batch_patches,
        settings.max_batch_images,
        settings.batch_overhead_patches,
        engine.model.manifest.mixed_grids,
    )


def _check_budgets(settings: Settings, engine: Engine) -> None:
    """A request that could never be accepted is a wrong setting, not an overload."""
    if settings.default_timeout_ms > settings.max_timeout_ms:
        raise StartError(f"--default-timeout-ms is over --max-timeout-ms, {settings.max_timeout_ms}")
    needed = engine.model.manifest.preprocessing.max_patches
    for flag, value in (
        ("--max-batch-patches", settings.max_batch_patches),
        ("--max-queue-patches", settings.max_queue_patches),
    ):
        if value < needed:
            raise StartError(f"{flag} is {value}, but one image of this model may have {needed} patches")
