"""What Ray is told and asks: by `serve run`, by `serve deploy`, by a `RayService`."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]  # Ray's own warnings are not ours to mend
MANIFEST = Path(__file__).parent.parent.parent / "docker" / "kubernetes" / "rayservice" / "rayservice.yaml"


def deployment_of(**arguments: Any) -> Any:
    from service.cluster import build

    return build(arguments)._bound_deployment


def test_the_builder_takes_settings_by_name() -> None:
    deployment = deployment_of(max_replicas="4", replica_cpus="2", max_connections="77")
    assert deployment._deployment_config.autoscaling_config.max_replicas == 4
    assert deployment.ray_actor_options["num_cpus"] == 2
    assert deployment.max_ongoing_requests == 77


def test_a_gpu_is_asked_for_where_the_provider_needs_one() -> None:
    assert deployment_of(provider="cuda").ray_actor_options["num_gpus"] == 1
    assert deployment_of(provider="cuda", replica_gpus=0.5).ray_actor_options["num_gpus"] == 0.5
    assert deployment_of().ray_actor_options["num_gpus"] == 0


def test_ray_waits_longer_than_the_service_drains() -> None:
    deployment = deployment_of(drain_delay_s=2, shutdown_grace_s=30)
    assert deployment._deployment_config.graceful_shutdown_timeout_s > 32
    assert deployment._deployment_config.graceful_shutdown_wait_loop_s == 2


def test_a_wrong_setting_is_named() -> None:
    from service.errors import StartError

    with pytest.raises(StartError, match="max-replica"):
        deployment_of(max_replica="4")


@pytest.mark.parametrize(
    ("flags", "said"), [([], "Ray does not start"), (["--address=a:1"], "no Ray cluster at --address a:1")]
)
def test_a_ray_that_does_not_answer_is_one_line(flags: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from service import cluster
    from service.cluster_settings import read_cluster_settings
    from service.errors import StartError

    def fail(**_: object) -> None:
        raise Exception("The node timed out.\nLook into /tmp/ray.")  # noqa: TRY002 - as Ray does

    monkeypatch.setattr(cluster.ray, "init", fail)
    with pytest.raises(StartError, match=f"^{said}: The node timed out.$"):
        cluster.serve_cluster(read_cluster_settings(flags))


def test_the_manifest_is_what_ray_serve_takes() -> None:
    from ray.serve.schema import ServeDeploySchema

    manifest, _ = yaml.safe_load_all(MANIFEST.read_text())
    config = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "service.cluster:build"
    deployment_of(**application.args)


def test_a_replica_is_as_well_as_the_service_is_ready() -> None:
    from service.errors import DeviceLost, NotReady
    from service.lifecycle import Lifecycle, Phase
    from service.replica import Replica

    replica = object.__new__(Replica.__mro__[1])  # as it is written, without what Ray puts around it
    replica._lifecycle = Lifecycle()
    with pytest.raises(NotReady):
        asyncio.run(replica.check_health())
    replica._lifecycle.advance(Phase.SERVING)
    asyncio.run(replica.check_health())
    replica._lifecycle.fail()
    with pytest.raises(DeviceLost):
        asyncio.run(replica.check_health())
