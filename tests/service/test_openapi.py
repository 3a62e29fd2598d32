"""The service keeps what its OpenAPI document says, whatever is sent: statuses, content types, schemas.

pytest tests/service/test_openapi.py --hypothesis-profile=thorough      5,000 requests an operation
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_process import ServedProcess, served
from tiny_artifact import MANIFEST, write_artifact

from service.app import create_app
from service.settings import Settings

EXAMPLES = max(50, settings().max_examples // 2)
KNOWN = {"name": MANIFEST.name, "version": MANIFEST.version}
# Bytes that fit the schema need not be an image, and 504 answers a deadline of a millisecond: both are documented.
LEFT_OUT = ["positive_data_acceptance", "not_a_server_error"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that can be explained: of another, /explain would refuse everything for that alone."""
    return write_artifact(tmp_path_factory.mktemp("model") / "explained.onnx", attention=True)


@pytest.fixture(scope="module")
def service(artifact: Path) -> Iterator[ServedProcess]:
    with served(artifact) as service:
        yield service


@pytest.fixture(scope="module")
def operations(service: ServedProcess) -> list[Any]:
    return operations_of(service)


def operations_of(service: ServedProcess) -> list[Any]:
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    return [each.ok() for each in document.get_all_operations()]


@pytest.mark.parametrize("good", [True, False], ids=["as documented", "against the document"])
def test_the_document_is_kept(operations: list[Any], good: bool) -> None:
    """Nothing can be wrong with a request that has neither body nor parameters but a name in its path."""
    asked = [each for each in operations if good or each.body or each.query]
    assert {"/classify", "/embed", "/explain", "/v2/models/{name}/infer"} <= {each.path for each in asked}
    for operation in asked:
        keep(operation, good)


def line(name: str, role: str, key: str) -> str:
    return f"{name}:{role}:{hashlib.sha256(key.encode()).hexdigest()}"


KEYS = f"{line('shop', 'user', 'key')},{line('boss', 'admin', 'admin key')}"


@pytest.mark.parametrize(
    "anonymous", [pytest.param(False, id="keys"), pytest.param(True, id="keys for admins", marks=pytest.mark.long)]
)
def test_the_document_is_kept_behind_keys(artifact: Path, anonymous: bool) -> None:
    """One of its checks asks again without the key, and with a wrong one: neither may do what the document forbids."""
    with served(artifact, api_keys=KEYS, variables={"PATCHSERVE_ALLOW_ANONYMOUS": str(anonymous).lower()}) as service:
        operations = operations_of(service)
        assert {"/classify", "/models/{name}/reload"} <= {each.path for each in operations}
        for operation in operations:
            keep(operation, good=True, headers={} if anonymous else {"Authorization": "Bearer key"})


def test_whoever_takes_a_body_may_find_address_and_headers_too_long(artifact: Path) -> None:
    paths = document(artifact)["paths"]
    taking = {path: each["post"]["responses"] for path, each in paths.items() if "requestBody" in each.get("post", {})}
    assert len(taking) >= 4
    assert [path for path, responses in taking.items() if not {"414", "431"} <= responses.keys()] == []


def document(artifact: Path, **settings: Any) -> dict[str, Any]:
    return create_app(Settings(model=artifact, log_level="error", **settings)).openapi()


def test_without_keys_the_document_knows_of_none(artifact: Path) -> None:
    found = document(artifact)
    assert "securitySchemes" not in found["components"]
    assert not any("security" in each for path in found["paths"].values() for each in path.values())


@pytest.mark.parametrize("anonymous", [False, True])
def test_operations_say_which_keys_they_take(artifact: Path, anonymous: bool) -> None:
    found = document(artifact, api_keys=KEYS, allow_anonymous=anonymous)
    schemes = found["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["header"]["name"]) == ("bearer", "X-API-Key")
    keys = [{"bearer": []}, {"header": []}]
    for path, operations in found["paths"].items():
        for operation in operations.values():
            open_to_all = anonymous and not path.endswith("/reload")
            assert operation["security"] == ([{}, *keys] if open_to_all else keys)
            assert {"401", "403", "429"} <= operation["responses"].keys()
    assert "overloaded" in found["paths"]["/classify"]["post"]["responses"]["429"]["description"]


def keep(operation: Any, good: bool, headers: dict[str, str] | None = None) -> None:
    mode = schemathesis.GenerationMode.POSITIVE if good else schemathesis.GenerationMode.NEGATIVE

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if case.path_parameters and data.draw(st.booleans()):  # with any other name nothing behind it is reached
            case.path_parameters = {name: KNOWN[name] for name in case.path_parameters}
        response = case.call(timeout=10, headers=headers)
        # Nobody reads the parameters of an address that is too long, and that is documented.
        left_out = [*LEFT_OUT, "negative_data_rejection"] if response.status_code == 414 else LEFT_OUT
        checks = schemathesis.checks.CHECKS.get_by_names(left_out)
        sent = {"timeout": 10} | ({} if headers is None else {"headers": headers})
        case.validate_response(response, excluded_checks=checks, headers=headers, transport_kwargs=sent)
        assert response.status_code < 500 or response.status_code == 504

    ask()
