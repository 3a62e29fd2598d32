import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commanded import start
from data_sets import FACTS, pictures, read_rows, write_folder
from tiny_artifact import renamed, write_artifact

from service.batch import worker

from .conftest import Run

IMAGES = 3000
PART = 32
PARTS = -(-IMAGES // PART)

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of many images, too many to be classified while one looks away."""
    folder = tmp_path_factory.mktemp("many")
    write_folder(folder, pictures(30))
    names = sorted(str(path) for path in folder.glob("*.jpg"))
    (folder / "list.txt").write_text("".join(f"{names[number % 30]}\n" for number in range(IMAGES)))
    return folder / "list.txt"


@contextmanager
def begun(artifact: Path, many: Path, output: Path) -> Iterator["subprocess.Popen[str]"]:
    """A run that has finished a few of its parts and not all."""
    options = ["--model", artifact, "--part-images", str(PART), "--processes", "1"]
    process = start("batch", many, "-o", output, *options)
    with process:
        while len(finished(output)) < 3:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.002)
        yield process


def finished(output: Path) -> set[str]:
    return {path.name for path in output.with_name(f"{output.name}.partial").glob("part-*.parquet")}


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts that are written in this process."""
    names: list[str] = []
    save = worker.save_part

    def note(table: object, path: Path) -> None:
        names.append(path.name)
        save(table, path)

    monkeypatch.setattr(worker, "save_part", note)
    return names


def check_rows(output: Path, many: Path) -> None:
    """Each image once, in order, with its own label."""
    rows = read_rows(output, "key", *FACTS)
    assert [row["key"] for row in rows] == many.read_text().splitlines()
    assert all(row["key"].endswith(f"-{row['label']}.jpg") for row in rows)


def test_a_killed_run_goes_on_with_what_is_missing(
    artifact: Path, many: Path, output: Path, batch: Run, saved: list[str]
) -> None:
    with begun(artifact, many, output) as process:
        process.kill()
    kept = finished(output)
    assert 3 <= len(kept) < PARTS
    assert not output.exists()
    assert batch(many, "-o", output, "--part-images", str(PART))[0] == 0
    assert len(saved) == len(set(saved)) == PARTS - len(kept)
    assert not kept & set(saved)
    check_rows(output, many)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_part_under_way(
    number: signal.Signals, status: int, artifact: Path, many: Path, output: Path, batch: Run, saved: list[str]
) -> None:
    with begun(artifact, many, output) as process:
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == status
    kept = len(finished(output))
    done = f"stopped; the same command goes on where this one ended; {kept * PART} of {IMAGES} images are done"
    assert err.splitlines() == [
        "patchserve: finishing the part under way; once more to stop at once",
        f"patchserve: {done}",
    ]
    assert 3 <= kept < PARTS
    assert batch(many, "-o", output, "--part-images", str(PART))[0] == 0
    assert len(saved) == PARTS - kept
    check_rows(output, many)


@pytest.fixture
def stopped(artifact: Path, many: Path, output: Path) -> Path:
    with begun(artifact, many, output) as process:
        process.send_signal(signal.SIGINT)
        process.communicate()
    return many


@pytest.mark.parametrize(
    ("option", "name"), [("--k=1", "--k"), ("--max-patches=9", "--max-patches"), ("--embeddings", "--embeddings")]
)
def test_other_options_are_refused(option: str, name: str, stopped: Path, output: Path, batch: Run) -> None:
    status, _, err = batch(stopped, "-o", output, "--part-images", str(PART), option)
    assert (status, err.count("\n")) == (1, 1)
    assert f"holds parts of a run with other {name}: give --restart" in err


def test_other_inputs_are_refused_until_a_restart(
    stopped: Path, output: Path, batch: Run, saved: list[str], tmp_path: Path
) -> None:
    changed = tmp_path / "list.txt"
    changed.write_text("\n".join(stopped.read_text().splitlines()[:100]))
    status, _, err = batch(changed, "-o", output, "--part-images", str(PART))
    assert (status, err.count("\n")) == (1, 1)
    assert "holds parts of a run with other inputs" in err
    assert batch(changed, "-o", output, "--part-images", str(PART), "--restart")[0] == 0
    assert len(saved) == 4
    check_rows(output, changed)


def test_another_model_is_refused(stopped: Path, output: Path, batch: Run, artifact: Path) -> None:
    before = artifact.read_bytes()
    try:
        write_artifact(artifact, renamed(version="2"))
        status, _, err = batch(stopped, "-o", output, "--part-images", str(PART))
    finally:
        artifact.write_bytes(before)
    assert (status, err.count("\n")) == (1, 1)
    assert "with other model: give --restart" in err


def test_a_full_disk_is_one_line_and_loses_nothing(many: Path, output: Path, batch: Run, saved: list[str]) -> None:
    folder = output.with_name("results.parquet.partial")
    folder.mkdir()
    (folder / "part-000002.partial").symlink_to("/dev/full")
    status, _, err = batch(many, "-o", output, "--part-images", str(PART))
    assert (status, err.count("\n")) == (1, 1)
    assert f"{folder} cannot be written: No space left on device; once that is mended, the same command goes on" in err
    assert finished(output) == {"part-000000.parquet", "part-000001.parquet"}
    (folder / "part-000002.partial").unlink()
    saved.clear()
    assert batch(many, "-o", output, "--part-images", str(PART))[0] == 0
    assert len(saved) == PARTS - 2
    check_rows(output, many)


def test_a_disk_that_is_full_at_the_end_loses_nothing(many: Path, output: Path, batch: Run, saved: list[str]) -> None:
    folder = output.with_name("results.parquet.partial")
    folder.mkdir()
    (folder / "merged.partial").symlink_to("/dev/full")
    status, _, err = batch(many, "-o", output, "--part-images", str(PART))
    assert (status, err.count("\n")) == (1, 1)
    assert "No space left on device" in err
    assert not output.exists()
    (folder / "merged.partial").unlink()
    saved.clear()
    assert batch(many, "-o", output, "--part-images", str(PART))[0] == 0
    assert saved == []
    check_rows(output, many)


def test_two_runs_do_not_write_one_file(many: Path, output: Path, batch: Run) -> None:
    folder = output.with_name("results.parquet.partial")
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, _, err = batch(many, "-o", output)
    assert (status, err.count("\n")) == (1, 1)
    assert f"another patchserve batch is writing {output}" in err


def test_parts_without_a_journal_are_not_trusted(many: Path, output: Path, batch: Run, saved: list[str]) -> None:
    folder = output.with_name("results.parquet.partial")
    folder.mkdir()
    (folder / "part-000000.parquet").write_bytes(os.urandom(100))
    assert batch(many, "-o", output, "--part-images", "1500")[0] == 0
    assert len(saved) == 2
