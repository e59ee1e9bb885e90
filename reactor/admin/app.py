"""The admin port as an ASGI app: the API behind its key; page, metrics and probes without one."""

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

from reactor.admin.answers import ErrorAnswer
from reactor.admin.api import Api
from reactor.admin.asked import Problem
from reactor.admin.keys import Keys
from reactor.admin.openapi import describe
from reactor.admin.routes import Endpoint, endpoints
from reactor.errors import SettingError, Unavailable
from reactor.server.metrics import Metrics
from reactor.server.node import Node

log = structlog.get_logger()

Answering = Callable[[Request], Awaitable[Response]]

_JSON = "application/json"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_SAFE = {
    "Content-Security-Policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_CODES = {404: "not_found", 405: "bad_method"}
_encode = msgspec.json.Encoder().encode


def make_app(node: Node, key: bytes) -> ASGIApp:
    """The app for one node."""
    metrics = Metrics(node)
    table = endpoints(Api(node))
    description = _encode(describe(table))

    async def show_metrics(request: Request) -> Response:
        page, kind = await metrics.page(request.headers.get("accept", ""))
        return Response(page, headers={"Content-Type": kind, **_SAFE})

    async def openapi(_request: Request) -> Response:
        return Response(description, media_type=_JSON, headers=_SAFE)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_request: Request) -> Response:
        ready, reason = node.ready()
        return PlainTextResponse(reason, 200 if ready else 503)

    keys = Keys(key)
    routes = [
        Route("/metrics", show_metrics),
        Route("/openapi.json", openapi),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        *(Route(path, answer) for path, answer in _pages()),
        *(Route(one.path, _answering(one), methods=[one.method]) for one in table),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such})
    app.router.redirect_slashes = False
    return _Guard(app, keys)


class _Guard:
    """Lets into `/v1/` who has the key, and gives the app each path as it came.

    An id may hold a slash: only while it is percent-encoded can a path be split into its parts.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        raw: bytes = scope.get("raw_path") or b"/"
        path = raw.partition(b"?")[0].decode("ascii", "replace")
        scope["path"] = path
        if path.startswith("/v1/"):
            request = Request(scope)
            refusal = await self._refuse(request)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refuse(self, request: Request) -> Response | None:
        shown = request.headers.get("authorization", ""), request.headers.get("x-api-key", "")
        if self._keys.right(*shown):
            return None
        bearer = {"WWW-Authenticate": "Bearer", "Connection": "close"}
        if not any(shown):
            sentence = "give the key, as in Authorization: Bearer KEY."
            return _problem(Problem(401, "unauthorized", sentence, bearer))
        wait = await self._keys.refuse(request.client.host if request.client else "")
        if wait:
            sentence = f"too many wrong keys: wait for {wait} s."
            headers = {"Retry-After": str(wait), "Connection": "close"}
            return _problem(Problem(429, "too_many_wrong_keys", sentence, headers))
        return _problem(Problem(401, "unauthorized", "this is not the key.", bearer))


def _answering(one: Endpoint) -> Answering:
    async def answer(request: Request) -> Response:
        try:
            return _json(200, await one.handler(request))
        except Problem as problem:
            return _problem(problem)
        except SettingError as error:
            return _problem(Problem(400, "bad_request", str(error)))
        except Unavailable:
            sentence = "Redis does not answer: try again in a moment."
            return _problem(Problem(503, "unavailable", sentence, {"Retry-After": "1"}))
        except Exception:
            log.exception("an admin request failed", method=one.method, path=one.path)
            return _problem(
                Problem(500, "internal", "the server failed on this request; its log says where.")
            )

    return answer


async def _no_such(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = {
        404: "there is nothing at this path; see /openapi.json.",
        405: "this method does nothing here.",
    }
    headers = dict(getattr(error, "headers", None) or {})
    return _problem(Problem(status, _CODES.get(status, "bad_request"), sentence.get(status, "no."), headers))


def _problem(problem: Problem) -> Response:
    answer = ErrorAnswer(code=problem.code, message=problem.message)
    return _json(problem.status, answer, problem.headers)


def _json(status: int, answer: Any, headers: dict[str, str] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", **_SAFE, **(headers or {})}
    return Response(_encode(answer), status, headers, _JSON)


def _pages() -> Iterator[tuple[str, Answering]]:
    """The files of the page, each under its name; the page itself also under `/`.

    Those that it shares with the live page come from there.
    """
    shared = (files("reactor") / "web" / name for name in ("base.css", "icon.svg"))
    for file in (*(files("reactor.admin") / "page").iterdir(), *shared):
        kind = _TYPES.get(PurePosixPath(file.name).suffix)
        if kind is not None:
            answer = _file(file.read_bytes(), kind)
            yield f"/{file.name}", answer
            if file.name == "index.html":
                yield "/", answer


def _file(content: bytes, kind: str) -> Answering:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Content-Type": kind, "ETag": tag, "Cache-Control": "no-cache", **_SAFE}

    async def answer(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    return answer
