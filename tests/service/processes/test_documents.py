import pytest
from tiny_artifact import MANIFEST

from service.processes.documents import (
    Catalogue,
    Document,
    Holding,
    Prepare,
    Prepared,
    ReloadCall,
    ReloadEnd,
    Version,
    read_document,
    write_document,
)
from service.reload import Reloaded
from service.replies import ModelName

VERSION = Version(number=1 << 40, manifest=MANIFEST.to_json(), digest="sha256:1", provider="cpu")
NAME = ModelName(name="a", version="1\n2", digest="sha256:1")


@pytest.mark.parametrize(
    "document",
    [
        Catalogue(revision=3, default="a", names={"a": [VERSION]}),
        Prepare(question=1, preprocessing=MANIFEST.preprocessing.to_dict()),
        Prepared(question=1, reason=None),
        Holding(revision=2, numbers=frozenset({1, 1 << 40})),
        ReloadCall(call=1, name="line\nend"),
        ReloadEnd(call=1, reloaded=[Reloaded("a", "added", None, NAME)]),
        ReloadEnd(call=1, known=False),
    ],
)
def test_a_document_is_one_line_and_comes_back(document: Document) -> None:
    line = write_document(document)
    assert b"\n" not in line
    assert write_document(read_document(line)) == line


@pytest.mark.parametrize(
    "line", [b"", b"null", b"{}", b'{"kind":"other"}', b'{"kind":"reload_call","call":"x"}', b"\xff"]
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic says which, each its own way
        read_document(line)
