"""Tables of images: what is in them is read, holes are kept as holes, and what is missing is said."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_sets import picture

from model.data import DataError
from model.tables import csv_entries, parquet_entries


def write_table(path: Path, labels: pa.Array, *, names: list[str] | None = None, struct: bool = True) -> Path:
    images = [picture("red"), None, b"broken"][: len(labels)]
    cells = [{"bytes": data, "path": None} for data in images] if struct else images
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    table = pa.table({"image": pa.array(cells, kind), "label": labels})
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return path


def test_a_list_names_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text('﻿label,path,more\ndog,"a, b.jpg",1\ncat,deep/c.jpg,2\ndog,missing.jpg,3\n')
    (tmp_path / "a, b.jpg").write_bytes(b"one")
    labels, entries = csv_entries(tmp_path / "list.csv")
    assert labels == ("cat", "dog")
    assert [(entry.name, entry.target) for entry in entries] == [("a, b.jpg", 1), ("deep/c.jpg", 0), ("missing.jpg", 1)]
    assert entries[0].read() == b"one"
    with pytest.raises(OSError, match="No such file"):
        entries[2].read()
    assert csv_entries(tmp_path / "list.csv", ("dog", "cow", "cat"))[1][0].target == 0
    with pytest.raises(DataError, match=r"labels \['dog'\] are not among the 1 known ones"):
        csv_entries(tmp_path / "list.csv", ("cat",))


def test_a_list_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("a.jpg,dog\n")
    with pytest.raises(DataError, match="its first line must name the columns path and label"):
        csv_entries(tmp_path / "list.csv")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        csv_entries(tmp_path / "missing.csv")


@pytest.mark.parametrize("struct", [True, False])
def test_rows_of_parquet_are_images_and_holes(tmp_path: Path, struct: bool) -> None:
    path = write_table(tmp_path / "t.parquet", pa.array(["dog", "cat", "dog"]), struct=struct)
    labels, entries = parquet_entries(path)
    assert labels == ("cat", "dog")
    assert [entry.target for entry in entries] == [1, 0, 1]
    assert entries[0].read() == picture("red")
    assert entries[0].name == f"{path}, row 0"
    with pytest.raises(OSError, match="there is no image"):
        entries[1].read()


def test_numbers_are_named_by_the_metadata_of_hugging_face(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", pa.array([2, 0, 2]), names=["dog", "cow", "cat"])
    labels, entries = parquet_entries(path)
    assert labels == ("dog", "cow", "cat")
    assert [entry.target for entry in entries] == [2, 0, 2]


def test_a_wrong_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [b"x"], "label": [1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"has no column image or .*, but picture, label"):
        parquet_entries(tmp_path / "t.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        parquet_entries(tmp_path / "bad.parquet")
