from collections.abc import Callable
from pathlib import Path

import pytest

from service.batch import choice
from service.batch.choice import choose_processes
from service.errors import BatchError
from service.settings import Settings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(1000))
    return path


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return lambda size: monkeypatch.setattr(choice, "usable_memory", lambda: size)


def test_there_is_one_for_each_core(model: Path) -> None:
    assert choose_processes(Settings(model=model), None, cores=3) == 3
    assert choose_processes(Settings(), None, cores=4) == 4


def test_all_together_take_at_most_half_of_the_memory(model: Path, memory: Callable[[float], None]) -> None:
    """250 MB each, and twice the file of 1,000 bytes."""
    memory(2_000_016_000)
    assert choose_processes(Settings(model=model), None, cores=4) == 4
    memory(2_000_015_999)
    assert choose_processes(Settings(model=model), None, cores=4) == 1
    assert choose_processes(Settings(model=model), 4, cores=4) == 4


@pytest.mark.parametrize("name", ["engine_lanes", "engine_threads", "decode_threads"])
def test_who_has_divided_the_cores_gets_just_that(name: str, model: Path) -> None:
    assert choose_processes(Settings(model=model, **{name: 2}), None, cores=4) == 1


def test_a_gpu_has_one_engine(model: Path) -> None:
    settings = Settings(model=model, provider="cuda")
    assert choose_processes(settings, None, cores=4) == 1
    assert choose_processes(settings, 1) == 1
    with pytest.raises(BatchError, match="--processes 2 needs --provider cpu"):
        choose_processes(settings, 2)


def test_a_system_that_cannot_has_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "can_start", lambda: False)
    assert choose_processes(Settings(model=model), None, cores=4) == 1
    with pytest.raises(BatchError, match="--processes 2 needs Linux or macOS"):
        choose_processes(Settings(model=model), 2)


def test_several_need_a_folder_for_temporary_files(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose root is read-only may have none."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: ["/proc/nowhere"])
    assert choose_processes(Settings(model=model), None, cores=4) == 1
