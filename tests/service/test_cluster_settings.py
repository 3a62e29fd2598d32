import subprocess
import sys
from pathlib import Path

import pytest

from service.cluster_settings import ClusterSettings, read_cluster_settings
from service.errors import StartError
from service.settings import Settings


def test_flags_of_the_service_and_of_the_cluster() -> None:
    settings = read_cluster_settings(["--max-replicas", "4", "--max-files", "2"])
    assert (settings.max_replicas, settings.max_files) == (4, 2)


def test_values_by_name_as_ray_hands_them_over() -> None:
    settings = read_cluster_settings(values={"max_replicas": "4", "model": "some.onnx", "brown_out": False})
    assert (settings.max_replicas, settings.model, settings.brown_out) == (4, Path("some.onnx"), False)


@pytest.mark.parametrize("values", [{"replica_cpus": 0}, {"nothing": 1}, {"max_replicas": "many"}])
def test_a_wrong_value_is_named(values: dict[str, object]) -> None:
    with pytest.raises(StartError, match=next(iter(values)).replace("_", "-")):
        read_cluster_settings(values=values)


def test_more_replicas_at_rest_than_under_load_are_refused() -> None:
    with pytest.raises(StartError, match="--max-replicas"):
        read_cluster_settings(["--min-replicas", "3", "--max-replicas", "2"])


def test_the_variables_of_the_cluster_are_none_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHSERVE_MAX_REPLICAS", "3")
    assert read_cluster_settings().max_replicas == 3


def test_threads_follow_the_cores_of_a_replica() -> None:
    settings = ClusterSettings(replica_cpus=3).for_replica()
    assert (settings.engine_threads, settings.engine_lanes, settings.decode_threads) == (3, 3, 3)


def test_threads_that_are_set_stay() -> None:
    settings = ClusterSettings(replica_cpus=3, engine_threads=2, decode_threads=5).for_replica()
    assert (settings.engine_threads, settings.engine_lanes, settings.decode_threads) == (2, 1, 5)


def test_a_gpu_has_one_lane() -> None:
    assert ClusterSettings(replica_cpus=4, provider="cuda").for_replica().engine_lanes == 1


def test_paths_hold_in_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ClusterSettings(model=Path("some.onnx"), api_keys_file=Path("keys")).for_replica()
    assert (settings.model, settings.api_keys_file) == (tmp_path / "some.onnx", tmp_path / "keys")


def test_a_process_that_a_replica_starts_takes_its_settings() -> None:
    settings = ClusterSettings(replica_cpus=2, model=Path("/some.onnx"), max_replicas=3).for_replica()
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


def test_the_service_serves_without_ray() -> None:
    """Its command line and its app, in a process where Ray cannot be imported."""
    program = "import sys; sys.modules['ray'] = None; import service.cli, service.server, service.cluster_settings"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_ray_is_one_line() -> None:
    program = (
        "import sys; sys.modules['ray'] = None; sys.argv = ['patchserve', 'cluster', 'serve']; "
        "from service.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "pip install 'patchserve[cluster]'" in ended.stderr
    assert "Traceback" not in ended.stderr
