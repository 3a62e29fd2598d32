"""Runs of several processes: each in a process of its own, as killing and signals want it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commanded import start
from data_sets import pictures, read_rows, write_folder, write_parquet, write_tar

from benchmarks.served import family

from .conftest import Run

IMAGES = 1500
PART = 32


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of many images, too many to be classified while one looks away."""
    folder = tmp_path_factory.mktemp("many")
    names = sorted(str(path) for path in write_folder(folder, pictures(30)).glob("*.jpg"))
    (folder / "list.txt").write_text("".join(f"{names[number % 30]}\n" for number in range(IMAGES)))
    return folder / "list.txt"


def children(pid: int) -> list[int]:
    """All processes below one."""
    return family(pid)[1:]


def engines(pid: int) -> list[int]:
    """Those that are forked from the server, which is a child of the command itself."""
    return [each for child in children(pid) for each in children(child)]


def finished(output: Path) -> set[Path]:
    return set(output.with_name(f"{output.name}.partial").glob("part-*.parquet"))


def wait_until(true: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + 60
    while not true():
        assert time.monotonic() < ends_s
        time.sleep(0.01)


@contextmanager
def begun(artifact: Path, many: Path, output: Path) -> Iterator["subprocess.Popen[str]"]:
    """A run of two processes that has finished a few of its parts and not all."""
    options = ["--model", artifact, "--part-images", str(PART), "--processes", "2"]
    with start("batch", many, "-o", output, *options) as process:
        wait_until(lambda: len(finished(output)) >= 3 or process.poll() is not None)
        assert process.poll() is None, process.stderr and process.stderr.read()
        yield process


def go_on(batch: Run, many: Path, output: Path) -> None:
    """The same command: what is finished stays, and each image has its row, in order."""
    kept = {path: path.stat().st_mtime_ns for path in finished(output)}
    assert 3 <= len(kept) < -(-IMAGES // PART)
    assert not output.exists()
    copies = output.with_name("kept")
    copies.mkdir()
    for path in kept:
        os.link(path, copies / path.name)
    assert batch(many, "-o", output, "--part-images", str(PART))[0] == 0
    assert {path: (copies / path.name).stat().st_mtime_ns for path in kept} == kept
    rows = read_rows(output, "key", "label")
    assert [row["key"] for row in rows] == many.read_text().splitlines()
    assert all(row["key"].endswith(f"-{row['label']}.jpg") for row in rows)


def test_the_rows_are_those_of_one_process(artifact: Path, output: Path, tmp_path: Path, batch: Run) -> None:
    files = pictures(40) | {"9999.jpg": b"broken"}
    folder = write_folder(tmp_path / "photos", files)
    (tmp_path / "list.txt").write_text("".join(f"{folder}/{name}\n" for name in [*files, "nowhere.jpg"]))
    tar = write_tar(tmp_path / "a.tar", files)
    table = write_parquet(tmp_path / "a.parquet", list(files.values()), rows=16)
    options = ["--part-images", "7", "--embeddings", "-k", "2"]
    inputs = [folder, tmp_path / "list.txt", tar, table]
    assert batch(*inputs, "-o", output, *options)[0] == 0
    other = tmp_path / "other.parquet"
    with start("batch", *inputs, "-o", other, *options, "--model", artifact, "--processes", "3") as process:
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.startswith(f"{other}: 165 images, 5 with errors, in ")
    assert pq.read_table(other).equals(pq.read_table(output))
    assert pq.read_metadata(other).metadata[b"patchserve"] == pq.read_metadata(output).metadata[b"patchserve"]


def test_a_killed_command_leaves_no_process_and_the_same_goes_on(
    artifact: Path, many: Path, output: Path, batch: Run
) -> None:
    with begun(artifact, many, output) as process:
        all_of_them = children(process.pid)
        assert len(engines(process.pid)) == 2
        process.kill()
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in all_of_them))
    go_on(batch, many, output)


def test_a_killed_engine_ends_the_run_with_one_line_and_the_same_goes_on(
    artifact: Path, many: Path, output: Path, batch: Run
) -> None:
    with begun(artifact, many, output) as process:
        all_of_them = children(process.pid)
        os.kill(engines(process.pid)[0], signal.SIGKILL)
        _, err = process.communicate()
    assert process.returncode == 1
    assert err == (
        "patchserve: a process of this run has ended (SIGKILL; out of memory?): the same command goes on from the last "
        "finished part, with --processes 1 in less memory\n"
    )
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in all_of_them))
    go_on(batch, many, output)


def test_a_signal_to_all_processes_finishes_the_parts_under_way(
    artifact: Path, many: Path, output: Path, batch: Run
) -> None:
    with begun(artifact, many, output) as process:
        for each in [*children(process.pid), process.pid]:
            os.kill(each, signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    done = len(finished(output)) * PART
    assert err.splitlines() == [
        "patchserve: finishing the part under way; once more to stop at once",
        f"patchserve: stopped; the same command goes on where this one ended; {done} of {IMAGES} images are done",
    ]
    go_on(batch, many, output)


def test_a_full_disk_is_one_line(artifact: Path, many: Path, output: Path) -> None:
    folder = output.with_name("results.parquet.partial")
    folder.mkdir()
    (folder / "part-000002.partial").symlink_to("/dev/full")
    with start(
        "batch", many, "-o", output, "--model", artifact, "--part-images", str(PART), "--processes", "2"
    ) as process:
        _, err = process.communicate()
    assert (process.returncode, err.count("\n")) == (1, 1)
    assert "cannot be written: No space left on device; once that is mended, the same command goes on" in err


def test_processes_and_ray_exclude_each_other(batch: Run, output: Path, tmp_path: Path) -> None:
    status, _, err = batch(tmp_path, "-o", output, "--processes", "2", "--ray")
    assert (status, err.count("\n")) == (1, 1)
    assert "--processes and --ray exclude each other" in err
