from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_artifact import MANIFEST, renamed, write_artifact

from service.processes.choice import choose_replicas
from service.settings import Settings


def test_a_small_model_has_a_replica_for_each_core(artifact: Path) -> None:
    assert choose_replicas(Settings(replicas=0), 2) == 2  # the bundled model
    assert [choose_replicas(Settings(model=artifact, replicas=0), cores) for cores in (1, 4, 64)] == [1, 4, 8]


@pytest.mark.parametrize(
    "said", [{"http_workers": 1}, {"engine_lanes": 2}, {"engine_threads": 1}, {"provider": "cuda"}, {"replicas": 1}]
)
def test_who_divides_the_work_gets_just_that(artifact: Path, said: dict[str, Any]) -> None:
    assert choose_replicas(Settings(**{"model": artifact, "replicas": 0} | said), 4) == 1


def test_what_is_said_counts(artifact: Path) -> None:
    assert choose_replicas(Settings(model=artifact), 64) == 1
    assert choose_replicas(Settings(model=artifact, replicas=3), 64) == 3


def test_one_larger_model_is_enough_for_one_process(tmp_path: Path) -> None:
    write_artifact(tmp_path / "small.onnx")
    assert choose_replicas(Settings(model=tmp_path, replicas=0), 2) == 2
    many = replace(MANIFEST.preprocessing, native_grid=(100, 100), max_patches=10_000)
    ballast = np.zeros(10_000, np.float32)  # 40 kB that 10,000 patches meet
    write_artifact(tmp_path / "large.onnx", renamed(name="large", preprocessing=many), ballast=ballast)
    assert choose_replicas(Settings(model=tmp_path, replicas=0), 2) == 1


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_what_is_no_artifact_is_left_to_whoever_opens_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "wrong.onnx"
    if content is not None:
        path.write_bytes(content)
    assert choose_replicas(Settings(model=path, replicas=0), 4) == 1
