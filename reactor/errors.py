"""The exceptions of this package; most are part of the public Python API.

Each message is one line that says what is wrong and how to fix it; the command prints it unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

UNREADABLE = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""What decoding may raise for bytes that another program wrote: for text that is no UTF-8, and for JSON that
is nested too deeply, msgspec raises errors of Python."""


class ReactorError(Exception):
    """The base class of all exceptions that this package raises on purpose."""

    exit_code = 1
    """The exit code of the command that ends with this error."""


class SettingError(ReactorError):
    """A setting has an invalid value; the message names the setting as it was given."""

    exit_code = 2


class RedisUnreachable(ReactorError):
    """No connection to Redis: refused, host name unknown, or no answer in time."""


class RedisMisconfigured(ReactorError):
    """Redis answered, but cannot be used as configured: wrong password, no permission, no TLS."""


class RedisTooOld(ReactorError):
    """The server is older than Redis 7.0."""


class FormatMismatch(ReactorError):
    """The namespace is in a format that this release does not speak, or has another number of shards."""


class EmbeddedServerError(ReactorError):
    """The embedded server, used when no Redis is configured, was not found or did not start."""


class AddressInUse(ReactorError):
    """Another program listens on the host and port of a server that was to start."""


class Unavailable(ReactorError):
    """Redis did not execute this command (no connection, timeout, writes refused); try it again later."""


class NotJoined(ReactorError):
    """This connection has not joined the room, or has left it."""


class RoomFull(ReactorError):
    """The room has reached its `max_members`."""


class Refused(ReactorError):
    """A request was refused, for a reason without its own class; nothing has changed.

    code: that of the server's `error` message, such as `already_joined` or `forbidden`. A client refuses by
    itself, and sends nothing: `bad_request` is what cannot be encoded, `too_big` what exceeds a limit of the
    server. Codes do not change. retry_after: after how many seconds to try again, where the server says.
    until: when the ban of a user ends (ms since 1970), of `banned` alone.
    """

    def __init__(
        self, message: str, code: str, retry_after: float | None = None, until: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.until = until


class ServerUnreachable(ReactorError):
    """No WebSocket could be opened: refused, host name unknown, or the server is not a reactor.

    status: the HTTP status of the response, where the server refused the handshake; else None.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TokenFailed(ServerUnreachable):
    """The application's function for the token failed, so no WebSocket can be opened.

    permanent: whether the function asked to stop; otherwise it is called again after a delay.
    """

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class RequestTimedOut(ReactorError, TimeoutError):
    """The server did not answer a request in time. It may still execute it."""


class ConnectionClosed(ReactorError):
    """The WebSocket is closed and the client does not reconnect.

    code: the close code (RFC 6455 section 7.4), 1006 when none was received. until: when the ban of the user
    from every room ends (ms since 1970), where that is why; else None.
    """

    def __init__(self, message: str, code: int = 1006, until: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.until = until


class ForceLeave(ReactorError):
    """The server removed this member from the room. The message is meant for the user.

    reason: `inactivity_timeout`, `kicked`, `banned`, or `left` when the user left on another device; other
    reasons may be added. timestamp: milliseconds since 1970, by Redis's clock. until: when a ban ends,
    likewise; None for other reasons.
    """

    def __init__(
        self, message: str, room_id: str, reason: str, timestamp: int, until: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.room_id = room_id
        self.reason = reason
        self.timestamp = timestamp
        self.until = until


@contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise a ReactorError by itself where a task group has wrapped it in an exception group."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException | None = group.subgroup(ReactorError)
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is None:
            raise
        raise error from None
