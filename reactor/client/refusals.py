"""The server's `error` messages as exceptions, with its own sentence."""

from reactor.errors import NotJoined, ReactorError, Refused, RoomFull, Unavailable
from reactor.protocol.messages import ErrorMessage

_CLASSES: dict[str, type[ReactorError]] = {
    "not_joined": NotJoined,
    "room_full": RoomFull,
    "unavailable": Unavailable,
}

_PASSING = frozenset({"too_many_pending", "too_many_requests", "internal"})


def refusal(message: ErrorMessage) -> ReactorError:
    """Return the exception for an `error`."""
    known = _CLASSES.get(message.code)
    return known(message.message) if known is not None else Refused(message.message, message.code)


def passes(error: ReactorError) -> bool:
    """Whether the same request may be taken a moment later."""
    return isinstance(error, Unavailable | NotJoined) or (
        isinstance(error, Refused) and error.code in _PASSING
    )
