"""What a run keeps beside its output until it is complete, so that a kill at any time costs unfinished parts only.

results.parquet.partial/
    journal.json        what this run is: inputs, model, options
    lock                held by the process that writes here
    inputs.jsonl, ...   the inventory
    part-000000.parquet a finished part; it appears whole or not at all
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import BatchError


class Journal:
    """The folder of one output.

    Attributes:
        output: the file that will be written.
        folder: beside it.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.partial")

    @contextmanager
    def held(self, *, overwrite: bool, restart: bool) -> Iterator[None]:
        """The folder, made if it is missing, for this process alone.

        Args:
            overwrite: an existing output may be replaced at the end.
            restart: parts of an earlier run are thrown away.

        Raises:
            BatchError: if the output exists, the folder cannot be made, or another process is at it.
        """
        if self.output.is_dir() or (self.output.exists() and not overwrite):
            raise BatchError(f"{self.output} exists: give --overwrite to replace it when all is done, or another name")
        with disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        with _lock(self.folder, self.output):
            if restart or not self._read():
                self._forget()
            try:
                yield
            finally:
                if not self._read():  # nothing was begun
                    shutil.rmtree(self.folder, ignore_errors=True)

    def check(self, facts: Mapping[str, str]) -> None:
        """Compare what is known of this run with what the journal says of it, as far as it does.

        Raises:
            BatchError: naming what has changed.
        """
        before = self._read()
        changed = [name for name, fact in facts.items() if before.get(name, fact) != fact]
        if changed:
            raise BatchError(
                f"{self.folder} holds parts of a run with other {', '.join(changed)}: give --restart to throw them "
                "away, or another --output"
            )

    def write(self, facts: Mapping[str, str]) -> None:
        """Say what this run is."""
        partial = self.folder / "journal.partial"
        with disk_errors(self.folder):
            with partial.open("w") as file:
                json.dump(facts, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / "journal.json")

    def part(self, number: int) -> Path:
        """Where a part is or will be."""
        return self.folder / f"part-{number:06}.parquet"

    def missing(self, parts: int) -> list[int]:
        """The parts that are not finished."""
        done = {path.name for path in self.folder.glob("part-*.parquet")}
        return [number for number in range(parts) if self.part(number).name not in done]

    def finish(self, merged: Path) -> None:
        """Put the whole file in its place and leave nothing else."""
        merged.replace(self.output)
        shutil.rmtree(self.folder)

    def _read(self) -> dict[str, str]:
        with suppress(OSError, ValueError):
            facts: dict[str, str] = json.loads((self.folder / "journal.json").read_text())
            return facts
        return {}

    def _forget(self) -> None:
        (self.folder / "journal.json").unlink(missing_ok=True)
        for path in self.folder.glob("part-*.parquet"):
            path.unlink()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Raises: BatchError: one line in the place of what the disk says while we write."""
    try:
        yield
    except OSError as error:
        raise BatchError(
            f"{folder} cannot be written: {error.strerror or error}; once that is mended, the same command goes on "
            "from the last finished part"
        ) from None


@contextmanager
def _lock(folder: Path, output: Path) -> Iterator[None]:
    """The system frees the lock of a process that dies."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows: there nobody is warned
    except ImportError:
        yield
        return
    with disk_errors(folder):
        file = (folder / "lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchError(f"another patchserve batch is writing {output}: wait for it, or name another") from None
        yield
