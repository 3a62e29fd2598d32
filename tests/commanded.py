"""Commands of `patchserve` in this process and in one of their own."""

import signal
import subprocess
from typing import Any

import pytest
from served_process import COMMAND, environment

from service import cli


class Commands:
    """Runs commands in this process, with the streams that pytest captures."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Status, standard output, standard error."""
        self._monkeypatch.setattr("sys.argv", ["patchserve", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            cli.main()
        captured = self._capsys.readouterr()
        return int(leaving.value.code or 0), captured.out, captured.err


def start(*arguments: object, **variables: str) -> "subprocess.Popen[str]":
    """Run a command in a process of its own."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(**variables),
        # A background job of a shell would ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        **pipes,
    )
