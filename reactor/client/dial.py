"""Opens WebSockets to a server and authenticates them."""

import asyncio
import inspect
import ssl
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed as SocketClosed
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.http11 import Response
from websockets.typing import Subprotocol

from reactor.client.open_connection import refusal
from reactor.errors import ConnectionClosed, ServerUnreachable, SettingError, TokenFailed
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import Codec, codec_for
from reactor.protocol.json_value import plain_text
from reactor.protocol.messages import AuthOk, ErrorMessage, ProtocolError, ServerMessage
from reactor.protocol.requests import Auth

Token = str | Callable[[], Awaitable[str | None] | str | None] | None
"""A token, or a function, async or not, that returns a fresh one each time a WebSocket is opened.

The function stops the client by returning None, or by an exception whose attribute `permanent` is true.
"""

_TOKEN_ERRORS = frozenset({"unauthorized", "token_expired"})

_RESPONSES_OF_A_REACTOR = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)
_LONGEST_SENTENCE = 200

_CERTIFICATE_FIXES = {
    9: "check the clocks of both machines",
    10: "renew it, or that of its authority",
    62: "use a name that it has in the address",
    64: "use a name that it has in the address",
}
"""The fix by OpenSSL's code (X509_V_ERR_...); for any other its authority is not known here."""

_MAX_SIZE = 64 * 1024 * 1024
"""Most bytes of one message: a room of thousands with data takes a few megabytes, from a trusted server."""


class Dialer:
    """Opens WebSockets to one server.

    Args:
        url: `ws://` or `wss://`; the path defaults to `/ws`.
        codec: The encoding to negotiate.
        token: Sent as `auth` first on each WebSocket; None for a server without authentication.
        options: Arguments of websockets' `connect`; they override those set here.

    Raises:
        SettingError: The url or the token is invalid.

    """

    def __init__(self, url: str, codec: Codec, token: Token, options: Mapping[str, Any]) -> None:
        self.url = _valid_url(url)
        if not (token is None or callable(token) or isinstance(token, str)):
            raise SettingError(f"token takes text or a function that returns it, not {type(token).__name__}")
        if isinstance(token, str):
            if not token.isascii():
                raise SettingError("token takes a token, not text that is not ASCII")
            token = plain_text(token)
        self._token = token
        self._options: dict[str, Any] = {
            "subprotocols": [Subprotocol(codec.subprotocol)],
            "open_timeout": 10.0,
            "close_timeout": 5.0,
            # Heartbeats detect a dead connection, also without any room.
            "ping_interval": None,
            "max_size": _MAX_SIZE,
            **options,
        }

    @property
    def can_renew(self) -> bool:
        """Whether a fresh token can be fetched."""
        return callable(self._token)

    async def open(self) -> tuple[ClientConnection, list[ServerMessage]]:
        """Open a WebSocket; return it with the messages that the server sent before it accepted the token.

        Raises:
            ServerUnreachable: No WebSocket could be opened.
            TokenFailed: The function for the token failed.
            ConnectionClosed: The server closed it at once; with 4001 when it refused two tokens in a row.
            ReactorError: The server refused the token for another reason.

        """
        try:
            return await self._open()
        except ConnectionClosed as error:
            if error.code != CloseCode.UNAUTHORISED or not self.can_renew:
                raise
        return await self._open()

    async def _open(self) -> tuple[ClientConnection, list[ServerMessage]]:
        token = await self.fresh_token()
        try:
            socket = await connect(self.url, **self._options)
        except (OSError, TimeoutError, WebSocketException, UnicodeError) as error:
            # UnicodeError: the name of the host is not one.
            raise self._unreachable(error) from error
        try:
            return socket, await self._authorise(socket, token)
        except BaseException:
            socket.transport.abort()
            with anyio.CancelScope(shield=True):
                await socket.wait_closed()
            raise

    async def fresh_token(self) -> str | None:
        """Return the token, or None without one. Raises TokenFailed when the function for it fails."""
        if not callable(self._token):
            return self._token
        seconds: float | None = self._options["open_timeout"]
        limit = anyio.CancelScope()
        try:
            with anyio.fail_after(seconds) as limit:
                given: Any = self._token()
                token = await given if inspect.isawaitable(given) else given
        except asyncio.CancelledError as error:
            # Of this task, or only of something that the function waited for.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise TokenFailed("the token function was cancelled", permanent=False) from error
        except Exception as error:
            problem = f"failed ({error!r})"
            if isinstance(error, TimeoutError) and limit.cancelled_caught:
                problem = f"has not returned within {seconds:g} s"
            permanent = bool(getattr(error, "permanent", False))
            raise TokenFailed(f"the token function {problem}", permanent=permanent) from error
        if token is None:
            raise TokenFailed("the token function returned None, so the client stops", permanent=True)
        if not isinstance(token, str) or not token.isascii():
            kind = "text that is not ASCII" if isinstance(token, str) else type(token).__name__
            raise TokenFailed(f"the token function returned {kind}, not a token", permanent=False)
        return plain_text(token)

    async def _authorise(self, socket: ClientConnection, token: str | None) -> list[ServerMessage]:
        early: list[ServerMessage] = []
        if token is None:
            return early
        refused = ""
        codec = codec_for(socket.subprotocol)
        try:
            with anyio.fail_after(self._options["open_timeout"]):
                await socket.send(codec.encode(Auth(token, id=0)), text=not codec.binary)
                while True:
                    message = codec.decode_reply(await socket.recv(decode=False))
                    if message is not None:
                        early.append(message)
                    if _is_accepted(message):
                        return early
                    if isinstance(message, ErrorMessage) and message.id == 0:
                        if message.code not in _TOKEN_ERRORS:
                            raise refusal(message)
                        refused = message.message  # The server closes next.
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url} did not reply to the token in time") from error
        except ProtocolError as error:
            raise self._unreachable(error) from error
        except SocketClosed as error:
            raise closed_by_server(socket.close_code or 1006, refused or socket.close_reason or "") from error

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            return ServerUnreachable(f"{self.url} {_refused_handshake(error.response)}", status)
        if isinstance(error, WebSocketException | ProtocolError):
            sentence = f"the server at {self.url} is not a reactor server ({error}): check the address"
            if self.url.startswith("ws://"):
                sentence += ", which begins with wss:// where the server has TLS"
        elif isinstance(error, ssl.SSLError):
            sentence = f"cannot connect to {self.url}: {_tls_problem(error)}"
        elif isinstance(error, TimeoutError):
            sentence = f"{self.url} did not respond in time: check the network and the server"
        else:
            sentence = f"cannot connect to {self.url} ({error}): start the server there, or check the address"
        return ServerUnreachable(sentence)


def _tls_problem(error: ssl.SSLError) -> str:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS fails ({error.reason}): check the port, and use ws:// where the server has no TLS"
    fix = _CERTIFICATE_FIXES.get(
        error.verify_code,
        "name the file of its authority in SSL_CERT_FILE, or give a context as the option ssl",
    )
    return f"its certificate cannot be verified ({error.verify_message.rstrip('.')}): {fix}"


def _is_accepted(message: ServerMessage | None) -> bool:
    """Return whether this is the reply that accepts a token, or needs none."""
    if isinstance(message, ErrorMessage):
        return message.id == 0 and message.code == "auth_disabled"
    return isinstance(message, AuthOk)


def _refused_handshake(response: Response) -> str:
    status = response.status_code
    said = bytes(response.body or b"").decode(errors="replace").strip()
    # The sentence of a reactor server; that of a proxy may be a whole page.
    said = said if said.isprintable() and len(said) <= _LONGEST_SENTENCE else ""
    if status == HTTPStatus.FORBIDDEN:
        said = said or "origin not allowed"
    if status in _RESPONSES_OF_A_REACTOR and said:
        return f"refused the connection (HTTP status {status}: {said})"
    return f"responded with HTTP status {status} instead of a WebSocket: check the address"


def closed_by_server(code: int, reason: str) -> ConnectionClosed:
    """Return the exception for a connection that the server closed, with code and reason."""
    return ConnectionClosed(f"the connection was closed ({code}: {_explanation(code, reason)})", code)


def _explanation(code: int, reason: str) -> str:
    if reason:
        return reason
    name = next((known.name for known in CloseCode if known == code), "no reason given")
    return name.lower().replace("_", " ")


def _valid_url(url: str) -> str:
    message = f'"{url}" is not a WebSocket URL: use one like ws://127.0.0.1:8765/ws'
    try:
        parts = urlsplit(plain_text(url))
        valid = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except (ValueError, TypeError) as error:
        raise SettingError(message) from error
    if not valid:
        raise SettingError(message)
    return urlunsplit(parts._replace(path="/ws")) if parts.path in ("", "/") else url
