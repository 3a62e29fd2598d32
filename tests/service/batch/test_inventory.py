import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from data_sets import pictures, write_folder, write_parquet, write_tar

from service.batch import listing
from service.batch.entries import UNREADABLE, Refusal
from service.batch.inputs import find_inputs
from service.batch.inventory import Inventory, write_inventory
from service.errors import BatchError

Write = Callable[..., Inventory]


@pytest.fixture
def inventory(tmp_path: Path) -> Write:
    (tmp_path / "scratch").mkdir()

    def write(*arguments: Path, part_images: int = 4, column: str | None = None) -> Inventory:
        inputs = find_inputs(list(map(str, arguments)))
        return write_inventory(inputs, tmp_path / "scratch", column, part_images, lambda _: None)

    return write


def contents(inventory: Inventory, *parts: int) -> list[bytes | Refusal]:
    return [entry.read() for entry in inventory.entries(parts)]


def test_parts_are_equal_whatever_lies_where(inventory: Write, tmp_path: Path) -> None:
    files = pictures(23)
    data = list(files.values())
    folder = write_folder(tmp_path / "photos", dict(list(files.items())[:5]))
    tar = write_tar(tmp_path / "a.tar", dict(list(files.items())[5:7]))
    table = write_parquet(tmp_path / "a.parquet", data[7:], rows=3)
    found = inventory(folder, tar, table)
    assert (found.images, found.parts, [found.size(part) for part in range(6)]) == (23, 6, [4, 4, 4, 4, 4, 3])
    assert contents(found, *range(6)) == data
    for part in range(6):
        assert contents(found, part) == data[4 * part : 4 * part + 4]
    assert contents(found, 1, 4, 5) == data[4:8] + data[16:]


def test_the_digest_is_that_of_the_list(inventory: Write, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", pictures(5))
    digest = inventory(folder).digest
    assert inventory(folder).digest == digest
    (folder / "0002-blue.jpg").rename(folder / "renamed.jpg")
    assert inventory(folder).digest != digest


@pytest.mark.parametrize("at_once", [2, 3, 100])
def test_more_names_than_fit_into_memory_are_sorted_all_the_same(
    at_once: int, inventory: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_RUN", at_once)
    names = ["b/1.jpg", "b/2.jpg", "a/ü.jpg", "a/line\nbreak.jpg", "z.jpg", "a/\udcff.jpg", "c/d/e/f.jpg", "0.jpg"]
    folder = write_folder(tmp_path / "photos", dict.fromkeys(names, b"x"))
    keys = [entry.key for entry in inventory(folder).entries([0, 1])]
    assert keys == [f"{folder}/{name}" for name in sorted(names)]
    assert not list((tmp_path / "scratch").glob("names-*"))


def test_links_to_folders_are_not_followed(inventory: Write, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", {"a.jpg": b"x"})
    (folder / "circle").symlink_to(folder)
    assert inventory(folder).images == 1


def test_a_folder_that_cannot_be_read_is_one_line(
    inventory: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(BatchError, match=f"{tmp_path} cannot be read: Permission denied"):
        inventory(tmp_path)


def test_a_tar_that_is_cut_off_has_a_row_for_what_is_lost(inventory: Write, tmp_path: Path) -> None:
    files = {f"{number}.jpg": bytes(5000) for number in range(4)}
    tar = write_tar(tmp_path / "a.tar", files)
    with tarfile.open(tar) as whole:
        offset = whole.getmember("2.jpg").offset_data
    tar.write_bytes(tar.read_bytes()[: offset + 100])
    found = inventory(tar)
    assert [entry.key.removeprefix(f"{tar}") for entry in found.entries([0])] == [":0.jpg", ":1.jpg", ":2.jpg", ""]
    assert contents(found, 0) == [bytes(5000), bytes(5000), bytes(100), UNREADABLE]


def test_a_broken_header_has_a_row_for_what_is_lost(inventory: Write, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", pictures(3))
    with tarfile.open(tar) as whole:
        offset = whole.getmember("0002-blue.jpg").offset
    content = bytearray(tar.read_bytes())
    content[offset : offset + 512] = b"\xff" * 512
    tar.write_bytes(content)
    entries = list(inventory(tar).entries([0]))
    assert [entry.key for entry in entries] == [f"{tar}:0000-red.jpg", f"{tar}:0001-green.jpg", str(tar)]
    assert entries[2].read() == UNREADABLE


def test_what_is_no_tar_is_one_row(inventory: Write, tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    tar.write_bytes(b"x" * 1000)
    assert [(entry.key, entry.read()) for entry in inventory(tar).entries([0])] == [(str(tar), UNREADABLE)]


def test_a_broken_page_costs_its_row_group_alone(inventory: Write, tmp_path: Path) -> None:
    images = [bytes([number]) * 3000 for number in range(9)]
    table = write_parquet(tmp_path / "a.parquet", images, struct=False, rows=3)
    chunk = pq.read_metadata(table).row_group(1).column(1)
    content = bytearray(table.read_bytes())
    place = chunk.dictionary_page_offset or chunk.data_page_offset
    content[place : place + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    table.write_bytes(content)
    read = contents(inventory(table), 0, 1, 2)
    assert read[:3] == images[:3]
    assert read[6:] == images[6:]
    assert read[3:6] != images[3:6]


def test_missing_cells_are_unreadable(inventory: Write, tmp_path: Path) -> None:
    for struct in (True, False):
        table = write_parquet(tmp_path / "a.parquet", [b"a", None, b"c"], struct=struct)
        assert contents(inventory(table), 0) == [b"a", UNREADABLE, b"c"]


def test_the_column_is_named_where_it_cannot_be_guessed(inventory: Write, tmp_path: Path) -> None:
    table = write_parquet(tmp_path / "a.parquet", [b"a"])
    assert inventory(table, column="image").images == 1
    with pytest.raises(BatchError, match=r"no column label of images: name one with --column.+suitable here: image"):
        inventory(table, column="label")


def test_a_file_over_the_limit_is_not_read(inventory: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batch.entries._MOST_BYTES", 10)
    folder = write_folder(tmp_path / "photos", {"a.jpg": bytes(11), "b.jpg": bytes(10)})
    [large, small] = contents(inventory(folder), 0)
    assert isinstance(large, Refusal)
    assert large.code == "file_too_large"
    assert small == bytes(10)
