"""Plain HTTP on the same port: the page, the JavaScript client, and the liveness and readiness probes.

All files are in memory. websockets parses a request without a body, and the connection closes after the
response (`Connection: close`), which is enough for a page of a few files and for the probes of an
orchestrator.
"""

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from reactor.gateway.bundle import bundle, bundle_addition, pack

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
    "Cache-Control": "no-cache",  # revalidate each time; the ETag makes the response a 304
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
CROSS_ORIGIN = {
    "Access-Control-Allow-Origin": "*",  # required for a module from another host
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""Headers of what a page of any origin may read: the client, and why the WebSocket does not open."""
_MIN_COMPRESSED = 1024  # bytes of a file from which on it is sent compressed
_INCOMPRESSIBLE = (".png", ".tgz", ".woff2")
_TEXT = "text/plain; charset=utf-8"


class _File(NamedTuple):
    """What is served of a file; compressed: None where that would not pay."""

    content: bytes
    compressed: bytes | None
    headers: Headers


class Site:
    """Responses to plain HTTP requests.

    Args:
        ready: Returns whether this node can serve clients now, and the reason.
        package: Where the files are, read once: those of its folder `web`, and the client in `js`, which is
            served as `/client.js` and, for people, `/people.js`, with their types as `.d.ts`, and as
            `/client.tgz` for npm. Either folder may be missing.

    """

    def __init__(self, ready: Callable[[], tuple[bool, str]], package: str = "reactor") -> None:
        self._ready, self._files = ready, _files_of(package)

    def respond(self, request: Request) -> Response | None:
        """Return the response to a request; None if it asks for the WebSocket."""
        path = request.path.partition("?")[0]
        if request.method == "GET" and path == SOCKET_PATH:
            return None
        if request.method not in {"GET", "HEAD"}:
            response = text(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not supported: use GET")
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
            response.headers.update(CROSS_ORIGIN)  # for a page whose WebSocket has the wrong path
        if request.method == "HEAD":
            response.body = b""
        return response


def text(status: HTTPStatus, sentence: str) -> Response:
    """Return a response of one line of text, after which the connection closes."""
    body = sentence.encode()
    return _response(status, body, Headers({"Content-Type": _TEXT, "Cache-Control": "no-store"}))


def _file_response(request: Request, content: bytes, compressed: bytes | None, headers: Headers) -> Response:
    cached = {
        tag.strip().removeprefix("W/")
        for tag in ",".join(request.headers.get_all("If-None-Match")).split(",")
    }
    if headers["ETag"] in cached or "*" in cached:
        return _response(HTTPStatus.NOT_MODIFIED, b"", headers)
    if compressed is None or not _accepts_gzip(request):
        return _response(HTTPStatus.OK, content, headers)
    headers = headers.copy()
    tag = headers["ETag"]
    del headers["ETag"]
    headers["ETag"] = f"W/{tag}"  # another encoding of the same file (RFC 9110 section 8.8.1)
    headers["Content-Encoding"] = "gzip"
    return _response(HTTPStatus.OK, compressed, headers)


def _accepts_gzip(request: Request) -> bool:
    accepted = ",".join(request.headers.get_all("Accept-Encoding"))
    # RFC 9110 section 12.5.3; a weight of 0 excludes the encoding.
    return re.search(r"(?:^|,)\s*gzip(?![^\s;,])(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", accepted) is not None


def _response(status: HTTPStatus, body: bytes, headers: Headers) -> Response:
    headers = headers.copy()
    if status != HTTPStatus.NOT_MODIFIED:
        headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    return Response(status.value, status.phrase, headers, body)


@cache
def _files_of(package: str) -> Mapping[str, _File]:
    found = {path: _file(path, content) for path, content in _walk(files(package) / "web", "/")}
    client = files(package) / "js"
    if client.is_dir():
        found |= {path: _file(path, content, extra) for path, content, extra in _client_files(client)}
    if (index := found.get("/index.html")) is not None:
        found["/"] = index
    return found


def _client_files(client: Traversable) -> Iterator[tuple[str, bytes, Mapping[str, str]]]:
    # Deno finds the types with this header.
    typed = {"X-TypeScript-Types": "./client.d.ts"}
    yield "/client.js", bundle(client, additions=["people.js"]).encode(), CROSS_ORIGIN | typed
    yield "/client.d.ts", (client / "index.d.ts").read_bytes(), CROSS_ORIGIN
    typed = {"X-TypeScript-Types": "./people.d.ts"}
    yield "/people.js", bundle_addition(client, "people.js").encode(), CROSS_ORIGIN | typed
    declared = (client / "people.d.ts").read_text(encoding="utf-8").replace("./index.js", "./client.js")
    yield "/people.d.ts", declared.encode(), CROSS_ORIGIN
    yield "/client.tgz", pack(client), CROSS_ORIGIN


def _file(path: str, content: bytes, extra: Mapping[str, str] | None = None) -> _File:
    media = _TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = Headers({"Content-Type": media, "ETag": tag, **_FILE_HEADERS, **(extra or {})})
    if len(content) < _MIN_COMPRESSED or path.endswith(_INCOMPRESSIBLE):
        return _File(content, None, headers)
    headers["Vary"] = "Accept-Encoding"
    return _File(content, gzip.compress(content, 9, mtime=0), headers)


def _walk(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{path}{entry.name}/")
        elif not entry.name.endswith((".py", ".pyc")):
            yield path + entry.name, entry.read_bytes()
