"""The short form of `tests/fuzz/run.py`: the same seeds and promises, random changes without guidance."""

import pytest
from fuzz import corpus
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLES = max(300, settings().max_examples)


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with bytes overwritten, cut out, doubled, or joined with another."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["write", "cut", "double", "join"])):
            case "write":
                new = draw(st.binary(min_size=1, max_size=8))
                data[at : at + len(new)] = new
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "join":
                data[at:] = draw(st.sampled_from(seeds))[at:]
    return bytes(data)


@settings(max_examples=EXAMPLES)
@given(changed(corpus.images()))
def test_only_an_image_error_escapes_from_decoding(data: bytes) -> None:
    corpus.decode(data)


@settings(max_examples=EXAMPLES)
@given(changed(corpus.forms()), st.integers(1, 100))
def test_only_a_refusal_escapes_from_a_form(body: bytes, chunk_bytes: int) -> None:
    corpus.read_form(body, chunk_bytes)


def test_an_escape_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a reader that lets a foreign error through."""

    def faulty(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(corpus, "preprocess", faulty)
    with pytest.raises(IndexError):
        corpus.decode(corpus.images()[0])
