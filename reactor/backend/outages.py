"""What an error of Redis means for a server that runs: is it a refusal, and the sentence of /readyz."""

import re
from collections.abc import Mapping
from typing import Any

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    ResponseError,
    TryAgainError,
)

NO_ANSWER = "Redis does not answer"
"""The sentence of an outage without any words of Redis's own."""

MAX_CLIENTS = "max number of clients"
"""Words of a server that closes new connections; redis-py raises a ConnectionError with them."""

PROTECTED = "DENIED"
"""The first word of a server in protected mode, which closes connections from other machines."""

_FIXES: Mapping[tuple[str, ...], str] = {
    (
        "NOPERM",
        "permission",
        "can't run this command",
        "ACL failure",
    ): "; `reactor doctor` names the ACL rule that grants it",
    (
        "NOAUTH",
        "WRONGPASS",
        "uthentication",
        "invalid username",
    ): "; correct the password in redis_url, or what redis_credentials returns",
    ("READONLY", "read only replica"): "; it is a replica: use the address of its primary",
    ("MISCONF",): "; see Redis's log, and free its disk",
    ("NOREPLICAS",): "; start its replicas, or lower min-replicas-to-write",
    ("OOM",): "; raise maxmemory",
    (PROTECTED,): "; set a password on the server and in redis_url, or protected-mode no",
}
"""What cures a refusal, by words of the reply."""

_PLACE_IN_SCRIPT = re.compile(r" script: ([0-9a-f]{40}, )?on @user_script.*$")


def is_refusal(reply: Any) -> bool:
    """Whether Redis answered, and did not do what it was asked."""
    redirected = isinstance(reply, MovedError | AskError | TryAgainError)
    return isinstance(reply, ResponseError | AuthenticationError) and not redirected


def brief(reply: str) -> str:
    """Redis's words about its disk without their further sentences, which do not say what to do."""
    return reply.partition(". ")[0] if reply.startswith("MISCONF") else reply


def outage_reason(error: Exception) -> str:
    """What an outage is, in Redis's words where it answered, with the fix: the sentence of /readyz."""
    if isinstance(error, BusyLoadingError):
        return f"{NO_ANSWER}: it is loading its data"
    if MAX_CLIENTS in str(error):
        return f"Redis accepts no connections ({MAX_CLIENTS} reached); raise maxclients"
    if not is_refusal(error):
        return NO_ANSWER
    reply = brief(_PLACE_IN_SCRIPT.sub("", str(error).strip().rstrip(".")))
    fix = next((fix for words, fix in _FIXES.items() if any(word in reply for word in words)), "")
    return f"Redis refuses commands ({reply}){fix}"
