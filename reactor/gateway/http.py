"""Plain HTTP on the same port: the page, the client for any page, and whether this node lives and is ready.

Everything is in memory. websockets parses a request without a body and closes after the answer (`Connection:
close`), which is enough for a page of a few files and for the probes of an orchestrator.
"""

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from reactor.gateway.bundle import bundled
from reactor.gateway.tarball import packed

SOCKET_PATH = "/ws"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".tgz": "application/gzip",
    ".ts": "application/typescript; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_FILE_HEADERS = {
    "Cache-Control": "no-cache",  # ask each time; the ETag makes the answer a 304
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FOR_ALL_PAGES = {
    "Access-Control-Allow-Origin": "*",  # a page gets a module only so, from another host
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_WORTH_IT = 1024  # bytes from which on a file is sent compressed
_COMPRESSED = (".png", ".tgz", ".woff2")
_TEXT = "text/plain; charset=utf-8"


class Site:
    """Answers to plain requests.

    Args:
        ready: Tells whether clients are well served now, and why not.
        package: Where the files are, read once: those of its folder `web`, and the client in `js`, which is
            served as `/client.js`, with its types as `/client.d.ts`, and as `/client.tgz` for npm. None is
            fine too.

    """

    def __init__(self, ready: Callable[[], tuple[bool, str]], package: str = "reactor") -> None:
        self._ready = ready
        self._files: dict[str, tuple[bytes, bytes | None, Headers]] = {}
        for path, content in _walk(files(package) / "web", "/"):
            self._add(path, content)
        client = files(package) / "js"
        if client.is_dir():
            # Deno finds the types by this header.
            types = {"X-TypeScript-Types": "./client.d.ts"}
            self._add("/client.js", bundled(client).encode(), _FOR_ALL_PAGES | types)
            self._add("/client.d.ts", (client / "index.d.ts").read_bytes(), _FOR_ALL_PAGES)
            self._add("/client.tgz", packed(client), _FOR_ALL_PAGES)
        if (index := self._files.get("/index.html")) is not None:
            self._files["/"] = index

    def _add(self, path: str, content: bytes, more: Mapping[str, str] | None = None) -> None:
        media = _TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = Headers({"Content-Type": media, "ETag": tag, **_FILE_HEADERS, **(more or {})})
        smaller = None
        if len(content) >= _WORTH_IT and not path.endswith(_COMPRESSED):
            smaller = gzip.compress(content, 9, mtime=0)
            headers["Vary"] = "Accept-Encoding"
        self._files[path] = content, smaller, headers

    def answer(self, request: Request) -> Response | None:
        """Answer a request; None when it asks for the socket."""
        path = request.path.partition("?")[0]
        if request.method == "GET" and path == SOCKET_PATH:
            return None
        if request.method not in {"GET", "HEAD"}:
            response = text(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not served here: use GET")
            response.headers["Allow"] = "GET, HEAD"
        elif path == "/healthz":
            response = text(HTTPStatus.OK, "ok")
        elif path == "/readyz":
            ready, reason = self._ready()
            response = text(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, reason)
        elif path == SOCKET_PATH:
            response = text(HTTPStatus.METHOD_NOT_ALLOWED, "a WebSocket opens with GET")
            response.headers["Allow"] = "GET"
        elif (file := self._files.get(path)) is not None:
            response = _file_response(request, *file)
        else:
            response = text(HTTPStatus.NOT_FOUND, "not found")
        if request.method == "HEAD":
            response.body = b""
        return response


def text(status: HTTPStatus, sentence: str) -> Response:
    """Build an answer of one line of text, after which the connection closes."""
    body = sentence.encode()
    return _response(status, body, Headers({"Content-Type": _TEXT, "Cache-Control": "no-store"}))


def _file_response(request: Request, content: bytes, smaller: bytes | None, headers: Headers) -> Response:
    known = {
        tag.strip().removeprefix("W/")
        for tag in ",".join(request.headers.get_all("If-None-Match")).split(",")
    }
    if headers["ETag"] in known or "*" in known:
        return _response(HTTPStatus.NOT_MODIFIED, b"", headers)
    if smaller is None or not _takes_gzip(request):
        return _response(HTTPStatus.OK, content, headers)
    headers = headers.copy()
    tag = headers["ETag"]
    del headers["ETag"]
    headers["ETag"] = f"W/{tag}"  # other bytes of the same file (RFC 9110 section 8.8.1)
    headers["Content-Encoding"] = "gzip"
    return _response(HTTPStatus.OK, smaller, headers)


def _takes_gzip(request: Request) -> bool:
    asked = ",".join(request.headers.get_all("Accept-Encoding"))
    # RFC 9110 section 12.5.3; a weight of nothing is a refusal.
    return re.search(r"(?:^|,)\s*gzip(?![^\s;,])(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", asked) is not None


def _response(status: HTTPStatus, body: bytes, headers: Headers) -> Response:
    headers = headers.copy()
    if status != HTTPStatus.NOT_MODIFIED:
        headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)


def _walk(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{path}{entry.name}/")
        elif not entry.name.endswith((".py", ".pyc")):
            yield path + entry.name, entry.read_bytes()
