import re
from pathlib import Path
from typing import Any

import pytest

from service.errors import StartError
from service.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("PATCHSERVE_")]:
        monkeypatch.delenv(name)


def test_a_flag_beats_the_environment_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings([]).port == 8000
    monkeypatch.setenv("PATCHSERVE_PORT", "9000")
    assert read_settings([]).port == 9000
    assert read_settings(["--port", "9001"]).port == 9001


def test_the_model_is_the_only_positional() -> None:
    assert read_settings(["some.onnx", "--exact-decode"]).model == Path("some.onnx")
    with pytest.raises(StartError, match="unrecognized arguments: other"):
        read_settings(["some.onnx", "other"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prot", "1"], ["--prot", "--help"]),
        (["--por", "1"], ["--por"]),
        (["--port", "x"], ["--port", "PATCHSERVE_PORT", "'x'", "integer"]),
        (["--port", "70000"], ["--port", "65535"]),
        (["--max-files", "0"], ["--max-files", "greater than or equal to 1"]),
        (["--formats", "TIFF"], ["--formats", "'JPEG'"]),
        (["--provider", "tpu"], ["--provider", "'cpu'"]),
        (["--overload-status", "500"], ["--overload-status", "429 or 503"]),
        (["--port"], ["--port", "expected one argument"]),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(StartError) as error:
        read_settings(arguments)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSERVE_PROT", "1")
    with pytest.raises(StartError, match="PATCHSERVE_PROT"):
        read_settings([])


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSERVE_BODY_TIMEOUT_S", "-1")
    with pytest.raises(StartError, match="PATCHSERVE_BODY_TIMEOUT_S"):
        read_settings([])


def test_origins_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings([]).cors_origins == ()
    assert read_settings(["--cors-origins", "https://a.example, http://[::1]:3000"]).cors_origins == (
        "https://a.example",
        "http://[::1]:3000",
    )
    monkeypatch.setenv("PATCHSERVE_CORS_ORIGINS", "")
    assert read_settings([]).cors_origins == ()


@pytest.mark.parametrize(
    "origin", ["*", "null", "a.example", "https://a.example/", "https://*.example", "HTTPS://a.example"]
)
def test_an_origin_is_exact_and_as_browsers_write_it(origin: str) -> None:
    with pytest.raises(StartError, match="--cors-origins"):
        read_settings(["--cors-origins", origin])


def test_formats_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(["--formats", "png,gif"]).formats == ("PNG", "GIF")
    monkeypatch.setenv("PATCHSERVE_FORMATS", "bmp, webp")
    assert read_settings([]).formats == ("BMP", "WEBP")
    monkeypatch.setenv("PATCHSERVE_OVERLOAD_STATUS", "503")
    assert read_settings([]).overload_status == 503


def test_every_setting_is_explained_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        read_settings(["--help"])
    assert leaving.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        assert field.description, name
        if name != "model":
            assert f"--{name.replace('_', '-')} " in text
        assert " ".join(field.description.split()) in text.replace("- ", "-"), name


def test_every_quantity_has_its_unit_in_its_name_or_its_meaning() -> None:
    units = {"bytes": "byte", "s": "second", "ms": "millisecond", "patches": "patch", "pixels": "pixel"}
    for name, field in Settings.model_fields.items():
        unit = units.get(name.rsplit("_", 1)[-1])
        assert unit is None or unit in (field.description or ""), name


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_padding_saves_a_run_only_where_a_run_is_dear() -> None:
    assert [Settings().overhead_patches(lanes) for lanes in (1, 2, 8)] == [32, 0, 0]
    assert [Settings(batch_overhead_patches=5).overhead_patches(lanes) for lanes in (1, 2)] == [5, 5]


@pytest.mark.parametrize(
    ("given", "lanes"),
    [
        ({}, 8),
        ({"engine_lanes": 1}, 1),
        ({"engine_lanes": 3}, 3),
        ({"engine_threads": 1}, 8),
        ({"engine_threads": 4}, 1),
        ({"engine_threads": 4, "engine_lanes": 2}, 2),
        ({"provider": "cuda"}, 1),
        ({"provider": "tensorrt", "engine_lanes": 1}, 1),
    ],
)
def test_lanes_follow_the_cores_of_a_cpu(given: dict[str, Any], lanes: int) -> None:
    assert Settings(**given).lanes(cores=8) == lanes


@pytest.mark.parametrize(
    ("given", "cores", "processes"),
    [
        ({}, 1, 1),
        ({}, 2, 1),
        ({}, 4, 2),
        ({}, 16, 4),
        ({"provider": "cuda"}, 16, 8),
        ({"http_workers": 3}, 2, 3),
        ({"http_workers": 1}, 64, 1),
    ],
)
def test_http_processes_follow_the_cores(given: dict[str, Any], cores: int, processes: int) -> None:
    assert Settings(**given).http_processes(cores) == processes


def test_the_limits_in_the_security_document_are_the_defaults() -> None:
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    rows = re.findall(r"^\| `--([a-z-]+)` \| ([^|]+) \|", text, re.MULTILINE)
    assert len(rows) > 25
    for flag, default in rows:
        value = Settings.model_fields[flag.replace("-", "_")].default
        written = tuple(default.split(", ")) if isinstance(value, tuple) else float(default)
        assert written == value, flag


def test_flags_in_the_security_document_exist() -> None:
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    flags = {flag.replace("-", "_") for flag in re.findall(r"`--([a-z-]+)", text)}
    assert flags <= set(Settings.model_fields)


def test_batches_of_a_lane_fit_into_the_cache_of_a_core() -> None:
    assert [Settings().batch_patches(lanes) for lanes in (1, 2, 8)] == [2048, 400, 400]
    assert [Settings(max_batch_patches=500).batch_patches(lanes) for lanes in (1, 2)] == [500, 500]
