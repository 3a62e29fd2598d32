"""Classification without a server: the same engine and the same preprocessing, one file after the other."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.headers import ImageError
from model.preprocess import preprocess
from service.batching import assemble
from service.engine import Engine
from service.errors import EngineError
from service.predictions import Prediction, name_best, rank
from service.settings import EngineSettings, ImageSettings


@dataclass(frozen=True, slots=True)
class FileResult:
    """One file: its best labels, or why there are none. Here the error may say everything: the file is the user's."""

    path: Path
    predictions: tuple[Prediction, ...] = ()
    grid: tuple[int, int] = (0, 0)
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        if self.error is not None:
            return {"file": str(self.path), "error": self.error}
        return {
            "file": str(self.path),
            "predictions": [asdict(prediction) for prediction in self.predictions],
            "patches": self.grid[0] * self.grid[1],
            "grid": list(self.grid),
        }


def classify_files(
    paths: Sequence[Path], *, model: Path | None = None, k: int = 5, max_patches: int | None = None
) -> list[FileResult]:
    """Classify files in order; one that fails does not stop the others.

    Raises:
        StartError: if the model cannot be used.
    """
    engine = Engine(EngineSettings(model=model, engine_lanes=1))
    return [_classify(path, engine, k, max_patches) for path in paths]


def render(results: Sequence[FileResult]) -> None:
    """Print a table of the files that have predictions."""
    from rich.console import Console  # noqa: PLC0415 - `--json` does not need it
    from rich.table import Table  # noqa: PLC0415

    table = Table("File", "Patches", "Label", "Score")
    for result in results:
        for place, prediction in enumerate(result.predictions):
            first = place == 0
            patches = str(result.grid[0] * result.grid[1])
            table.add_row(
                str(result.path) if first else "",
                patches if first else "",
                prediction.label,
                f"{prediction.score:.1%}",
                end_section=place == len(result.predictions) - 1,
            )
    if table.row_count:
        Console().print(table)


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
    predictions = name_best(rank(logits), manifest.labels, min(k, len(manifest.labels)))
    return FileResult(path, tuple(predictions), sequence.grid)
