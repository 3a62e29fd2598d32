"""Every form of a data set gives the same images, and a broken one among them is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shades import COLOURS, write_colours

from model.data import DataError
from model.data_sets import encoded, load_data


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same images three times, the last one broken."""
    root = tmp_path_factory.mktemp("forms")
    folder = write_colours(root / "folder", 2)
    (folder / "red" / "z.png").write_bytes(b"broken")
    files = sorted(folder.rglob("*.png"))
    rows = [f"{path.relative_to(root)},{path.parent.name}" for path in files]
    (root / "list.csv").write_text("\n".join(["path,label", *rows]))
    table = pa.table({"image": [path.read_bytes() for path in files], "label": [path.parent.name for path in files]})
    pq.write_table(table, root / "table.parquet")
    return {"folder": folder, "list": root / "list.csv", "table": root / "table.parquet"}


@pytest.mark.parametrize("form", ["folder", "list", "table"])
def test_every_form_gives_the_same_images(forms: dict[str, Path], form: str) -> None:
    data, same = load_data(forms[form], "train", 16), load_data(forms["folder"], "train", 16)
    assert data.labels == tuple(sorted(COLOURS))
    assert data.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert np.array_equal(data.images, same.images)
    assert len(data.skipped) == 1
    assert ("row 6" if form == "table" else "z.png") in data.skipped[0]


def test_files_for_evaluation_are_those_of_the_set(forms: dict[str, Path]) -> None:
    labels, entries = encoded(forms["list"])
    assert labels == tuple(sorted(COLOURS))
    assert entries[-1].read() == b"broken"


def test_a_cropped_image_keeps_its_centre(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a").mkdir()
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "a" / "x.png")
    assert int(load_data(tmp_path, "train", 10, crop=True).images.min()) > 200
    assert int(load_data(tmp_path, "train", 10).images.min()) < 50


@pytest.mark.parametrize("name", ["nowhere", "photo.jpg"])
def test_what_is_no_data_set_says_what_one_is(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"no such data set; it must be a folder of class folders, a \.csv list"):
        load_data(tmp_path / name, "train", 8)
