"""What happens inside becomes metrics, rates for admission, and log lines."""

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from service.admission import Rate
from service.errors import DeviceLostError
from service.metrics import Metrics
from service.scheduler import BatchReport, Fate, SchedulerObserver


class EngineObserver(SchedulerObserver):
    """Told by the scheduler and the canary.

    Args:
        metrics: where runs are counted.
        rate: learns patches a second.
        log: where failures are described.
        lost: called when the device, or the model, fails for good.
    """

    def __init__(
        self, metrics: Metrics, rate: Rate, log: FilteringBoundLogger, lost: Callable[[DeviceLostError], None]
    ) -> None:
        self._metrics = metrics
        self._rate = rate
        self._log = log
        self._lost = lost

    def batch_ran(self, report: BatchReport) -> None:
        """Count it; a run that failed says nothing about speed."""
        self._metrics.batch_ran(report)
        if not report.failed:
            self._rate.observe(report.patches, report.seconds)

    def image_left(self, fate: Fate) -> None:
        """Count it."""
        self._metrics.image_left(fate)

    def engine_failed(self, error: Exception, images: int) -> None:
        """Log it."""
        self._log.error("engine_failed", images=images, exc_info=error)

    def device_lost(self, error: DeviceLostError) -> None:
        """Log it, and let whoever can end the process know."""
        self._log.error("device_lost", reason=str(error))
        self._lost(error)

    def batches_limited(self, max_batch_patches: int) -> None:
        """Log it."""
        self._log.warning("batches_limited", max_batch_patches=max_batch_patches)


class DecodeObserver:
    """Told by the pipeline."""

    def __init__(self, metrics: Metrics, log: FilteringBoundLogger) -> None:
        self._metrics = metrics
        self._log = log

    def decode_started(self) -> None:
        """Count it."""
        self._metrics.decode_inflight.inc()

    def decode_ended(self) -> None:
        """Count it."""
        self._metrics.decode_inflight.dec()

    def decoder_failed(self, error: BaseException) -> None:
        """Log it: decoding promised to raise nothing but ImageError."""
        self._log.error("decoder_failed", exc_info=error)

    def worker_ready(self) -> None:
        """Count it."""
        self._metrics.decode_workers.inc()

    def worker_lost(self, loss: str, status: int) -> None:
        """Count and log it."""
        self._metrics.decode_workers.dec()
        self._metrics.decode_workers_lost.labels(loss).inc()
        self._log.warning("decode_worker_lost", reason=loss, status=status)

    def worker_not_started(self, reason: str) -> None:
        """Log it."""
        self._log.error("decode_worker_not_started", reason=reason)

    def threads_hung(self, count: int) -> None:
        """Show and log it."""
        self._metrics.decode_threads_hung.set(count)
        self._log.error("decode_threads_hung", threads=count)
