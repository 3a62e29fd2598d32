"""The web pages and what they are made of: read once, and sent with a content security policy and an ETag.

| address               | what                                                                    |
|-----------------------|-------------------------------------------------------------------------|
| `/`, `/docs`          | the pages                                                               |
| `/page/NAME`          | their style, scripts and icon                                           |
| `/page/examples/NAME` | images that come with the bundled model                                 |

A browser keeps a file and asks each time whether it is still the same: after an upgrade no page runs with scripts of
another version. The ETag is a hash of the content, for all files of a wheel may have the same time of change.
"""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath

from fastapi import APIRouter, Request
from fastapi.responses import Response

from service.errors import NotFound

PAGE_FILES = "/page/"
_METHODS = ["GET", "HEAD"]
# Scripts and styles come from files of this service and are never in the page itself; pictures that the user chose are
# `blob:` of the browser. Nothing may turn text into markup or scripts.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file as it is sent.

    Attributes:
        content: its bytes.
        kind: its media type.
        etag: quoted.
    """

    content: bytes
    kind: str
    etag: str

    def answer(self, request: Request) -> Response:
        """The file, or that the client has it already."""
        headers = {"ETag": self.etag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
        known = request.headers.get("if-none-match", "")
        if self.etag in (each.strip().removeprefix("W/") for each in known.split(",")):
            return Response(None, 304, headers)
        return Response(self.content, headers=headers, media_type=self.kind)


def read_page_files() -> dict[str, PageFile]:
    """All files, by what stands in their address after `PAGE_FILES`."""
    pages, examples = files("service") / "pages", files("model") / "bundled" / "examples"
    return _read_folder(pages, "") | _read_folder(examples, "examples/")


def page_router() -> APIRouter:
    """The pages and their files; nobody needs a key for them."""
    router = APIRouter(include_in_schema=False)
    found = read_page_files()
    _add_page(router, "/", found["index.html"])
    _add_page(router, "/docs", found["docs.html"])

    @router.api_route(PAGE_FILES + "{name:path}", methods=_METHODS)
    async def page_file(request: Request, name: str) -> Response:
        if name not in found:
            raise NotFound
        return found[name].answer(request)

    return router


def _add_page(router: APIRouter, path: str, page: PageFile) -> None:
    @router.api_route(path, methods=_METHODS)
    async def whole_page(request: Request) -> Response:
        return page.answer(request)


def _read_folder(folder: Traversable, prefix: str) -> dict[str, PageFile]:
    """The files of a folder that have one of our types."""
    found = {prefix + entry.name: (entry, _TYPES.get(PurePath(entry.name).suffix)) for entry in folder.iterdir()}
    return {name: _read(entry, kind) for name, (entry, kind) in found.items() if kind is not None}


def _read(entry: Traversable, kind: str) -> PageFile:
    content = entry.read_bytes()
    return PageFile(content, kind, f'"{sha256(content).hexdigest()[:32]}"')
