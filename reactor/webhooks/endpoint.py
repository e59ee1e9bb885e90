"""One webhook endpoint: a signed POST, and what its response means."""

import hmac
import ssl
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from time import time
from typing import Literal, Self

import anyio
import httpcore

from reactor.webhooks.ssrf import PublicNetworkBackend

TIMEOUT = 20.0
"""Seconds for a whole request; Standard Webhooks recommends 15 to 30."""

_MAX_RESPONSE_BODY = 65_536
"""Bytes of a response's body that are read, so that the connection can be used again; they are discarded."""
BODY_TIMEOUT = 2.0
"""Seconds for which they are waited for. The status is the answer, whatever becomes of the body."""
_MAX_RETRY_AFTER = 3600.0

Outcome = Literal["delivered", "gone", "too_large", "invalid", "timed_out", "broken", "failed"]
_OUTCOMES: dict[int, Outcome] = {
    400: "invalid", 408: "timed_out", 410: "gone", 413: "too_large", 422: "invalid", 504: "timed_out",
}  # fmt: skip

_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError)

_USER_AGENT = f"reactor/{version('reactor-presence')}"


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of one attempt.

    outcome: `delivered` (2xx), `gone` (410: the endpoint wants no more requests) or `failed`; `too_large`
    (413), `invalid` (400, 422), `timed_out` and `broken` (the connection ended without a response) are
    failures that a request with fewer events may not have.
    retry_after: the seconds after which the endpoint wants the request again. error: for people.
    """

    outcome: Outcome
    retry_after: float | None = None
    error: str = ""


class Endpoint:
    """A URL that events are sent to. An async context manager, which keeps a connection between requests."""

    def __init__(self, url: str, keys: tuple[bytes, ...], *, private: bool) -> None:
        self.url = url
        self.name = sha256(url.encode()).hexdigest()[:16]
        """The name of its position in Redis. It is a hash, because a URL may contain a secret."""
        self.keys = keys
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=1,
            keepalive_expiry=30.0,
            network_backend=None if private else PublicNetworkBackend(),
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
            await self._pool.aclose()

    async def post(self, message_id: str, body: bytes) -> DeliveryResult:
        """Send one request. Failures of the network or the endpoint are results, not exceptions."""
        headers = {
            "host": _host(self.url),
            "content-type": "application/json",
            "content-length": str(len(body)),
            "user-agent": _USER_AGENT,
        } | signed_headers(self.keys, message_id, int(time()), body)
        try:
            with anyio.fail_after(TIMEOUT):
                async with self._pool.stream(
                    "POST", self.url, headers=list(headers.items()), content=body
                ) as response:
                    with anyio.move_on_after(BODY_TIMEOUT), suppress(*_NETWORK_ERRORS):
                        await _discard_body(response)
        except TimeoutError:
            return DeliveryResult("timed_out", error=f"no answer within {TIMEOUT:g} s")
        except _NETWORK_ERRORS as error:
            broken = isinstance(
                error, httpcore.ReadError | httpcore.WriteError | httpcore.RemoteProtocolError
            )
            return DeliveryResult("broken" if broken else "failed", error=_text_of(error))
        return _result(response)


def signed_headers(keys: tuple[bytes, ...], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks (https://www.standardwebhooks.com, section "Signature scheme").

    keys: each makes a signature of its own, so that an old and a new key can be valid at the same time.
    timestamp: seconds since 1970, of this attempt.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (b64encode(hmac.digest(key, content, sha256)).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _text_of(error: BaseException) -> str:
    """What happened, in words: httpcore's own errors often have none, but their causes do."""
    cause: BaseException | None = error
    while cause is not None:
        if text := str(cause):
            return text
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


async def _discard_body(response: httpcore.Response) -> None:
    size = 0
    async for part in response.aiter_stream():
        size += len(part)
        if size > _MAX_RESPONSE_BODY:
            return


def _result(response: httpcore.Response) -> DeliveryResult:
    status, retry_after = response.status, _retry_after(response)
    if 200 <= status < 300:
        return DeliveryResult("delivered")
    outcome = _OUTCOMES.get(status, "failed")
    if outcome == "too_large" and retry_after is not None:  # it is temporary (RFC 9110 section 15.5.14)
        outcome = "failed"
    error = f"status {status}"
    if 300 <= status < 400:
        error += (
            ": redirects are not followed, so that events reach no other address than the one in webhook_urls"
        )
    return DeliveryResult(outcome, retry_after, error)


def _retry_after(response: httpcore.Response) -> float | None:
    """The seconds of a Retry-After header; None for its other form, a date (RFC 9110 section 10.2.3)."""
    for name, value in response.headers:
        if name.lower() == b"retry-after" and value.strip().isdigit():
            return min(float(value), _MAX_RETRY_AFTER)
    return None


def _host(url: str) -> str:
    parts = httpcore.URL(url)
    host = parts.host.decode()
    return host if parts.port is None else f"{host}:{parts.port}"
