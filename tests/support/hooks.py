"""Authenticators of an operator's own, as tests name them in auth_hook."""

import asyncio
import threading
import time

from reactor import Arrival, Identity, Unauthorised

SEEN: list[tuple[str, Arrival]] = []
STUCK = threading.Event()


async def check(token: str, arrival: Arrival) -> Identity:
    SEEN.append((token, arrival))
    match token:
        case "broken":
            raise LookupError("the table of users is away")
        case "slow":
            await asyncio.sleep(60)
        case "soon" | "ann soon":
            await asyncio.sleep(0.2)
        case "none":
            return None  # type: ignore[return-value]
        case "stale":
            raise Unauthorised("that was yesterday's", "token_expired")
    if not token.startswith("ann"):
        raise Unauthorised("who are you?")
    expires_at = time.time() + 60 if token.endswith("!") else None
    return Identity(token.rstrip("!"), ("lobby",), expires_at=expires_at)


def check_in_a_thread(token: str, _arrival: Arrival) -> Identity:
    if token == "stuck":
        STUCK.wait(60)
    return Identity(token, ("*",))


not_callable = 7
