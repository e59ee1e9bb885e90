"""The admin port as an ASGI app: the API requires the key; overview, metrics and probes do not."""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from reactor.admin.handlers import AdminHandlers
from reactor.admin.key_verifier import KeyVerifier
from reactor.admin.openapi import describe
from reactor.admin.parameters import ApiError
from reactor.admin.routes import Operation, operations
from reactor.admin.schemas import ErrorAnswer
from reactor.errors import SettingError, Unavailable
from reactor.protocol.data import json_of
from reactor.server.metrics import Metrics
from reactor.server.node import Node

log = structlog.get_logger()

Endpoint = Callable[[Request], Awaitable[Response]]

_JSON = "application/json"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_CODES = {404: "not_found", 405: "bad_method"}
_TWO_LENGTHS = ApiError(
    400,
    "bad_request",
    "a request may not have both Content-Length and Transfer-Encoding.",
    {"Connection": "close"},
)
_encode = msgspec.json.Encoder(enc_hook=json_of).encode


def make_app(node: Node, key: bytes) -> ASGIApp:
    """The app of one node; `key` is the admin key."""
    metrics = Metrics(node)
    table = operations(AdminHandlers(node))
    description = _encode(describe(table))

    async def show_metrics(request: Request) -> Response:
        page, kind = await metrics.page(request.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": kind, **_SECURITY_HEADERS})

    async def openapi(_request: Request) -> Response:
        return Response(description, media_type=_JSON, headers=_SECURITY_HEADERS)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_request: Request) -> Response:
        ready, reason = node.readiness.status()
        return PlainTextResponse(reason, 200 if ready else 503)

    routes = [
        Route("/metrics", show_metrics),
        Route("/openapi.json", openapi),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        *(Route(path, handler) for path, handler in _static_files()),
        *(Route(each.path, _handler(each), methods=[each.method]) for each in table),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _routing_error})
    app.router.redirect_slashes = False
    verifier = KeyVerifier(key)
    node.on_secrets.append(lambda settings: verifier.use_key(settings.admin_key or key))
    return _RequireKey(app, verifier)


class _RequireKey:
    """Rejects requests to `/v1/` without the key, and passes paths on without decoding them.

    An id may contain a slash, so a path must be split into its parts before they are percent-decoded.
    """

    def __init__(self, app: ASGIApp, keys: KeyVerifier) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        raw: bytes = scope.get("raw_path") or b"/"
        path = raw.partition(b"?")[0].decode("ascii", "replace")
        scope["path"] = path
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            # A proxy in front may have read another body (RFC 9112 section 6.1).
            await _error_response(_TWO_LENGTHS)(scope, receive, send)
            return
        if path.startswith("/v1/"):
            request = Request(scope)
            rejection = await self._reject(request)
            if rejection is not None:
                await rejection(scope, receive, send)
                return
            scope["state"]["connection"].key_shown = True
        await self._app(scope, receive, send)

    async def _reject(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", ""), request.headers.get("x-api-key", "")
        if self._keys.matches(*given):
            return None
        bearer = {"WWW-Authenticate": "Bearer", "Connection": "close"}
        if not any(given):
            sentence = "send the key, as in Authorization: Bearer KEY."
            return _error_response(ApiError(401, "unauthorized", sentence, bearer))
        wait = await self._keys.record_wrong_key(request.client.host if request.client else "")
        if wait:
            sentence = f"too many wrong keys: wait {wait} s."
            headers = {"Retry-After": str(wait), "Connection": "close"}
            return _error_response(ApiError(429, "too_many_wrong_keys", sentence, headers))
        return _error_response(ApiError(401, "unauthorized", "the key is wrong.", bearer))


def _handler(operation: Operation) -> Endpoint:
    async def handle(request: Request) -> Response:
        try:
            return _json(200, await operation.handler(request))
        except ApiError as error:
            return _error_response(error)
        except SettingError as error:
            return _error_response(ApiError(400, "bad_request", str(error)))
        except Unavailable:
            sentence = "Redis does not answer: try again in a moment."
            return _error_response(ApiError(503, "unavailable", sentence, {"Retry-After": "1"}))
        except Exception:
            log.exception("admin_request_failed", method=operation.method, path=operation.path)
            return _error_response(
                ApiError(500, "internal", "the server failed on this request; its log has the error.")
            )

    return handle


async def _routing_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = {
        404: "this path does not exist; see /openapi.json.",
        405: "this path does not support the method; see /openapi.json.",
    }
    headers = dict(getattr(error, "headers", None) or {})
    code, message = _CODES.get(status, "bad_request"), sentence.get(status, "the request is invalid.")
    return _error_response(ApiError(status, code, message, headers))


def _error_response(error: ApiError) -> Response:
    return _json(error.status, ErrorAnswer(code=error.code, message=error.message), error.headers)


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", **_SECURITY_HEADERS, **(headers or {})}
    return Response(_encode(body), status, headers, _JSON)


def _static_files() -> Iterator[tuple[str, Endpoint]]:
    """The path and the handler of each file of the overview; its page is also at `/`.

    The files that it shares with the demo page are read from there.
    """
    shared = (files("reactor") / "web" / name for name in ("base.css", "icon.svg"))
    for file in (*(files("reactor.admin") / "page").iterdir(), *shared):
        kind = _TYPES.get(PurePosixPath(file.name).suffix)
        if kind is not None:
            handler = _static_file(file.read_bytes(), kind)
            yield f"/{file.name}", handler
            if file.name == "index.html":
                yield "/", handler


def _static_file(content: bytes, kind: str) -> Endpoint:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Content-Type": kind, "ETag": tag, "Cache-Control": "no-cache", **_SECURITY_HEADERS}

    async def handle(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    return handle
