"""What HTTP processes and the engine process agree about the models: one line of JSON each.

    engine process                      HTTP process
    Catalogue, to whoever greets   -->
    Prepare                        -->
                                   <--  Prepared
    Catalogue, at every change     -->
                                   <--  Holding, then and whenever a version is let go
                                   <--  ReloadCall
    ReloadEnd                      -->

JSON and not pickles: an HTTP process decodes hostile files, so what it says is checked.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from service.reload import Reloaded


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True)


class Version(_Said):
    """A version of a model: its number for submissions, and what `service.engine.Model` has."""

    number: int
    manifest: str
    digest: str
    provider: str


class Catalogue(_Said):
    """What requests may choose from: of each name the versions, newest first. `revision` rises with every change."""

    kind: Literal["catalogue"] = "catalogue"
    revision: int
    default: str
    names: dict[str, list[Version]]


class Prepare(_Said):
    """Get ready for a model with this preprocessing."""

    kind: Literal["prepare"] = "prepare"
    question: int
    preprocessing: dict[str, Any]


class Prepared(_Said):
    """Ready, or why not."""

    kind: Literal["prepared"] = "prepared"
    question: int
    reason: str | None


class Holding(_Said):
    """Requests that begin now find what `revision` says. Nothing is submitted but to these numbers."""

    kind: Literal["holding"] = "holding"
    revision: int
    numbers: frozenset[int]


class ReloadCall(_Said):
    """Somebody asks to load a name again, or everything."""

    kind: Literal["reload_call"] = "reload_call"
    call: int
    name: str | None


class ReloadEnd(_Said):
    """What came of it; None: there is no such model, or if it is `known`, the reload failed in a way of its own."""

    kind: Literal["reload_end"] = "reload_end"
    call: int
    reloaded: list[Reloaded] | None = None
    known: bool = True


Document = Catalogue | Prepare | Prepared | Holding | ReloadCall | ReloadEnd
_DOCUMENT: TypeAdapter[Document] = TypeAdapter(Annotated[Document, Field(discriminator="kind")])


def write_document(document: Document) -> bytes:
    """A document as one line, without its end."""
    return document.model_dump_json().encode()


def read_document(line: bytes) -> Document:
    """The document in a line.

    Raises:
        ValueError: if there is none.
    """
    return _DOCUMENT.validate_json(line)
