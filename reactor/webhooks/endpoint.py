"""One endpoint: a signed POST, and what its answer means."""

import ssl
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from time import time
from typing import Self

import anyio
import httpcore

from reactor.webhooks.guard import GuardedBackend
from reactor.webhooks.signing import signed_headers

TIMEOUT = 20.0
"""Seconds for a whole request; Standard Webhooks asks for 15 to 30."""

_READ_AT_MOST = 65_536  # bytes of an answer's body, which nobody needs
_MOST_PATIENCE = 3600.0

_AGENT = f"reactor/{version('reactor-presence')}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt.

    delivered: the endpoint took it (2xx). gone: it wants no more (410). Else it is to be tried again, `after`
    seconds where the endpoint said so; `why` is for people.
    """

    delivered: bool = False
    gone: bool = False
    after: float | None = None
    why: str = ""


class Endpoint:
    """Where events are sent. Use as a context manager: it keeps a connection open between requests."""

    def __init__(self, url: str, keys: tuple[bytes, ...], *, private: bool) -> None:
        self.url = url
        self.name = sha256(url.encode()).hexdigest()[:16]
        """What Redis keeps its place under: a URL may hold a secret."""
        self._keys = keys
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=1,
            keepalive_expiry=30.0,
            network_backend=None if private else GuardedBackend(),
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
            await self._pool.aclose()

    async def post(self, message_id: str, body: bytes) -> Answer:
        """Send one request; never raises for what the network or the endpoint does."""
        now = int(time())
        headers = {
            "host": _host(self.url),
            "content-type": "application/json",
            "content-length": str(len(body)),
            "user-agent": _AGENT,
        } | signed_headers(self._keys, message_id, now, body)
        try:
            with anyio.fail_after(TIMEOUT):
                async with self._pool.stream(
                    "POST", self.url, headers=list(headers.items()), content=body
                ) as response:
                    await _skim(response)
        except TimeoutError:
            return Answer(why=f"no answer within {TIMEOUT:g} s")
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            return Answer(why=str(error) or type(error).__name__)
        return _answer(response)


async def _skim(response: httpcore.Response) -> None:
    seen = 0
    async for part in response.aiter_stream():
        seen += len(part)
        if seen > _READ_AT_MOST:
            return


def _answer(response: httpcore.Response) -> Answer:
    status = response.status
    if 200 <= status < 300:
        return Answer(delivered=True)
    if status == 410:
        return Answer(gone=True, why="410 Gone")
    return Answer(after=_retry_after(response), why=f"status {status}")


def _retry_after(response: httpcore.Response) -> float | None:
    """Seconds of a Retry-After header, where it names seconds (RFC 9110 section 10.2.3)."""
    for name, value in response.headers:
        if name.lower() == b"retry-after" and value.strip().isdigit():
            return min(float(value), _MOST_PATIENCE)
    return None


def _host(url: str) -> str:
    parts = httpcore.URL(url)
    host = parts.host.decode()
    return host if parts.port is None else f"{host}:{parts.port}"
