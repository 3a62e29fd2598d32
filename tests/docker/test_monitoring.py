"""Rules and dashboard ask for nothing that does not exist. What Prometheus itself says of them: docker/test.sh."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from deployment import document, expressions, matchers, metric_names, panels, rules
from served_process import served, statuses
from tiny_artifact import write_artifact

import service.errors
from service.errors import RequestError
from tests.service.conftest import picture

# Of Prometheus itself; of HAProxy, which docker/try_monitoring.py asks; and of the default counters of dcgm-exporter
# (etc/default-counters.csv of NVIDIA/dcgm-exporter), which no test here has run.
ITS_OWN = {"up", "ALERTS"}
OF_THE_PROXY = {
    "haproxy_backend_active_servers",
    "haproxy_server_current_sessions",
    "haproxy_server_redispatch_warnings_total",
}
OF_THE_GPU = {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"}
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
RED = picture()
REQUEST = (
    b"POST /classify HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(RED) + RED
)


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a running service exports after one answer."""
    with served(write_artifact(tmp_path_factory.mktemp("model") / "tiny.onnx")) as service:
        with service.connect() as conversation:
            conversation.send(REQUEST)
            assert statuses(conversation.reply()) == [200]
        return service.get("/metrics")[1]


def exported(exposition: str) -> set[str]:
    families = re.findall(r"^# TYPE (\w+) (\w+)$", exposition, re.MULTILINE)
    return {name + suffix for name, kind in families for suffix in SUFFIXES[kind]}


def codes(root: type[RequestError] = RequestError) -> set[str]:
    own = {root.code} if hasattr(root, "code") else set()
    return own.union(*(codes(each) for each in root.__subclasses__()))


def test_the_parser_of_expressions_finds_names_and_nothing_else() -> None:
    expression = 'sum by (le) (rate(a_bucket{x="b"}[5m])) / ignoring (y) group_left c > 0 unless absent(up{job="d"})'
    assert metric_names(expression) == {"a_bucket", "c", "up"}
    assert metric_names("label_values(patchserve_queue_patches, instance)") == {"patchserve_queue_patches"}


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_metric_exists(place: str, expression: str, exposition: str) -> None:
    names = metric_names(expression)
    assert names, place
    assert names <= exported(exposition) | ITS_OWN | OF_THE_PROXY | OF_THE_GPU


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_value_of_a_label_exists(place: str, expression: str, exposition: str) -> None:
    jobs = {each["job_name"] for each in document("docker/monitoring/prometheus.yml")["scrape_configs"]}
    assert matchers(expression, "job") <= jobs, place
    assert matchers(expression, "stage") <= set(re.findall(r'stage="(\w+)"', exposition)), place
    assert matchers(expression, "outcome") <= codes() | {"failed", "refused"}, place
    assert service.errors.Overloaded.code in codes()


def test_each_alert_says_what_and_what_to_do() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "action"}


def test_each_alert_has_an_example_and_a_calm() -> None:
    cases = [case for test in document("docker/monitoring/rules_test.yml")["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    calm = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    assert fires == calm == {rule["alert"] for rule in rules()}


def test_the_dashboard_shows_what_there_is_to_see() -> None:
    named = set().union(*(metric_names(target["expr"]) for panel in panels() for target in panel["targets"]))
    wanted = {"requests_total", "stage_seconds_bucket", "batch_patches_sum", "batch_padding_ratio_sum"}
    wanted |= {"brown_out_level", "resident_bytes", "queue_patches"}
    assert {f"patchserve_{name}" for name in wanted} <= named
    assert named >= OF_THE_GPU


def test_panels_are_whole_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    source = document("docker/monitoring/grafana/datasource.yml")["datasources"][0]["uid"]
    for panel in panels():
        assert panel["datasource"]["uid"] == source
        assert all(target["datasource"]["uid"] == source and target["legendFormat"] for target in panel["targets"])
    for one, other in combinations([panel["gridPos"] for panel in panels()], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
        assert one["x"] + one["w"] <= 24


def test_provisioned_files_lie_where_compose_mounts_them() -> None:
    mounts = [each.split(":") for each in document("docker-compose.yml")["services"]["grafana"]["volumes"]]
    folder = document("docker/monitoring/grafana/dashboards.yml")["providers"][0]["options"]["path"]
    assert f"{folder}/patchserve.json" in [inside for _, inside, _ in mounts]
    for outside, _, mode in mounts:
        assert Path(outside).is_file()
        assert mode == "ro"
