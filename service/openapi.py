"""What the OpenAPI document says about API keys, where there are any."""

from typing import Any

from service.access import Gate
from service.problems import inference_problem, problem, speaks_v2

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same key"},
}
_REFUSALS = {
    "401": "`unauthorized`: no valid API key",
    "403": "`forbidden`: a key for something else",
    "429": "`rate_limited`: try again after `Retry-After` seconds",
}


def describe_keys(document: dict[str, Any], gate: Gate) -> None:
    """Add to each operation which keys it takes, and how it refuses.

    Args:
        document: of an app behind this gate; changed in place.
        gate: decides who needs a key.
    """
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = _security(path, gate)
            if operation["security"]:
                operation["responses"] = _refusals(path) | operation["responses"]


def _refusals(path: str) -> dict[str, Any]:
    words = inference_problem if speaks_v2(path) else problem
    return {status: words(text) for status, text in _REFUSALS.items()}


def _security(path: str, gate: Gate) -> list[dict[str, list[str]]]:
    """One of these is enough; an empty one is no key, an empty list no security at all."""
    if gate.is_open(path):
        return []
    keys: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
    return [{}, *keys] if gate.lets_anybody_in(path) else keys
