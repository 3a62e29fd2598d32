"""Small data sets in every form that `patchserve batch` reads."""

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
FACTS = ("label", "patches", "grid", "width", "height", "format", "error")


def picture(colour: str = "red", size: tuple[int, int] = (28, 28), kind: str = "JPEG") -> bytes:
    """An image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(file, kind)
    return file.getvalue()


def pictures(count: int) -> dict[str, bytes]:
    """Images of all colours in several sizes, by name; the names are in order."""
    names = list(COLOURS)
    return {
        f"{number:04}-{names[number % 3]}.jpg": picture(names[number % 3], (12 + 8 * (number % 5), 20))
        for number in range(count)
    }


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A shard as WebDataset has it: each image with a file of facts beside it."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            for member, content in ((name, data), (name.replace(".jpg", ".json"), b"{}")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def write_parquet(path: Path, images: Sequence[bytes | None], *, struct: bool = True, rows: int = 5) -> Path:
    """A file as Hugging Face writes it, or with plain bytes; `rows` in a row group."""
    cells: list[Any] = [data if not struct or data is None else {"bytes": data, "path": "x.jpg"} for data in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    table = pa.table({"label": list(range(len(cells))), "image": pa.array(cells, kind)})
    pq.write_table(table, path, row_group_size=rows)
    return path


def read_rows(path: Path, *columns: str) -> list[dict[str, Any]]:
    """The rows of a result."""
    rows: list[dict[str, Any]] = pq.read_table(path, columns=list(columns) or None).to_pylist()
    return rows


def read_facts(path: Path) -> dict[str, Any]:
    """What a result says of itself."""
    facts: dict[str, Any] = json.loads(pq.read_metadata(path).metadata[b"patchserve"])
    return facts
