import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data_sets import (
    FACTS,
    picture,
    pictures,
    read_facts,
    read_rows,
    write_folder,
    write_parquet,
    write_tar,
)
from tiny_artifact import write_artifact

from service.engine import Engine
from service.offline import classify_files
from service.settings import EngineSettings

from .conftest import Run


def test_a_folder_becomes_a_row_for_each_image_in_order(batch: Run, output: Path, tmp_path: Path) -> None:
    files = {"b/blue.jpg": picture("blue"), "a/green.png": picture("green", kind="PNG"), "red.JPG": picture("red")}
    folder = write_folder(tmp_path / "photos", files | {"notes.md": b"x", ".hidden.jpg": b"x", ".git/x.jpg": b"x"})
    status, out, err = batch(folder, "--output", output)
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"{output}: 3 images, 0 with errors, in [\d.]+ s\n", out)
    rows = read_rows(output, "key", "label")
    assert [(row["key"], row["label"]) for row in rows] == [
        (f"{folder}/a/green.png", "green"),
        (f"{folder}/b/blue.jpg", "blue"),
        (f"{folder}/red.JPG", "red"),
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("results")] == ["results.parquet"]


def test_rows_say_what_classify_says(batch: Run, output: Path, tmp_path: Path, artifact: Path) -> None:
    folder = write_folder(tmp_path / "photos", pictures(7))
    batch(folder, "-o", output, "-k", "2", "--max-patches", "20")
    rows = read_rows(output)
    for row, alone in zip(
        rows, classify_files(sorted(folder.iterdir()), model=artifact, k=2, max_patches=20), strict=True
    ):
        assert row["labels"] == [each.label for each in alone.predictions]
        assert row["indices"] == [each.index for each in alone.predictions]
        assert row["scores"] == pytest.approx([each.score for each in alone.predictions], abs=1e-6)
        assert (row["label"], row["index"]) == (row["labels"][0], row["indices"][0])
        assert row["score"] == row["scores"][0]
        assert row["grid"] == list(alone.grid)
        assert row["patches"] == alone.grid[0] * alone.grid[1] <= 20
    assert [(row["width"], row["height"], row["format"]) for row in rows[:2]] == [(12, 20, "JPEG"), (20, 20, "JPEG")]


def test_every_form_of_the_same_images_has_the_same_rows(
    batch: Run, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = pictures(13) | {"9999.jpg": b"broken"}
    names = list(files)
    monkeypatch.chdir(write_folder(tmp_path / "photos", files))
    (tmp_path / "list.txt").write_text("\n".join([*names[:7], "", *names[7:]]))
    write_tar(tmp_path / "shard-00.tar", {name: files[name] for name in names[:4]})
    write_tar(tmp_path / "shard-01.tar", {name: files[name] for name in names[4:]})
    write_parquet(tmp_path / "structs.parquet", list(files.values()))
    write_parquet(tmp_path / "bytes.parquet", list(files.values()), struct=False)
    expected = None
    inputs = {
        "photos": str(tmp_path / "photos"),
        "list": str(tmp_path / "list.txt"),
        "braces": str(tmp_path / "shard-{00..01}.tar"),
        "wildcard": str(tmp_path / "shard-*.tar"),
        "structs": str(tmp_path / "structs.parquet"),
        "bytes": str(tmp_path / "bytes.parquet"),
    }
    for name, argument in inputs.items():
        result = tmp_path / f"{name}.parquet.out"
        status, _, err = batch(argument, "--output", result, "--part-images", "4")
        assert (status, err) == (0, ""), name
        rows = read_rows(result, *FACTS)
        assert len(rows) == 14
        expected = expected or rows
        assert rows == expected, name
    assert [row["key"] for row in read_rows(tmp_path / "list.parquet.out", "key")] == names
    assert read_rows(tmp_path / "wildcard.parquet.out", "key")[4]["key"] == f"{tmp_path / 'shard-01.tar'}:{names[4]}"
    assert read_rows(tmp_path / "bytes.parquet.out", "key")[13]["key"] == f"{tmp_path / 'bytes.parquet'}:13"


def test_bad_images_are_rows_with_a_code_and_the_public_sentence(batch: Run, output: Path, tmp_path: Path) -> None:
    files = {"a.jpg": picture(), "b.jpg": picture()[:-300], "c.gif": picture(kind="GIF"), "d.png": b""}
    folder = write_folder(tmp_path / "photos", files)
    (folder / "e.jpg").symlink_to("nowhere")
    (tmp_path / "list.txt").write_bytes(
        b"".join(os.fsencode(f"{folder / name}\n") for name in [*files, "e.jpg", "\udcff\0.jpg"])
    )
    list_of_names = tmp_path / "list.txt"
    assert batch(list_of_names, "-o", output)[0] == 0
    rows = read_rows(output)
    assert [row["error"] for row in rows] == [
        None,
        "invalid_image",
        "unsupported_media_type",
        "invalid_image",
        "unreadable",
        "unreadable",
    ]
    assert rows[1]["error_text"] == "The upload is empty, cut off, or cannot be decoded as an image."
    assert rows[4]["error_text"] == "The file cannot be read."
    assert {rows[1][name] for name in rows[1] if name not in {"key", "error", "error_text"}} == {None}
    assert read_facts(output)["errors"] == 5


def test_errors_can_be_made_a_failure(batch: Run, output: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", {"a.jpg": picture(), "b.jpg": b"x"})
    status, out, err = batch(folder, "-o", output, "--fail-on-error")
    assert (status, out.count("\n")) == (1, 1)
    assert err == f"patchserve: 1 of 2 images have errors, see the column error of {output}\n"
    assert len(read_rows(output)) == 2


def test_embeddings_are_those_of_the_model(batch: Run, output: Path, tmp_path: Path, artifact: Path) -> None:
    folder = write_folder(tmp_path / "photos", {"a.jpg": picture("green"), "b.jpg": b"x", "c.jpg": picture("blue")})
    assert batch(folder, "-o", output, "--embeddings")[0] == 0
    first, bad, last = read_rows(output, "embedding")
    assert first["embedding"] == pytest.approx(np.array([20, 220, 20]) / 255, abs=0.02)
    assert bad["embedding"] is None
    assert last["embedding"] == pytest.approx(np.array([20, 20, 220]) / 255, abs=0.02)
    assert len(first["embedding"]) == 3


def test_the_file_says_which_model_made_it(batch: Run, output: Path, tmp_path: Path, artifact: Path) -> None:
    batch(write_folder(tmp_path / "photos", pictures(2)), "-o", output, "-k", "1")
    facts = read_facts(output)
    digest = Engine(EngineSettings(model=artifact)).model.digest
    assert facts["model"] == {"name": "tiny-colours", "version": "1.0.0", "digest": digest}
    assert (facts["k"], facts["images"], facts["errors"], facts["embeddings"]) == (1, 2, 0, False)


def test_an_output_is_replaced_only_on_demand(batch: Run, output: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", pictures(2))
    output.write_text("precious")
    status, _, err = batch(folder, "-o", output)
    assert (status, err.count("\n")) == (1, 1)
    assert f"{output} exists: give --overwrite" in err
    assert output.read_text() == "precious"
    assert batch(folder, "-o", output, "--overwrite")[0] == 0
    assert len(read_rows(output)) == 2


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("empty/notes.md", b"x", "there is no image in {path}"),
        ("cut.parquet", b"PAR1" + bytes(90), "{path} is cut off or no Parquet file"),
        ("list.txt", b"\n\n", "there is no image in {path}"),
        ("photo.jpg", b"x", "{path} is none of a folder"),
        ("shard.tar.gz", b"x", "{path} is none of a folder"),
    ],
)
def test_an_input_without_images_is_one_line(
    name: str, content: bytes, line: str, batch: Run, output: Path, tmp_path: Path
) -> None:
    write_folder(tmp_path, {name: content})
    path = tmp_path / name.split("/", maxsplit=1)[0]
    status, out, err = batch(path, "-o", output)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"patchserve: {line.format(path=path)}")
    assert not list(tmp_path.glob("results*"))


def test_a_missing_input_is_one_line(batch: Run, output: Path) -> None:
    status, _, err = batch("nowhere-{0..2}.tar", "-o", output)
    assert (status, err.count("\n")) == (1, 1)
    assert "there is no nowhere-0.tar" in err


def test_an_output_without_a_folder_is_one_line(batch: Run, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", pictures(1))
    status, _, err = batch(folder, "-o", tmp_path / "nowhere" / "results.parquet")
    assert (status, err.count("\n")) == (1, 1)
    assert "results.parquet.partial cannot be written: No such file or directory" in err


def test_without_pyarrow_the_extra_is_named(
    batch: Run, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = batch(tmp_path, "-o", output)
    assert (status, err) == (1, "patchserve: patchserve batch needs the extra batch: pip install 'patchserve[batch]'\n")


def test_without_ray_the_extra_is_named(
    batch: Run, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = batch(tmp_path, "-o", output, "--ray")
    assert (status, err) == (1, "patchserve: --ray needs the extra cluster: pip install 'patchserve[cluster]'\n")


def test_a_cluster_that_does_not_start_is_one_line(
    batch: Run, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise Exception("The node timed out.\nLook into /tmp/ray.")  # noqa: TRY002 - as Ray does

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=fail))
    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace())
    status, _, err = batch(write_folder(tmp_path / "photos", pictures(1)), "-o", output, "--ray")
    assert (status, err.count("\n")) == (1, 1)
    assert "Ray does not start or answer (Look into /tmp/ray.): see RAY_ADDRESS" in err
    assert not list(tmp_path.glob("results*"))


def test_a_cluster_that_is_too_small_is_one_line(
    batch: Run, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut: list[bool] = []
    small = SimpleNamespace(
        init=lambda **_: None, cluster_resources=lambda: {"CPU": 2.0}, shutdown=lambda: shut.append(True)
    )
    monkeypatch.setitem(sys.modules, "ray", small)
    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace())
    folder = write_folder(tmp_path / "photos", pictures(1))
    status, _, err = batch(folder, "-o", output, "--ray", "--ray-actors", "3")
    assert (status, err.count("\n"), shut) == (1, 1, [True])
    assert "the cluster has 2 cores and 0 GPUs, too few for 3 engines of 1 and 0: see --ray-actors" in err


@pytest.mark.parametrize("address", ["", "ray-head:6379"])
def test_only_a_ray_of_its_own_is_kept_to_this_machine(
    address: str, batch: Run, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {}
    empty = SimpleNamespace(
        init=lambda **settings: told.update(settings), cluster_resources=dict[str, float], shutdown=lambda: None
    )
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setitem(sys.modules, "ray", empty)
    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace())
    batch(write_folder(tmp_path / "photos", pictures(1)), "-o", output, "--ray")
    assert told.get("_node_ip_address") == (None if address else "127.0.0.1")


def test_serving_loads_neither_pyarrow_nor_ray() -> None:
    code = "import sys, service.cli, service.server; sys.exit(bool({'pyarrow', 'ray'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_that_is_not_one_leaves_nothing_behind(
    output: Path, tmp_path: Path, batch: Run, artifact: Path
) -> None:
    folder = write_folder(tmp_path / "photos", pictures(1))
    before = artifact.read_bytes()
    try:
        write_artifact(artifact, None)
        status, _, err = batch(folder, "-o", output)
    finally:
        artifact.write_bytes(before)
    assert (status, err.count("\n")) == (1, 1)
    assert not list(tmp_path.glob("results*"))
