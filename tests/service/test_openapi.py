"""The service keeps what its OpenAPI document says, whatever is sent: statuses, content types, schemas.

pytest tests/service/test_openapi.py --hypothesis-profile=thorough      5,000 requests an operation
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_process import ServedProcess, served

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = max(50, settings().max_examples // 2)
# Bytes that fit the schema need not be an image, and 504 answers a deadline of a millisecond: both are documented.
LEFT_OUT = ["positive_data_acceptance", "not_a_server_error"]


@pytest.fixture(scope="module")
def service(artifact: Path) -> Iterator[ServedProcess]:
    with served(artifact) as service:
        yield service


@pytest.fixture(scope="module")
def operations(service: ServedProcess) -> list[Any]:
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
    return [each.ok() for each in document.get_all_operations()]


@pytest.mark.parametrize("good", [True, False], ids=["as documented", "against the document"])
def test_the_document_is_kept(operations: list[Any], good: bool) -> None:
    """Nothing can be wrong with a request that has neither body nor parameters but a name in its path."""
    asked = [each for each in operations if good or each.path == "/classify" or each.path.endswith("/infer")]
    assert asked
    for operation in asked:
        keep(operation, good)


def keep(operation: Any, good: bool) -> None:
    mode = schemathesis.GenerationMode.POSITIVE if good else schemathesis.GenerationMode.NEGATIVE

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def ask(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        checks = schemathesis.checks.CHECKS.get_by_names(LEFT_OUT)
        response = case.call_and_validate(excluded_checks=checks, timeout=10)
        assert response.status_code < 500 or response.status_code == 504

    ask()
