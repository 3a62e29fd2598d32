import io
import subprocess
import sys
import time

import pytest
from structlog.testing import CapturingLogger

from service.errors import StartError
from service.settings import TraceSettings
from service.tracing.opening import check_tracing, open_tracing

ON = TraceSettings(tracing=True)


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter.otlp"])
def test_without_the_libraries_there_are_no_traces(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(missing)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StartError, match="otel"):
        check_tracing(ON)


def test_a_service_without_the_libraries_does_not_start() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; "
        "sys.argv = ['patchserve', 'serve', '--tracing', '--port', '0']; "
        "from service.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "patchserve: --tracing needs the OpenTelemetry SDK: pip install 'patchserve[otel]'\n"


def test_a_service_without_traces_imports_no_sdk(artifact: object) -> None:
    program = (
        "import sys\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "import service.cli, service.server, service.processes.supervisor\n"
        f"create_app(Settings(model={str(artifact)!r}))\n"
        "print(*(name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))))\n"
        "print(*(name for name in sys.modules if name.startswith('service.tracing.')))"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    library, ours = ended.stdout.splitlines()
    assert library == ""
    assert {"service.tracing.spans", "service.tracing.export"}.isdisjoint(ours.split())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
    ],
)
def test_what_there_is_not_ends_the_start(name: str, value: str) -> None:
    with pytest.raises(StartError, match=f"{name} is '{value}'"):
        check_tracing(ON, {name: value})
    check_tracing(TraceSettings(), {name: value})  # nobody asked


@pytest.mark.parametrize("share", ["", "10", "10%", "1.5", "-0.1", "nan", "1e-3"])
def test_a_share_that_is_none_ends_the_start(share: str) -> None:
    for sampler in ("traceidratio", "parentbased_traceidratio"):
        with pytest.raises(StartError, match="from 0 to 1"):
            check_tracing(ON, {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": share})
        for good in ("0", "1", "0.1", ".5", "1.0"):
            check_tracing(ON, {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": good})


def test_a_number_that_is_none_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "-1")
    with pytest.raises(StartError, match="OTEL_ variables"):
        open_tracing(ON, CapturingLogger(), time.monotonic)  # type: ignore[arg-type]


def test_the_standard_switch_turns_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert open_tracing(ON, CapturingLogger(), time.monotonic) is None  # type: ignore[arg-type]


def test_exporters_complain_once_a_minute() -> None:
    import logging

    from service.logs import LossyStream, open_log
    from service.settings import LogSettings
    from service.tracing.export import quiet_sdk

    now_s, text = [0.0], io.StringIO()
    quiet_sdk(open_log(LogSettings(), LossyStream(text), is_terminal=False), lambda: now_s[0])
    logger = logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    for second in range(90):
        now_s[0] = float(second)
        logger.warning("no collector at %s", "there")
    logging.getLogger("opentelemetry.trace.span").warning("what a client wrote")
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert "no collector at there" in lines[0]
    assert '"complaints":60' in lines[1]
