"""Classification without a server: the same engine and the same preprocessing, one file after the other."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from model.headers import ImageError
from model.preprocess import preprocess
from service.batching import assemble
from service.calls.answers import Prediction
from service.commands.rows import FileResult
from service.engine import Engine
from service.errors import EngineError
from service.predictions import name_best, rank
from service.settings import EngineSettings, ImageSettings


def classify_files(
    paths: Sequence[Path], *, model: Path | None = None, k: int = 5, max_patches: int | None = None
) -> Iterator[FileResult]:
    """Classify files in order, each when its result is asked for; one that fails does not stop the others.

    Raises:
        StartError: if the model cannot be used.
    """
    engine = Engine(EngineSettings(model=model, engine_lanes=1))
    return (_classify(path, engine, k, max_patches) for path in paths)


def _classify(path: Path, engine: Engine, k: int, max_patches: int | None) -> FileResult:
    manifest = engine.model.manifest
    try:
        data = path.read_bytes()
        sequence = preprocess(data, manifest.preprocessing, ImageSettings().image_limits(), max_patches=max_patches)
        logits = engine.run(*assemble([sequence]))[0]
    except OSError as error:
        return FileResult(path, error=error.strerror or "cannot be read")
    except (ImageError, EngineError) as error:
        return FileResult(path, error=str(error))
    best = name_best(rank(logits), manifest.labels, min(k, len(manifest.labels)))
    return FileResult(path, tuple(Prediction(each.label, each.index, each.score) for each in best), sequence.grid)
