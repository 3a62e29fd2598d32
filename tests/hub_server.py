"""A hub on this machine: the part of the Hugging Face hub's HTTP interface that its client uses to download files.

The answers are those that `huggingface_hub.file_download` reads: the commit in X-Repo-Commit, the hash as ETag, the
size, byte ranges, and the reason of a refusal in X-Error-Code.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by name, and how badly the server behaves.

    Attributes:
        repositories: files by name, of each repository.
        gated: repositories that need a token.
        cut_after: bytes of a body after which the connection is closed, once per entry.
        wrong: names of files whose bytes are not those of their hash.
        requests: method, path and Range of every request.
        endpoint: the address.
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut_after: list[int] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    endpoint: str = ""

    def downloads(self, name: str) -> list[str | None]:
        """The Range headers of the requests for the body of a file."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.endswith(f"/{name}")]


@contextmanager
def running_hub(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests read `Hub.requests`."""

    def _answer(self) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        matched = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if matched is None or matched[1] not in self.hub.repositories:
            return self._refuse(401, "RepoNotFound")  # what the real hub says to strangers
        repository, revision, name = matched.groups()
        if repository in self.hub.gated and "Authorization" not in self.headers:
            return self._refuse(401, "GatedRepo")
        if revision not in {"main", COMMIT}:
            return self._refuse(404, "RevisionNotFound")
        content = self.hub.repositories[repository].get(name)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        return self._send(name, content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, name: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        if name in self.hub.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        body = content[start:]
        if name.endswith(".safetensors") and self.hub.cut_after:
            self.wfile.write(body[: self.hub.cut_after.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
        else:
            self.wfile.write(body)
