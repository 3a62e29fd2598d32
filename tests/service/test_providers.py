from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
from tiny_artifact import build_model, write_artifact

from service.cores import usable_cores
from service.errors import StartError
from service.providers import check_support, provider_list, session_options
from service.settings import EngineSettings

EVERYTHING = SimpleNamespace(
    get_available_providers=lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
)


def settings(**values: Any) -> EngineSettings:
    return EngineSettings(**values)


def of_opset(number: int) -> bytes:
    model = build_model()
    model.opset_import[0].version = number
    return bytes(model.SerializeToString())


def test_threads_are_those_that_were_asked_for_or_the_usable_cores() -> None:
    assert session_options(onnxruntime, settings(engine_threads=3)).intra_op_num_threads == 3
    assert session_options(onnxruntime, settings()).intra_op_num_threads == usable_cores()


def test_a_provider_that_is_not_there_is_refused() -> None:
    with pytest.raises(StartError, match=r"patchserve\[gpu\]"):
        check_support(
            SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"]),
            settings(provider="cuda"),
            b"",
            Path("m.onnx"),
        )


@pytest.mark.parametrize("opset", [23, 24])
def test_tensorrt_refuses_the_attention_operator_and_says_which_export_it_takes(opset: int) -> None:
    with pytest.raises(StartError, match=f"opset {opset}.*--opset 18"):
        check_support(EVERYTHING, settings(provider="tensorrt"), of_opset(opset), Path("m.onnx"))
    check_support(EVERYTHING, settings(provider="cuda"), of_opset(opset), Path("m.onnx"))
    check_support(EVERYTHING, settings(provider="tensorrt"), of_opset(18), Path("m.onnx"))


@pytest.mark.parametrize("provider", ["cpu", "tensorrt"])
def test_cuda_graphs_are_only_for_cuda(provider: str) -> None:
    with pytest.raises(StartError, match="--cuda-graphs needs --provider cuda"):
        check_support(EVERYTHING, settings(provider=provider, cuda_graphs=True), of_opset(18), Path("m.onnx"))
    check_support(EVERYTHING, settings(provider="cuda", cuda_graphs=True), of_opset(18), Path("m.onnx"))


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_several_lanes_are_only_for_the_cpu(provider: str) -> None:
    with pytest.raises(StartError, match="--engine-lanes 2 needs --provider cpu"):
        check_support(EVERYTHING, settings(provider=provider, engine_lanes=2), of_opset(18), Path("m.onnx"))
    for lanes in (0, 1):
        check_support(EVERYTHING, settings(provider=provider, engine_lanes=lanes), of_opset(18), Path("m.onnx"))
    check_support(EVERYTHING, settings(engine_lanes=2), of_opset(18), Path("m.onnx"))


def test_the_cpu_stands_behind_every_provider_for_the_nodes_that_it_leaves(tmp_path: Path) -> None:
    content = write_artifact(tmp_path / "m.onnx").read_bytes()
    names: dict[str, list[str]] = {}
    for provider in ("cpu", "cuda", "tensorrt"):
        listed = provider_list(settings(provider=provider), content)
        names[provider] = [each if isinstance(each, str) else each[0] for each in listed]
    cpu, cuda, tensorrt = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
    assert names == {"cpu": [cpu], "cuda": [cuda, cpu], "tensorrt": [tensorrt, cuda, cpu]}


def test_cuda_gets_what_was_set() -> None:
    [(_, options), _] = provider_list(settings(provider="cuda", device_id=2, gpu_memory_bytes=10**9), b"")
    assert (options["device_id"], options["gpu_mem_limit"]) == (2, 10**9)
    assert (options["use_tf32"], options["enable_cuda_graph"]) == (0, 0)
    [(_, options), _] = provider_list(settings(provider="cuda", gpu_tf32=True, cuda_graphs=True), b"")
    assert (options["use_tf32"], options["enable_cuda_graph"]) == (1, 1)
    assert "gpu_mem_limit" not in options


def test_tensorrt_prepares_for_every_shape_that_the_model_takes(tmp_path: Path) -> None:
    content = write_artifact(tmp_path / "m.onnx").read_bytes()
    [(_, options), *_] = provider_list(settings(provider="tensorrt", tensorrt_max_images=32), content)
    assert options["trt_profile_min_shapes"] == "patches:1x1x48,grid:1x2"
    assert options["trt_profile_opt_shapes"] == "patches:8x49x48,grid:8x2"
    assert options["trt_profile_max_shapes"] == "patches:32x100x48,grid:32x2"
    assert "trt_engine_cache_enable" not in options


def test_models_that_differ_in_weights_alone_have_engine_caches_of_their_own(tmp_path: Path) -> None:
    folders = set()
    for scale in (10.0, 20.0):
        content = write_artifact(tmp_path / "m.onnx", scale=scale).read_bytes()
        [(_, options), *_] = provider_list(settings(provider="tensorrt", tensorrt_cache_dir=tmp_path), content)
        folders.add(options["trt_engine_cache_path"])
        assert options["trt_timing_cache_path"] == str(tmp_path)
    assert len(folders) == 2


def test_a_file_that_is_no_artifact_gets_no_profile_and_fails_later() -> None:
    [(_, options), *_] = provider_list(settings(provider="tensorrt"), b"nonsense")
    assert "trt_profile_min_shapes" not in options
