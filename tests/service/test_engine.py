import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_artifact import MANIFEST, build_model, renamed, write_artifact

from service.batching import BatchLimits, Lanes
from service.devices import HostDevice
from service.engine import Engine
from service.errors import EngineError, StartError
from service.extras import Extras
from service.settings import EngineSettings


def load(path: Path, **settings: Any) -> Engine:
    return Engine(EngineSettings(model=path, **settings))


@pytest.fixture(scope="module")
def engine(artifact: Path) -> Engine:
    return load(artifact)


def test_it_knows_what_it_serves(engine: Engine, artifact: Path) -> None:
    assert engine.model.manifest == MANIFEST
    assert engine.model.digest == f"sha256:{hashlib.sha256(artifact.read_bytes()).hexdigest()}"
    assert engine.model.provider == "cpu"
    engine.warm_up()


def test_an_image_does_not_depend_on_its_batch_or_on_padding(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (1, 6, 48), np.uint8)
    alone = engine.run(first, np.array([[2, 3]]))
    batch = rng.integers(0, 256, (3, 20, 48), np.uint8)
    batch[1, :6] = first[0]
    together = engine.run(batch, np.array([[4, 5], [2, 3], [1, 1]]))
    np.testing.assert_array_equal(together[1], alone[0])
    assert together.shape == (3, 3)
    assert together.dtype == np.float32


@pytest.mark.parametrize(
    "settings", [{"engine_lanes": 3, "engine_threads": 2}, {"engine_lanes": 3, "engine_threads": 1}]
)
def test_an_answer_has_the_same_bits_on_all_cores_and_in_a_lane_alone_and_in_a_batch(
    artifact: Path, engine: Engine, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine._QUICK_S", 0.0)
    lanes = load(artifact, **settings)
    lanes.warm_up()
    rng = np.random.default_rng(0)
    patches, grid = rng.integers(0, 256, (3, 20, 48), np.uint8), np.array([[4, 5], [2, 3], [1, 1]])
    wanted = engine.run(patches, grid)
    with ThreadPoolExecutor(3) as callers:
        in_lanes = list(callers.map(lambda _: lanes.run(patches, grid, alone=False), range(9)))
    singly = [
        lanes.run(patches[place, None, : rows * columns], grid[place, None], alone=alone)
        for place, (rows, columns) in enumerate(grid)
        for alone in (True, False)
    ]
    for answer in (lanes.run(patches, grid), *in_lanes, np.concatenate(singly[::2]), np.concatenate(singly[1::2])):
        np.testing.assert_array_equal(answer, wanted)


def test_each_lane_has_memory_of_its_own_and_one_lane_has_two_batches_under_way(artifact: Path) -> None:
    limits = BatchLimits(max_patches=200, max_images=4, overhead_patches=0)
    for lanes, buffers in [(1, 2), (2, 2), (5, 5)]:
        engine = load(artifact, engine_lanes=lanes)
        assert engine.lanes.number == lanes
        assert len(engine.open_memory(limits).buffers) == buffers


def test_all_cores_are_no_faster_than_a_lane_where_there_is_one_thread(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine._QUICK_S", 0.0)
    assert load(artifact, engine_lanes=2, engine_threads=2).lanes == Lanes(2, wide=True)
    assert load(artifact, engine_lanes=2, engine_threads=1).lanes == Lanes(2, wide=False)


def test_a_model_that_is_quick_on_one_thread_runs_in_lanes_alone(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine._QUICK_S", 60.0)
    engine = load(artifact, engine_lanes=2, engine_threads=2)
    engine.warm_up()
    assert engine.lanes == Lanes(2, wide=False)


def test_arrays_that_do_not_fit_are_an_engine_error(engine: Engine) -> None:
    with pytest.raises(EngineError):
        engine.run(np.zeros((1, 2, 7), np.uint8), np.array([[1, 2]]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patches_name": "images"}, ["input 'patches' is missing", "unknown input 'images'"]),
        ({"patches_type": TensorProto.FLOAT}, ["'patches' is tensor(float)", "tensor(uint8)"]),
        ({"classes": 4}, ["'logits' has 4", "3 labels"]),
        ({"extra_input": True}, ["unknown input 'mask'"]),
        ({"manifest": None}, ["no manifest"]),
        ({"manifest": renamed(labels=("a", "b"))}, ["'logits' has 3", "2 labels"]),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused_at_load(
    tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    path = write_artifact(tmp_path / "wrong.onnx", **changes)
    with pytest.raises(StartError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in [str(path), *words]), message


def test_a_manifest_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    model = build_model()
    onnx.helper.set_model_props(model, {"patchserve": MANIFEST.to_json().replace('"aspect"', '"stretch"')})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(StartError, match="'resize' must be one of") as error:
        load(tmp_path / "m.onnx")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"some text", bytes(range(256)) * 40])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(content)
    with pytest.raises(StartError, match=str(path)) as error:
        load(path)
    assert "\n" not in str(error.value)
    if content:
        assert hashlib.sha256(content).hexdigest() in str(error.value)


def test_a_truncated_model_is_refused(tmp_path: Path, artifact: Path) -> None:
    path = tmp_path / "half.onnx"
    path.write_bytes(artifact.read_bytes()[:-200])
    with pytest.raises(StartError):
        load(path)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere\.onnx cannot be read: No such file"):
        load(tmp_path / "nowhere.onnx")


def test_weights_outside_the_file_are_refused(tmp_path: Path) -> None:
    model = build_model()
    onnx.helper.set_model_props(model, {"patchserve": MANIFEST.to_json()})
    path = tmp_path / "external.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(StartError, match="single-file"):
        load(path)


def test_a_model_whose_logits_are_no_numbers_does_not_start(tmp_path: Path) -> None:
    engine = load(write_artifact(tmp_path / "nan.onnx", scale=float("nan")))
    with pytest.raises(StartError, match="finite"):
        engine.warm_up()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_missing_stops_the_start(artifact: Path, provider: str) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has one")
    with pytest.raises(StartError, match=rf"provider {provider}.*patchserve\[gpu\]"):
        load(artifact, provider=provider)


def test_on_the_cpu_batches_keep_their_shape_unless_lengths_are_given(artifact: Path, engine: Engine) -> None:
    limits = BatchLimits(max_patches=200, max_images=4, overhead_patches=0)
    memory = engine.open_memory(limits)
    assert (memory.buckets.lengths, list(memory.warm_up)) == ((), [])
    memory = load(artifact, length_buckets="60", max_warm_up_shapes=3).open_memory(limits)
    assert memory.buckets.lengths == (49, 60, 100)
    assert list(memory.warm_up) == [(4, 49), (2, 49), (1, 49)]


@pytest.mark.gpu
def test_on_a_gpu_every_bucket_answers_as_the_cpu(engine: Engine, artifact: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("no onnxruntime-gpu here")
    limits = BatchLimits(max_patches=200, max_images=4, overhead_patches=0)
    rng = np.random.default_rng(0)
    for graphs in (False, True):
        on_device = load(artifact, provider="cuda", cuda_graphs=graphs)
        memory = on_device.open_memory(limits)
        for buffer in (*memory.buffers, *memory.buffers):
            for images, length in memory.warm_up:
                patches, grid = buffer.shaped(images, length, 48)
                patches[:] = rng.integers(0, 256, patches.shape, np.uint8)
                grid[:] = (1, length)
                buffer.ready(patches, grid)
                np.testing.assert_allclose(on_device.run(patches, grid), engine.run(patches, grid), atol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_the_answers_are_those_of_the_cpu(engine: Engine, artifact: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("no onnxruntime-gpu here")
    on_device = load(artifact, provider="cuda")
    on_device.warm_up()
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (3, 20, 48), np.uint8), np.array([[4, 5], [2, 3], [1, 1]])
    np.testing.assert_allclose(on_device.run(*batch), engine.run(*batch), atol=1e-4)


def test_attention_comes_from_a_session_of_its_own_and_the_others_run_without_its_operators(
    tmp_path: Path, engine: Engine
) -> None:
    explained = load(write_artifact(tmp_path / "explained.onnx", attention=True), engine_lanes=2, engine_threads=1)
    explained.warm_up()
    rng = np.random.default_rng(0)
    patches, grid = rng.integers(0, 256, (2, 20, 48), np.uint8), np.array([[4, 5], [2, 3]])
    for alone in (True, False):
        found = explained.infer(patches, grid, Extras.EMBEDDING | Extras.ATTENTION, alone=alone)
        assert found.embeddings is not None
        assert found.attentions is not None
        np.testing.assert_array_equal(found.logits, engine.run(patches, grid))
        np.testing.assert_array_equal(explained.run(patches, grid, alone=alone), found.logits)
        assert (found.embeddings.shape, found.attentions.shape) == ((2, 3), (2, 20))
        assert found.attentions.sum(1) == pytest.approx([1, 1])
        assert not found.attentions[1, 6:].any()
    with pytest.raises(EngineError, match="attention"):
        engine.infer(patches, grid, Extras.ATTENTION)


def test_a_device_gives_the_same_attention(tmp_path: Path) -> None:
    path = write_artifact(tmp_path / "explained.onnx", attention=True)
    plain, bound = load(path), Engine(EngineSettings(model=path), HostDevice())
    patches, grid = np.arange(960, dtype=np.uint8).reshape(2, 10, 48), np.array([[2, 5], [1, 2]])
    wanted = Extras.EMBEDDING | Extras.ATTENTION
    for found, expected in zip(bound.infer(patches, grid, wanted), plain.infer(patches, grid, wanted), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "output 'attention' is missing"),
        ({"attention": True, "length": 49}, "'attention' is fixed to 49 in axis 1"),
    ],
)
def test_a_manifest_that_promises_attention_must_keep_it(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = write_artifact(tmp_path / "promising.onnx", renamed(explain=True), **changes)
    with pytest.raises(StartError, match=reason):
        load(path)


def test_features_that_no_process_could_pass_on_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.contract.MOST_FEATURES", 2)
    with pytest.raises(StartError, match="'embedding' has 3 columns, and at most 2 can be served"):
        load(write_artifact(tmp_path / "wide.onnx"))
