"""Data sets as tables: a CSV list of paths and labels, or a Parquet file with the bytes of images.

path,label                        image: bytes, or {bytes, path} as Hugging Face writes it
cats/1.jpg,cat                    label: a text, or a number with names in the file's metadata
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.data import DataError, Entry

Labels = tuple[str, ...]
_IMAGE_COLUMNS = ("image", "img", "bytes", "image_bytes", "jpg", "png")
_LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label")


def csv_entries(path: Path, labels: Labels | None = None) -> tuple[Labels, list[Entry]]:
    """Images that a list names; its paths are relative to the folder of the list.

    Args:
        path: a CSV file with the columns path and label, in any order, among others.
        labels: classes in logit order; default those of the file, sorted.

    Raises:
        DataError: if the file cannot be read, lacks a column, or has a label that is not in `labels`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if not {"path", "label"} <= set(rows.fieldnames or ()):
                raise DataError(f"{path}: its first line must name the columns path and label")
            listed = [(str(row["path"] or ""), str(row["label"] or "")) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None
    names, targets = _numbered([label for _, label in listed], labels, path)
    return names, [Entry(name, target, path.parent / name) for (name, _), target in zip(listed, targets, strict=True)]


def parquet_entries(path: Path, labels: Labels | None = None) -> tuple[Labels, list[Entry]]:
    """Images in the rows of a Parquet file; all of them are in memory, as encoded bytes.

    Args:
        path: the file.
        labels: classes in logit order; default those of the file: named by its metadata, or sorted.

    Raises:
        DataError: if it cannot be read, pyarrow is missing, a column is, or a label is not in `labels`.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise DataError(f"{path}: reading it needs pyarrow: pip install 'patchserve[batch]'") from None
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    image, label = (_column(table.column_names, usual, path) for usual in (_IMAGE_COLUMNS, _LABEL_COLUMNS))
    declared = _declared(table.schema.metadata or {}, label)
    shown = [_name(value, declared) for value in table.column(label).to_pylist()]
    names, targets = _numbered(shown, labels or declared, path)
    cells = [_bytes(cell) for cell in table.column(image).to_pylist()]
    return names, [
        Entry(f"{path}, row {row}", target, cell) for row, (cell, target) in enumerate(zip(cells, targets, strict=True))
    ]


def _column(columns: Sequence[str], usual: Sequence[str], path: Path) -> str:
    for name in usual:
        if name in columns:
            return name
    raise DataError(f"{path}: has no column {' or '.join(usual)}, but {', '.join(columns)}")


def _declared(metadata: dict[bytes, bytes], column: str) -> Labels | None:
    """The names of classes that Hugging Face keeps in the schema."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return None


def _name(value: Any, declared: Labels | None) -> str:
    if declared is not None and isinstance(value, int) and 0 <= value < len(declared):
        return declared[value]
    return str(value)


def _bytes(cell: Any) -> bytes | None:
    found = cell.get("bytes") if isinstance(cell, dict) else cell
    return found if isinstance(found, bytes) else None


def _numbered(shown: Sequence[str], labels: Labels | None, path: Path) -> tuple[Labels, list[int]]:
    names = labels or tuple(sorted(set(shown)))
    index = {name: number for number, name in enumerate(names)}
    if unknown := sorted(set(shown) - index.keys()):
        raise DataError(f"{path}: the labels {unknown[:5]} are not among the {len(names)} known ones")
    return names, [index[name] for name in shown]
