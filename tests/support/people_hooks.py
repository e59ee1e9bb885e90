"""Functions that say whom a user may watch, as tests name them in `people_hook`."""

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

CALLS: list[tuple[str | None, list[str]]] = []
RELEASED = threading.Event()
WRONG: dict[str, Any] = {
    "nothing": None,
    "a truth": True,
    "text": "bob",
    "bytes": b"bob",
    "flags": {"bob": False},
    "numbers": [7],
    "lists": [["bob"]],
}
"""What a hook must not return, by the viewer for whom it does."""


async def friends(viewer: str | None, user_ids: list[str]) -> Iterable[str]:
    """Every user whose id begins with `friend`, and one who was not asked for."""
    CALLS.append((viewer, user_ids.copy()))
    match viewer:
        case "broken":
            raise LookupError("the user database is down")
        case "slow":
            await asyncio.sleep(60)
    found = WRONG.get(viewer or "", [user for user in user_ids if user.startswith("friend")] + ["other"])
    user_ids.clear()  # what a hook does to its argument changes nothing here
    return found  # type: ignore[no-any-return]


def friends_in_a_thread(viewer: str | None, user_ids: list[str]) -> Iterable[str]:
    """The same, by a function that may block; yields them one by one."""
    CALLS.append((viewer, user_ids))
    if viewer == "slow":
        RELEASED.wait(60)
    return (user for user in user_ids if user.startswith("friend"))
