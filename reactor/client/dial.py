"""From an address to an open, authorised socket; and what to say where there is none."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed as SocketClosed
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from reactor.client.refusals import refusal
from reactor.errors import ConnectionClosed, ServerUnreachable, SettingError
from reactor.protocol.closing import CloseCode
from reactor.protocol.codec import Codec, codec_for
from reactor.protocol.messages import AuthOk, ErrorMessage, ServerMessage
from reactor.protocol.requests import Auth

Token = str | Callable[[], Awaitable[str] | str] | None
"""What proves who one is: a token, or a function that gets a fresh one each time a socket is opened."""

_NOT_GOOD = frozenset({"unauthorized", "token_expired"})

_MAX_SIZE = 64 * 1024 * 1024
"""Bytes of one message; a room of thousands with data is a few megabytes, and the server is trusted."""


class Dialler:
    """Opens sockets to one server.

    Args:
        url: `ws://` or `wss://`; without a path, `/ws` is meant.
        codec: What to ask the server to speak.
        token: Sent as `auth` first on each socket.
        options: For websockets' `connect`, over what is set here.

    Raises:
        SettingError: The url is none.

    """

    def __init__(self, url: str, codec: Codec, token: Token, options: Mapping[str, Any]) -> None:
        self.url = _checked(url)
        self._token = token
        self._options: dict[str, Any] = {
            "subprotocols": [Subprotocol(codec.subprotocol)],
            "open_timeout": 10.0,
            "close_timeout": 5.0,
            # Heartbeats tell a dead link, with or without a room.
            "ping_interval": None,
            "max_size": _MAX_SIZE,
            **options,
        }

    @property
    def can_renew(self) -> bool:
        """Whether a fresh token can be had."""
        return callable(self._token)

    async def open(self) -> tuple[ClientConnection, list[ServerMessage]]:
        """Open a socket; also return what the server said before it took the token.

        Raises:
            ServerUnreachable: There was no WebSocket to be had.
            ConnectionClosed: The server closed at once; with 4001 when it did not take two tokens in a row.
            ReactorError: The server refused the token with a sentence.

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
            raise ServerUnreachable(self._explained(error)) from error
        try:
            return socket, await self._authorise(socket, token)
        except BaseException:
            socket.transport.abort()
            with anyio.CancelScope(shield=True):
                await socket.wait_closed()
            raise

    async def fresh_token(self) -> str | None:
        """Return the token, if one is wanted. Raises ServerUnreachable when the function for it fails."""
        if not callable(self._token):
            return self._token
        try:
            token = self._token()
            return await token if inspect.isawaitable(token) else token
        except Exception as error:
            raise ServerUnreachable(f"no token: the function for it failed ({error!r})") from error

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
                        if message.code not in _NOT_GOOD:
                            raise refusal(message)
                        refused = message.message  # the close that follows ends it
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url} did not answer to the token in time") from error
        except SocketClosed as error:
            raise closed(socket.close_code or 1006, refused or socket.close_reason or "") from error

    def _explained(self, error: Exception) -> str:
        if isinstance(error, InvalidStatus):
            status = error.response.status_code
            return f"{self.url} answered with HTTP status {status}, not with a WebSocket: check the address"
        if isinstance(error, WebSocketException):
            return f"what answers at {self.url} is no reactor ({error}): check the address"
        if isinstance(error, TimeoutError):
            return f"{self.url} did not answer in time: is the network there, and the server well?"
        return f"cannot connect to {self.url} ({error}): start the server there, or check the address"


def closed(code: int, reason: str) -> ConnectionClosed:
    """Return what is to be said of a connection that the server closed for good."""
    return ConnectionClosed(f"the server closed the connection ({code}: {_word(code, reason)})", code)


def _word(code: int, reason: str) -> str:
    if reason:
        return reason
    known = next((one.name for one in CloseCode if one == code), "no reason given")
    return known.lower().replace("_", " ")


def _checked(url: str) -> str:
    sentence = f'"{url}" is no address of a server: give one like ws://127.0.0.1:8765/ws'
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise SettingError(sentence) from error
    if not good:
        raise SettingError(sentence)
    return urlunsplit(parts._replace(path="/ws")) if parts.path in ("", "/") else url
