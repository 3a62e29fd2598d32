import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from service.page_files import PAGE_FILES, read_page_files

from .conftest import Serving

pytestmark = pytest.mark.anyio

FILES = read_page_files()
PAGES = [name for name in FILES if name.endswith(".html")]
TEXTS = {name: file.content.decode() for name, file in FILES.items() if not name.endswith(".jpg")}


class Tags(HTMLParser):
    """Every start tag of a page with its attributes, and what stands in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in {"script", "style"}:
            self.inside += data.strip()

    def references(self) -> Iterator[str]:
        for _, attributes in self.tags:
            yield from filter(None, (attributes.get("src"), attributes.get("href")))


async def test_every_file_comes_with_its_type_a_strict_policy_and_an_etag(serving: Serving) -> None:
    kinds = {
        "html": "text/html",
        "css": "text/css",
        "js": "text/javascript",
        "svg": "image/svg+xml",
        "jpg": "image/jpeg",
    }
    async with serving() as client:
        for name, file in FILES.items():
            reply = await client.get(PAGE_FILES + name)
            assert reply.content == file.content
            assert reply.headers["content-type"].split(";")[0] == kinds[name.rpartition(".")[2]]
            assert reply.headers.get_list("cache-control") == ["no-cache"]
            policy = reply.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert "unsafe" not in policy
    assert {name.rpartition(".")[2] for name in FILES} == kinds.keys()


@pytest.mark.parametrize("path", ["/", "/docs", "/page/page.js"])
async def test_a_browser_that_has_a_file_is_told_so(serving: Serving, path: str) -> None:
    async with serving() as client:
        first = await client.get(path)
        etag = first.headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}'):
            again = await client.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
        assert (await client.head(path)).headers["etag"] == etag


@pytest.mark.parametrize("name", ["", "nothing.js", "../routes.py", "..%2froutes.py", "examples/", "%00"])
async def test_nothing_else_is_served(serving: Serving, name: str) -> None:
    async with serving() as client:
        reply = await client.get(PAGE_FILES + name)
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("name", PAGES)
def test_pages_have_no_script_or_style_of_their_own(name: str) -> None:
    page = Tags(TEXTS[name])
    assert page.inside == ""
    for tag, attributes in page.tags:
        assert tag != "style"
        assert not [each for each in attributes if each == "style" or each.startswith("on")], tag


@pytest.mark.parametrize("name", PAGES)
def test_pages_load_only_files_that_are_there(name: str) -> None:
    for reference in Tags(TEXTS[name]).references():
        if reference.startswith("page/"):
            assert reference.removeprefix("page/") in FILES
        else:
            assert reference in {"docs", "openapi.json", "metrics", "./", "#answer"}


def test_files_load_nothing_from_elsewhere_and_keep_nothing() -> None:
    for name, text in TEXTS.items():
        own = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|@import|url\(|innerHTML|eval\(", own), name
        assert not re.search(r"localStorage|sessionStorage|document\.cookie|indexedDB", own), name
        for module in re.findall(r'from "\./([^"]+)"', text):
            assert module in FILES
