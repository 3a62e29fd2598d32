"""Rows as Parquet: a file for each finished part, and at the end one file of them all. `D` width of the embedding."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.batch.classifier import Row
from service.predictions import name_best

METADATA_KEY = "patchserve"
_ROWS_OF_A_GROUP = 8192  # of the whole file; with an embedding of 768 numbers that is 25 MB


def schema_of(embedding_width: int | None) -> pa.Schema:
    """The columns. Of an image with an error all but `key`, `error` and `error_text` are null.

    Args:
        embedding_width: D; None: no such column.
    """
    fields = [
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("index", pa.int32()),
        pa.field("score", pa.float32()),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("indices", pa.list_(pa.int32())),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("patches", pa.int32()),
        pa.field("grid", pa.list_(pa.int32())),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),
        pa.field("error", pa.string()),
        pa.field("error_text", pa.string()),
    ]
    if embedding_width is not None:
        fields.append(pa.field("embedding", pa.list_(pa.float32(), embedding_width)))
    return pa.schema(fields)


def table_of(rows: Sequence[Row], labels: tuple[str, ...], k: int, schema: pa.Schema) -> pa.Table:
    """Rows with the `k` best labels each; names that are no UTF-8 have question marks where they are not."""
    table = pa.Table.from_pylist([_values(row, labels, k) for row in rows], schema=_without_embedding(schema))
    if "embedding" not in schema.names:
        return table
    kind = schema.field("embedding").type
    return table.append_column(schema.field("embedding"), _embeddings(rows, kind))


def save_part(table: pa.Table, path: Path) -> None:
    """Write a file that is whole or not there, whatever happens meanwhile.

    Raises:
        OSError: if the disk is full or fails.
    """
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(buffer.getvalue())
        _keep(file)
    partial.replace(path)


def merge(parts: Sequence[Path], path: Path, facts: Mapping[str, Any]) -> int:
    """Write all parts into one file, whole or not there; the number of rows with an error.

    Args:
        parts: in order, at least one; all have the same columns.
        path: of the file.
        facts: go into the metadata of the file as JSON, under `METADATA_KEY`, with the number of errors.

    Raises:
        OSError: if the disk is full or fails.
    """
    errors = 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, pq.read_schema(parts[0]), compression="zstd") as writer:
            for table in _groups(parts):
                errors += len(table) - table.column("error").null_count
                writer.write_table(table, row_group_size=_ROWS_OF_A_GROUP)
            writer.add_key_value_metadata({METADATA_KEY: json.dumps({**facts, "errors": errors})})
        _keep(file)
    return errors


def _groups(parts: Iterable[Path]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for path in parts:
        held.append(pq.read_table(path, memory_map=False))
        if sum(map(len, held)) >= _ROWS_OF_A_GROUP:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _keep(file: Any) -> None:
    """Past the caches of the system."""
    file.flush()
    os.fsync(file.fileno())


def _values(row: Row, labels: tuple[str, ...], k: int) -> dict[str, Any]:
    key = row.key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if row.image is None or row.ranking is None:
        code, text = (row.refusal.code, row.refusal.sentence) if row.refusal else (None, None)
        return {"key": key, "error": code, "error_text": text}
    best = name_best(row.ranking, labels, k)
    first = {"label": best[0].label, "index": best[0].index, "score": best[0].score} if best else {}
    lists = {
        "labels": [each.label for each in best],
        "indices": [each.index for each in best],
        "scores": [each.score for each in best],
    }
    rows, columns = row.image.grid
    facts = {"width": row.image.width, "height": row.image.height, "format": row.image.format}
    return {"key": key, **first, **lists, "patches": rows * columns, "grid": [rows, columns], **facts}


def _without_embedding(schema: pa.Schema) -> pa.Schema:
    place = schema.get_field_index("embedding")
    return schema if place < 0 else schema.remove(place)


def _embeddings(rows: Sequence[Row], kind: Any) -> pa.Array:
    blank = np.zeros(kind.list_size, np.float32)
    values = np.stack([blank if row.embedding is None else row.embedding for row in rows])
    missing = pa.array([row.embedding is None for row in rows])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=kind, mask=missing)
