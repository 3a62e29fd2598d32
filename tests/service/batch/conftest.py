from collections.abc import Callable
from pathlib import Path

import pytest

from service import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def batch(artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`patchserve batch` in this process alone, if it is not told otherwise: status, standard output and error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        alone = [] if {"--processes", "--ray"} & set(arguments) else ["--processes", "1"]
        line = ["patchserve", "batch", *map(str, arguments), "--model", str(artifact), *alone]
        monkeypatch.setattr("sys.argv", line)
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        captured = capsys.readouterr()
        return int(leaving.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "results.parquet"
