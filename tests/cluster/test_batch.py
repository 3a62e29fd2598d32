"""`patchserve batch --ray` on a real local cluster; `make cluster-test` gives it a network of its own."""

import signal
import time
from pathlib import Path

import pytest
from commanded import start
from data_sets import pictures, read_facts, read_rows, write_folder, write_parquet, write_tar
from tiny_artifact import write_artifact

pytestmark = pytest.mark.cluster


def run(*arguments: str | Path) -> tuple[int, str]:
    with start("batch", *arguments) as process:
        _, err = process.communicate()
    return process.returncode, err


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_artifact(tmp_path / "tiny.onnx")


def test_the_rows_are_those_of_a_local_run(tmp_path: Path, artifact: Path) -> None:
    files = pictures(90) | {"9999.jpg": b"broken"}
    folder = write_folder(tmp_path / "photos", files)
    tar = write_tar(tmp_path / "a.tar", files)
    table = write_parquet(tmp_path / "a.parquet", list(files.values()))
    common = [folder, tar, table, "--model", artifact, "--part-images", "10", "--embeddings", "-k", "2"]
    assert run(*common, "-o", tmp_path / "local.parquet") == (0, "")
    ray = ["--ray", "--ray-actors", "2"]
    status, err = run(*common, "-o", tmp_path / "ray.parquet", *ray)
    assert status == 0, err
    assert read_rows(tmp_path / "ray.parquet") == read_rows(tmp_path / "local.parquet")
    assert read_facts(tmp_path / "ray.parquet") == read_facts(tmp_path / "local.parquet")
    assert read_facts(tmp_path / "ray.parquet")["errors"] == 3


def test_a_cluster_goes_on_where_a_killed_run_ended(tmp_path: Path, artifact: Path) -> None:
    folder = write_folder(tmp_path / "photos", pictures(2000))
    common = [folder, "--model", artifact, "--part-images", "20", "-o", tmp_path / "results.parquet"]
    parts = tmp_path / "results.parquet.partial"
    with start("batch", *common) as process:
        while len(list(parts.glob("part-*.parquet"))) < 3:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}
    assert 3 <= len(kept) < 100
    status, err = run(*common, "--ray")
    assert status == 0, err
    rows = read_rows(tmp_path / "results.parquet", "key", "label")
    assert [row["key"] for row in rows] == sorted(map(str, folder.iterdir()))
    assert all(row["key"].endswith(f"-{row['label']}.jpg") for row in rows)
