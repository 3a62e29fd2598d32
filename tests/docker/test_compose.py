"""What Compose, proxy and locks must agree about. The real Compose and HAProxy try them: docker/test.sh."""

import re
import tomllib
from typing import Any

import pytest
from deployment import ROOT, document

from service.settings import Settings

SERVICES: dict[str, dict[str, Any]] = document("docker-compose.yml")["services"]
REPLICAS = {name: each for name, each in SERVICES.items() if name == "cpu" or re.fullmatch(r"gpu\d", name)}
OTHERS = {name: each for name, each in SERVICES.items() if name not in REPLICAS}
PROXY = (ROOT / "docker/proxy/haproxy.cfg").read_text()
DEFAULTS = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "docker/defaults.env").read_text(), re.MULTILINE))
LOCKS = ["build", "cpu", "gpu", "export"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s)", text).groups()  # type: ignore[union-attr]
    return int(number) / (1000 if unit == "ms" else 1)


def of_the_proxy(words: str) -> float:
    found = re.search(rf"^\s*{words} (\d+m?s)", PROXY, re.MULTILINE)
    assert found, words
    return seconds(found[1])


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_profile_has_one_replica_for_each_of_its_gpus(count: int) -> None:
    profile = "gpu" if count == 1 else f"gpu{count}"
    replicas = [each for each in REPLICAS.values() if profile in each["profiles"]]
    devices = [each["deploy"]["resources"]["reservations"]["devices"] for each in replicas]
    assert sorted(device["device_ids"] for [device] in devices) == [[str(number)] for number in range(count)]
    assert profile in SERVICES["proxy"]["profiles"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    each = SERVICES[name]
    assert each["read_only"]
    assert each["cap_drop"] == ["ALL"]
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert each["mem_limit"]
    assert each["pids_limit"]


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_is_published_to_the_world_unasked(name: str) -> None:
    assert all(port.startswith(("127.0.0.1:", "${PUBLISH:-127.0.0.1:")) for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", OTHERS)
def test_images_of_others_are_pinned(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+", OTHERS[name]["image"])


@pytest.mark.parametrize("name", REPLICAS)
def test_a_replica_has_time_to_drain(name: str) -> None:
    delay_s = float(DEFAULTS["PATCHSERVE_DRAIN_DELAY_S"])
    grace_s = Settings.model_fields["shutdown_grace_s"].default
    assert seconds(REPLICAS[name]["stop_grace_period"]) > delay_s + grace_s
    checks = re.search(r"check inter (\S+) fall (\d+)", PROXY)
    assert checks
    # A check begins up to one interval after the signal, and the last one may take its whole time.
    seen_s = (int(checks[2]) + 1) * seconds(checks[1]) + of_the_proxy("timeout check")
    assert seen_s < delay_s


def test_replicas_have_the_name_that_proxy_and_prometheus_look_for() -> None:
    jobs = {each["job_name"]: each for each in document("docker/monitoring/prometheus.yml")["scrape_configs"]}
    [sought] = jobs["patchserve"]["dns_sd_configs"]
    assert f"presetenv REPLICAS {sought['names'][0]}:{sought['port']}\n" in PROXY
    for each in REPLICAS.values():
        assert sought["names"] == each["networks"]["default"]["aliases"]
    [proxy] = jobs["proxy"]["dns_sd_configs"]
    assert f"presetenv LISTEN_HEALTH :{proxy['port']}\n" in PROXY
    assert proxy["names"] == ["proxy"]


def test_the_proxy_is_more_patient_than_the_service() -> None:
    fields = Settings.model_fields
    longest_s = fields["max_timeout_ms"].default / 1000
    assert of_the_proxy("timeout server") > longest_s
    assert of_the_proxy("timeout client") > fields["body_timeout_s"].default
    assert of_the_proxy("timeout http-request") > fields["header_timeout_s"].default
    assert of_the_proxy("hard-stop-after") > longest_s
    assert seconds(SERVICES["proxy"]["stop_grace_period"]) > of_the_proxy("hard-stop-after")


def test_the_proxy_sends_nothing_twice() -> None:
    assert re.findall(r"^\s*retry-on (.*)$", PROXY, re.MULTILINE) == ["conn-failure"]
    assert "http-buffer-request" not in PROXY


@pytest.mark.parametrize("name", LOCKS)
def test_locks_have_hashes_and_no_index(name: str) -> None:
    text = (ROOT / f"docker/requirements-{name}.txt").read_text()
    pins = re.findall(r"^[a-z0-9._-]+==[^\s;]+.*$", text, re.MULTILINE)
    assert pins
    assert all(pin.endswith("\\") for pin in pins)
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize(("name", "extras"), [("cpu", ["cpu"]), ("gpu", ["gpu"]), ("export", ["cpu", "export"])])
def test_locks_hold_everything_that_the_project_needs(name: str, extras: list[str]) -> None:
    text = (ROOT / f"docker/requirements-{name}.txt").read_text()
    wanted = PROJECT["dependencies"] + [each for extra in extras for each in PROJECT["optional-dependencies"][extra]]
    names = [re.match(r"[a-z0-9-]+", each)[0] for each in wanted]  # type: ignore[index]
    assert [each for each in names if not re.search(rf"^{each}==", text, re.MULTILINE)] == []


@pytest.mark.parametrize("name", REPLICAS)
def test_the_file_of_the_operator_has_the_last_word(name: str) -> None:
    assert "environment" not in REPLICAS[name]
    assert REPLICAS[name]["env_file"][-1] == {"path": "patchserve.env", "required": False}


def test_defaults_are_settings_that_exist() -> None:
    assert {f"PATCHSERVE_{name.upper()}" for name in Settings.model_fields} >= set(DEFAULTS)
    assert DEFAULTS["PATCHSERVE_API_KEYS"] == "${PATCHSERVE_API_KEYS:-}"
