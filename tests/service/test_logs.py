import io
import json
import threading

import pytest

from service.logs import BackgroundStream, LossyStream, open_log
from service.settings import LogSettings


def test_lines_are_json_unless_on_a_terminal() -> None:
    for is_terminal, log_format, is_json in [(False, "auto", True), (True, "auto", False), (True, "json", True)]:
        text = io.StringIO()
        settings = LogSettings.model_validate({"log_format": log_format})
        open_log(settings, LossyStream(text), is_terminal=is_terminal).info("request", status=200)
        assert text.getvalue().startswith("{") == is_json
        if is_json:
            assert json.loads(text.getvalue())["status"] == 200


def test_the_level_filters() -> None:
    text = io.StringIO()
    log = open_log(LogSettings(log_level="error"), LossyStream(text), is_terminal=False)
    log.info("quiet")
    log.error("loud")
    assert [json.loads(line)["event"] for line in text.getvalue().splitlines()] == ["loud"]


def test_a_failing_stream_is_counted() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    stream = LossyStream(Full())
    log = open_log(LogSettings(), stream, is_terminal=False)
    log.info("lost")
    assert stream.lost > 0


def test_a_reader_that_stalls_loses_lines_and_stalls_nobody() -> None:
    may_write = threading.Event()

    class Stalled(io.StringIO):
        def write(self, text: str) -> int:
            assert may_write.wait(10)
            return super().write(text)

    text = Stalled()
    stream = BackgroundStream(text, max_lines=5)
    for number in range(20):
        stream.write(f"{number}\n")
    assert stream.lost >= 14
    may_write.set()
    stream.close(timeout_s=5)
    assert text.getvalue().splitlines()[0] == "0"
    assert len(text.getvalue().splitlines()) + stream.lost == 20


@pytest.mark.parametrize("error", [ValueError("closed file"), OSError()])
def test_a_closed_stream_is_counted(error: Exception) -> None:
    class Broken(io.StringIO):
        def flush(self) -> None:
            raise error

    stream = LossyStream(Broken())
    stream.flush()
    assert stream.lost == 1
