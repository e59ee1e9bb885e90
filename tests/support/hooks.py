"""Authentication hooks, as tests name them in `auth_hook`."""

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
