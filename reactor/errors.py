"""One class for each mistake or mishap that a person or a program can meet.

Each message is one line that says what is wrong and what mends it; the command prints it as it stands.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class ReactorError(Exception):
    """The root of all of them: catching it catches what this package raises on purpose."""

    exit_code = 1
    """What the command ends with when nothing else handles the error."""


class SettingError(ReactorError):
    """A setting has a value that it does not take; the line names the setting as it was given."""

    exit_code = 2


class RedisUnreachable(ReactorError):
    """No connection to Redis: nobody listens, the name is unknown, or no answer came in time."""


class RedisMisconfigured(ReactorError):
    """Redis answered, but does not let us work: wrong password, no permission, no TLS."""


class RedisTooOld(ReactorError):
    """The server is older than Redis 7.0, or is no Redis."""


class EmbeddedServerError(ReactorError):
    """The server of our own, started where no Redis was given, could not be found or did not start."""


class AddressInUse(ReactorError):
    """Another program listens on the host and port that we were to serve on."""


class Unavailable(ReactorError):
    """Redis did not take this command now (link down, time-out, writes refused); it may be tried again."""


class NotJoined(ReactorError):
    """The room was not joined on this connection, or is not joined any more."""


class RoomFull(ReactorError):
    """The room has as many members as its rule allows."""


class Refused(ReactorError):
    """The server refused a request, for a reason that has no class of its own; the sentence is the server's.

    `code` is the stable code of the wire's `error`, such as `data_too_big` or `already_joined`.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class ServerUnreachable(ReactorError):
    """No WebSocket could be opened: nobody listens, the name is unknown, or what answered is no reactor."""


class RequestTimedOut(ReactorError, TimeoutError):
    """The server did not answer a request in time. What was asked for may still be done."""


class ConnectionClosed(ReactorError):
    """The WebSocket is closed and will not come back by itself.

    `code` is the close code (RFC 6455 section 7.4), 1006 when none was received.
    """

    def __init__(self, message: str, code: int = 1006) -> None:
        super().__init__(message)
        self.code = code


class ForceLeave(ReactorError):
    """The server ended this member's stay in the room; the text is the message meant for the person.

    `reason` is `inactivity_timeout`, `kicked`, or `left` when the member left on another device; `timestamp`
    is when, in milliseconds since 1970 by Redis's clock.
    """

    def __init__(self, message: str, room_id: str, reason: str, timestamp: int) -> None:
        super().__init__(message)
        self.message = message
        self.room_id = room_id
        self.reason = reason
        self.timestamp = timestamp


@contextmanager
def one_error() -> Iterator[None]:
    """Take what a person can mend out of the groups that task groups wrap it in."""
    try:
        yield
    except BaseExceptionGroup as group:
        mistakes = group.subgroup(ReactorError)
        error: BaseException | None = mistakes
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is None:
            raise
        raise error from None
