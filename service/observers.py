"""What happens inside becomes metrics, rates for admission, and log lines."""

from structlog.typing import FilteringBoundLogger

from service.admission import Admission
from service.metrics import Metrics
from service.scheduler import BatchReport, Fate, SchedulerObserver


class Observer(SchedulerObserver):
    """Told by the scheduler and by the pipeline."""

    def __init__(self, metrics: Metrics, admission: Admission, log: FilteringBoundLogger) -> None:
        self._metrics = metrics
        self._admission = admission
        self._log = log
        metrics.queue_patches.set_function(lambda: admission.queue_patches)
        metrics.upload_bytes.set_function(lambda: admission.upload_bytes)
        metrics.engine_patches_per_s.set_function(lambda: admission.engine_rate.per_s)

    def batch_ran(self, report: BatchReport) -> None:
        """Count it; a run that failed says nothing about speed."""
        self._metrics.batch_ran(report)
        if not report.failed:
            self._admission.engine_rate.observe(report.patches, report.seconds)

    def image_left(self, fate: Fate) -> None:
        """Count it."""
        self._metrics.image_left(fate)

    def engine_failed(self, error: Exception, images: int) -> None:
        """Log it."""
        self._log.error("engine_failed", images=images, exc_info=error)

    def decode_started(self) -> None:
        """Count it."""
        self._metrics.decode_inflight.inc()

    def decode_ended(self) -> None:
        """Count it."""
        self._metrics.decode_inflight.dec()

    def decoder_failed(self, error: BaseException) -> None:
        """Log it: preprocessing promised to raise nothing but ImageError."""
        self._log.error("decoder_failed", exc_info=error)
