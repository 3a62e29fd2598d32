import pytest

from service.upgrades import has_offer, open_parser, without_offer

HEADERS = [
    (b"host", b"t"),
    (b"connection", b"Upgrade, HTTP2-Settings"),
    (b"upgrade", b"h2c"),
    (b"content-length", b"3"),
]


class Heard:
    """What a parser tells."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.ended = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ended += 1


def test_without_the_offer_a_request_has_its_body_and_is_not_the_last() -> None:
    heard = Heard()
    parser = open_parser(heard)
    request = without_offer(b"POST", b"/classify?k=1", "1.1", HEADERS) + b"abc"
    parser.feed_data(request * 2)
    assert (heard.body, heard.ended) == (b"abcabc", 2)
    assert heard.headers == 2 * [each for each in HEADERS if each[0] != b"upgrade"]
    assert not parser.should_upgrade()


@pytest.mark.parametrize(("headers", "expected"), [(HEADERS, True), (HEADERS[:2], False), ([], False)])
def test_an_offer_is_a_header(headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert has_offer(headers) == expected
