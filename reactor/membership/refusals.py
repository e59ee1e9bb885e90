"""The sentences with which requests are refused. Each says what to do."""

UNAVAILABLE = "Redis does not answer: try again in a moment, this connection stays open"
FULL = "Redis has no memory left to add anything: try again later, this connection stays open"
INTERNAL = "the server failed on this request; others are served"
NO_AUTH = "this server asks for no token: leave the auth message out"
NO_MESSAGES = "this server does not pass on messages of members: its setting member_messages is off"
ENDED = "this membership has ended: join again"
REFUSED = {
    "full": ("room_full", "the room has as many members as it may have: try again after a member has left"),
    "crowded": (
        "too_many_connections",
        "this user has as many connections in the room as it may have: close one first",
    ),
    "departed": ("not_joined", ENDED),
}
TOO_MANY_HEARTBEATS = (
    "your heartbeats wait for Redis, which does not answer: they count, this one adds nothing"
)
TOO_MANY_HELD = "too many requests of this connection wait: wait for some replies first"
TOO_EXPENSIVE = "what was asked for lately cost too much: wait for retryAfter ms, then send this one again"
