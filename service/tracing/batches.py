"""Between the queue of one model and whoever is told about it: every run becomes a span as well."""

from typing import TYPE_CHECKING

from service.engine import Model
from service.errors import DeviceLostError
from service.scheduler import BatchReport, Fate, SchedulerObserver

if TYPE_CHECKING:
    from service.tracing.spans import Tracing


class BatchSpans(SchedulerObserver):
    """Passes everything on.

    Args:
        observer: of all models.
        tracing: makes the spans.
        model: whose queue it is.
    """

    def __init__(self, observer: SchedulerObserver, tracing: "Tracing", model: Model) -> None:
        self._observer = observer
        self._tracing = tracing
        self._model = model

    def batch_ran(self, report: BatchReport) -> None:
        """Pass it on, and make a span of it."""
        self._observer.batch_ran(report)
        self._tracing.batch_ran(self._model, report)

    def image_left(self, fate: Fate) -> None:
        """Pass it on."""
        self._observer.image_left(fate)

    def engine_failed(self, error: Exception, images: int) -> None:
        """Pass it on."""
        self._observer.engine_failed(error, images)

    def device_lost(self, error: DeviceLostError) -> None:
        """Pass it on."""
        self._observer.device_lost(error)

    def batches_limited(self, max_batch_patches: int) -> None:
        """Pass it on."""
        self._observer.batches_limited(max_batch_patches)
