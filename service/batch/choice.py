"""How many processes of this machine share a data set, decided before anything is loaded."""

from service.artifacts import bundled_model
from service.batch.server import can_start
from service.cores import usable_cores
from service.errors import BatchError
from service.memory import usable_memory
from service.settings import Settings

_SHARE_OF_MEMORY = 0.5  # for all processes together
_PROCESS_BYTES = 250_000_000  # of one, without its model, whose file may be in memory twice


def choose_processes(settings: Settings, wanted: int | None, cores: int | None = None) -> int:
    """As many as are wanted; else one for each core, or 1 where that is of no use.

    Who has said how the engine or decoding is divided among threads gets just that.

    Args:
        settings: of the engine.
        wanted: None: chosen here.
        cores: that may be used; by default those of this machine.

    Raises:
        BatchError: if several are wanted, and cannot be.
    """
    if wanted is not None:
        return _checked(settings, wanted)
    divided = settings.engine_lanes or settings.engine_threads or settings.decode_threads
    if divided or settings.provider != "cpu" or not can_start():
        return 1
    cores = cores or usable_cores()
    each = _PROCESS_BYTES + 2 * _model_bytes(settings)
    return cores if cores * each <= _SHARE_OF_MEMORY * usable_memory() else 1


def _checked(settings: Settings, wanted: int) -> int:
    if wanted > 1 and settings.provider != "cpu":
        raise BatchError(
            f"--processes {wanted} needs --provider cpu: on a GPU each would hold the model once more and run smaller "
            "batches; leave it out"
        )
    if wanted > 1 and not can_start():
        raise BatchError(
            f"--processes {wanted} needs Linux or macOS, and a folder for temporary files (TMPDIR): leave it out"
        )
    return wanted


def _model_bytes(settings: Settings) -> int:
    """0 for what is no file: whoever opens it says why."""
    path = settings.model or bundled_model()
    return path.stat().st_size if path.is_file() else 0
