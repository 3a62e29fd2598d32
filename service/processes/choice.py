"""How many replicas a service has that shall choose itself: decided before anything is loaded, by what the model costs.

Standard library only: NumPy would start threads here, and what comes next forks.
"""

import sys
from pathlib import Path

from model.manifest import METADATA_KEY, Manifest, ManifestError
from service.artifacts import model_files
from service.onnx_file import metadata_of
from service.settings import Settings

# Bytes of the file times patches of an image, for every patch meets every weight. The bundled model has 135 million and
# takes one thread 2.3 ms, ViT-Ti/16 has 4,500 million and takes 26 (docs/performance/replicas.md).
_MOST_WORK = 300_000_000
_MOST_REPLICAS = 8


def choose_replicas(settings: Settings, cores: int) -> int:
    """As many as the settings say; else one for each core if all models are small, and 1 if not.

    Who has said how HTTP or the engine is divided among processes or threads gets just that.

    Args:
        settings: everything that can be chosen.
        cores: that may be used.

    Raises:
        StartError: if there is no model.
    """
    if settings.replicas:
        return settings.replicas
    divided = settings.http_workers or settings.engine_lanes or settings.engine_threads
    if divided or settings.provider != "cpu" or sys.platform != "linux":
        return 1
    return min(cores, _MOST_REPLICAS) if all(map(_is_small, model_files(settings))) else 1


def _is_small(path: Path) -> bool:
    """False too for what is no artifact: whoever opens it says why."""
    try:
        content = path.read_bytes() if path.stat().st_size < _MOST_WORK else b""
        preprocessing = Manifest.from_json(metadata_of(content, METADATA_KEY) or "").preprocessing
    except (OSError, ManifestError):
        return False
    return len(content) * preprocessing.native_patches < _MOST_WORK
