"""Opens WebSockets to a server and authenticates them."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed as SocketClosed
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from reactor.client.open_connection import refusal
from reactor.errors import ConnectionClosed, ServerUnreachable, SettingError
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import Codec, codec_for
from reactor.protocol.messages import AuthOk, ErrorMessage, ServerMessage
from reactor.protocol.requests import Auth

Token = str | Callable[[], Awaitable[str] | str] | None
"""A token, or a function, async or not, that returns a fresh one each time a WebSocket is opened."""

_TOKEN_ERRORS = frozenset({"unauthorized", "token_expired"})

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
        SettingError: The url is invalid.

    """

    def __init__(self, url: str, codec: Codec, token: Token, options: Mapping[str, Any]) -> None:
        self.url = _valid_url(url)
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
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ServerUnreachable(self._sentence(error)) from error
        try:
            return socket, await self._authorise(socket, token)
        except BaseException:
            socket.transport.abort()
            with anyio.CancelScope(shield=True):
                await socket.wait_closed()
            raise

    async def fresh_token(self) -> str | None:
        """Return the token, or None without one. Raises ServerUnreachable when the function for it fails."""
        if not callable(self._token):
            return self._token
        try:
            token = self._token()
            return await token if inspect.isawaitable(token) else token
        except Exception as error:
            raise ServerUnreachable(f"the token function failed ({error!r})") from error

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
                    if isinstance(message, AuthOk):
                        return early
                    if isinstance(message, ErrorMessage) and message.id == 0:
                        if message.code == "auth_disabled":
                            return early
                        if message.code not in _TOKEN_ERRORS:
                            raise refusal(message)
                        refused = message.message  # The server closes next.
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url} did not reply to the token in time") from error
        except SocketClosed as error:
            raise closed_for_good(socket.close_code or 1006, refused or socket.close_reason or "") from error

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            return f"{self.url} responded with HTTP status {status} instead of a WebSocket: check the address"
        if isinstance(error, WebSocketException):
            return f"the server at {self.url} is not a reactor server ({error}): check the address"
        if isinstance(error, TimeoutError):
            return f"{self.url} did not respond in time: check the network and the server"
        return f"cannot connect to {self.url} ({error}): start the server there, or check the address"


def closed_for_good(code: int, reason: str) -> ConnectionClosed:
    """Return the exception for a connection that the server closed for good, with code and reason."""
    return ConnectionClosed(f"the server closed the connection ({code}: {_explanation(code, reason)})", code)


def _explanation(code: int, reason: str) -> str:
    if reason:
        return reason
    name = next((known.name for known in CloseCode if known == code), "no reason given")
    return name.lower().replace("_", " ")


def _valid_url(url: str) -> str:
    message = f'"{url}" is not a WebSocket URL: use one like ws://127.0.0.1:8765/ws'
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise SettingError(message) from error
    if not valid:
        raise SettingError(message)
    return urlunsplit(parts._replace(path="/ws")) if parts.path in ("", "/") else url
