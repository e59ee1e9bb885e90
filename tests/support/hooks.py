"""Hooks, as tests name them in `auth_hook` and `people_hook`."""

import asyncio
import threading
import time

from reactor import Arrival, Identity, Unauthorised

CALLS: list[tuple[str, Arrival]] = []
RELEASED = threading.Event()


async def check(token: str, arrival: Arrival) -> Identity:
    CALLS.append((token, arrival))
    match token:
        case "broken":
            raise LookupError("the user database is down")
        case "slow":
            await asyncio.sleep(60)
        case "soon" | "ann soon":
            await asyncio.sleep(0.2)
        case "none":
            return None  # type: ignore[return-value]
        case "stale":
            raise Unauthorised("the token is from yesterday", "token_expired")
    if not token.startswith("ann"):
        raise Unauthorised("who are you?")
    expires_at = time.time() + 60 if token.endswith("!") else None
    return Identity(token.rstrip("!"), ("lobby",), expires_at=expires_at)


def check_in_a_thread(token: str, _arrival: Arrival) -> Identity:
    if token == "stuck":
        RELEASED.wait(60)
    return Identity(token, ("*",))


not_callable = 7

WATCHERS: list[str | None] = []


def may_watch_in_a_thread(viewer: str | None, user_ids: list[str]) -> list[str]:
    """Hang where a user is named "stuck…"; otherwise everyone may watch everyone."""
    WATCHERS.append(viewer)
    if user_ids[0].startswith("stuck"):
        RELEASED.wait(60)
    return user_ids
