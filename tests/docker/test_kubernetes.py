"""The manifests: what they say of the service is so, and where the tools are, what they render to is valid.

Nothing here needs a Kubernetes. `make kubernetes-test` also runs the tests that render and validate.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from service.lifecycle import Lifecycle
from service.metrics import Metrics
from service.routes import information_router
from service.settings import Settings, read_settings

REPOSITORY = Path(__file__).parent.parent.parent
KUBERNETES = REPOSITORY / "docker" / "kubernetes"
OVERLAYS = ("cpu", "gpu")
Document = dict[str, Any]


def read(path: str) -> Document:
    return cast("Document", yaml.safe_load((KUBERNETES / path).read_text()))


def variables(path: str) -> dict[str, str]:
    lines = (line for line in (KUBERNETES / path).read_text().splitlines() if not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def pod() -> Document:
    return cast("Document", read("base/deployment.yaml")["spec"]["template"]["spec"])


@pytest.fixture
def container(pod: Document) -> Document:
    (container,) = pod["containers"]
    return cast("Document", container)


def test_every_document_can_be_read() -> None:
    for path in KUBERNETES.rglob("*.yaml"):
        assert all(isinstance(each, dict) for each in yaml.safe_load_all(path.read_text())), path


@pytest.mark.parametrize("path", ["base/settings.env", "overlays/gpu/settings.env"])
def test_variables_are_settings_with_good_values(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables(path).items():
        monkeypatch.setenv(name, value)
    read_settings([])


def test_variables_of_the_manifests_are_settings() -> None:
    named = {
        name for path in KUBERNETES.rglob("*.yaml") for name in re.findall(r"PATCHSERVE_[A-Z_]+", path.read_text())
    }
    assert {name.removeprefix("PATCHSERVE_").lower() for name in named} <= set(Settings.model_fields)


def test_kubernetes_sets_no_variables_of_its_own(pod: Document) -> None:
    assert pod["enableServiceLinks"] is False


def test_probes_ask_routes_that_exist(container: Document) -> None:
    routes = {route.path for route in information_router(cast("Any", None), Lifecycle(), Metrics()).routes}  # type: ignore[attr-defined]
    paths = {kind: container[kind]["httpGet"]["path"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert set(paths.values()) <= routes
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    annotations = read("base/deployment.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] in routes


def test_ports_agree(container: Document) -> None:
    (port,) = container["ports"]
    image = (REPOSITORY / "docker" / "Dockerfile").read_text()
    assert f"PATCHSERVE_PORT={port['containerPort']}" in image
    assert read("base/service.yaml")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert read("base/network.yaml")["spec"]["ingress"][0]["ports"] == [{"port": port["name"]}]
    annotations = read("base/deployment.yaml")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])
    assert {container[kind]["httpGet"]["port"] for kind in container if kind.endswith("Probe")} == {port["name"]}


def test_a_pod_has_time_to_drain(pod: Document, container: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables("base/settings.env").items():
        monkeypatch.setenv(name, value)
    settings = read_settings([])
    assert pod["terminationGracePeriodSeconds"] > settings.drain_delay_s + settings.shutdown_grace_s
    # Long enough that readiness has failed by itself, wherever nothing else tells of the end.
    readiness = container["readinessProbe"]
    assert settings.drain_delay_s > readiness["periodSeconds"] * readiness["failureThreshold"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_memory_is_enough_for_the_decode_threads(overlay: str, container: Document) -> None:
    """0.4 GB and 0.8 GB for each, as docker/README.md says."""
    threads, memory = variables("base/settings.env"), container["resources"]["limits"]["memory"]
    if overlay == "gpu":
        (patched,) = read("overlays/gpu/deployment.yaml")["spec"]["template"]["spec"]["containers"]
        threads, memory = variables("overlays/gpu/settings.env"), patched["resources"]["limits"]["memory"]
    assert int(memory.removesuffix("Gi")) > 0.4 + 0.8 * int(threads["PATCHSERVE_DECODE_THREADS"])


def test_the_container_is_confined_as_the_image_can_be(pod: Document, container: Document) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in (REPOSITORY / "docker" / "Dockerfile").read_text()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_autoscaler_aims_at_what_the_adapter_calls_by_that_name() -> None:
    (rule,) = read("components/autoscaling/prometheus-adapter.yaml")["rules"]["custom"]
    (metric,) = read("components/autoscaling/autoscaler.yaml")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]


def test_metrics_of_the_rule_are_metrics_of_the_service() -> None:
    from service.app import create_app

    (rule,) = read("components/autoscaling/prometheus-adapter.yaml")["rules"]["custom"]
    named = set(re.findall(r"patchserve_[a-z_]+(?=\{)", rule["seriesQuery"] + rule["metricsQuery"]))
    assert named == {"patchserve_queue_patches", "patchserve_engine_patches_per_second"}
    page = create_app(Settings()).state.metrics.render().decode()
    assert all(f"# TYPE {name} gauge" in page for name in named)


def rendered(overlay: str, folder: Path) -> Iterator[Document]:
    """What would be applied: the overlay with every component that it names in a comment."""
    shutil.copytree(KUBERNETES, folder, dirs_exist_ok=True)
    file = folder / "overlays" / overlay / "kustomization.yaml"
    file.write_text(re.sub(r"^# (?=components:|  - )", "", file.read_text(), flags=re.MULTILINE))
    command = ["kubectl", "kustomize", str(file.parent)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    yield from yaml.safe_load_all(output)


@pytest.mark.kubernetes
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_rendered_is_valid(overlay: str, tmp_path: Path) -> None:
    import kubernetes_validate

    documents = list(rendered(overlay, tmp_path))
    assert {each["kind"] for each in documents} == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    }
    for each in documents:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.kubernetes
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_components_and_overlays_reach_the_pod(overlay: str, tmp_path: Path) -> None:
    (deployment,) = [each for each in rendered(overlay, tmp_path) if each["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "replicas" not in deployment["spec"]  # they are the autoscaler's
    assert container["image"] == f"patchserve:{overlay}"
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) is (overlay == "gpu")
    assert {"name": "PATCHSERVE_MODEL", "value": "/models"} in container["env"]
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/models", "/tmp"}  # noqa: S108
    assert container["envFrom"][0]["configMapRef"]["name"].startswith("patchserve-")
