"""One row a file, and how rows are written: a table for people; JSON, JSON lines and CSV for programs."""

import csv
import enum
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from service.calls.answers import Prediction


@dataclass(frozen=True, slots=True)
class FileResult:
    """One file: its best labels, or why there are none. Here the error may say everything: the file is the user's."""

    path: Path
    predictions: tuple[Prediction, ...] = ()
    grid: tuple[int, int] = (0, 0)
    degraded: bool = False
    error: str | None = None

    @property
    def patches(self) -> int:
        """What the image was cut into."""
        return self.grid[0] * self.grid[1]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        if self.error is not None:
            return {"file": str(self.path), "error": self.error}
        return {
            "file": str(self.path),
            "predictions": [asdict(prediction) for prediction in self.predictions],
            "patches": self.patches,
            "grid": list(self.grid),
            "degraded": self.degraded,
        }


class RowFormat(enum.StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"

    @property
    def streams(self) -> bool:
        """Whether a row is written as soon as it is there."""
        return self in {RowFormat.JSONL, RowFormat.CSV}


class RowWriter(Protocol):
    """Writes rows to standard output."""

    def write(self, row: FileResult) -> None:
        """One more."""

    def close(self) -> None:
        """That was the last one."""


def open_writer(chosen: RowFormat) -> RowWriter:
    """The writer of a format."""
    writers: dict[RowFormat, type[RowWriter]] = {
        RowFormat.TABLE: _Table,
        RowFormat.JSON: _Json,
        RowFormat.JSONL: _JsonLines,
        RowFormat.CSV: _Csv,
    }
    return writers[chosen]()


class _Table(RowWriter):
    """Columns fit their content, so it is drawn at the end."""

    def __init__(self) -> None:
        self._rows: list[FileResult] = []

    def write(self, row: FileResult) -> None:
        self._rows.append(row)

    def close(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - the other formats do not need it
        from rich.table import Column, Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        file, label = (Column(name, overflow="fold") for name in ("File", "Label"))  # never cut
        table = Table(file, "Patches", label, "Score")
        for row in self._rows:
            for place, prediction in enumerate(row.predictions):
                first = place == 0
                table.add_row(
                    Text(str(row.path)) if first else "",  # not markup: a file may be called [red]
                    str(row.patches) if first else "",
                    Text(prediction.label),
                    f"{prediction.score:.1%}",
                    end_section=place == len(row.predictions) - 1,
                )
        if table.row_count:
            Console().print(table)


class _Json(RowWriter):
    """One document."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def write(self, row: FileResult) -> None:
        self._rows.append(row.to_dict())

    def close(self) -> None:
        print(json.dumps(self._rows, indent=2))  # noqa: T201


class _JsonLines(RowWriter):
    """One document a line."""

    def write(self, row: FileResult) -> None:
        print(json.dumps(row.to_dict()), flush=True)  # noqa: T201

    def close(self) -> None:
        """Nothing is left."""


class _Csv(RowWriter):
    """One line a label, for spreadsheets; a file without an answer has one line with its error."""

    def __init__(self) -> None:
        self._lines = csv.writer(sys.stdout, lineterminator="\n")
        self._lines.writerow(["file", "place", "label", "index", "score", "patches", "degraded", "error"])

    def write(self, row: FileResult) -> None:
        name, degraded = str(row.path), str(row.degraded).lower()
        if row.error is not None:
            self._lines.writerow([name, "", "", "", "", "", "", row.error])
        for place, each in enumerate(row.predictions, 1):
            self._lines.writerow([name, place, each.label, each.index, each.score, row.patches, degraded, ""])
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is left."""
