"""Whom a client may watch: by its token's claim `people`, or as the operator's `people_hook` says.

Answers of the hook are kept for CACHE_TIME, so that a page that is opened again asks nothing twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from reactor.gateway.connection import Connection
from reactor.gateway.hook_calls import HookCalls, HookStuck
from reactor.log import RateLimitedLog
from reactor.protocol.auth_session import AuthSession
from reactor.protocol.identity import Identity
from reactor.settings import Settings
from reactor.settings.security import import_function

log = structlog.get_logger(__name__)

CACHE_TIME = 60.0
"""Seconds for which an answer of the hook holds."""
MAX_CACHED = 100_000
"""Answers that are kept at most: about 20 MB."""


class PeopleHookFailed(Exception):
    """The `people_hook` failed, or took too long: it is unknown whom the viewer may watch."""


PeopleHook = Callable[[str | None, list[str]], Iterable[str] | Awaitable[Iterable[str]]]
"""Called with the viewer's user id (None where tokens are not required) and up to 1,000 user ids. Returns
those of them that the viewer may watch."""


def identity_of(connection: Connection) -> Identity | None:
    """Return the identity that a connection has proved; None where tokens are not required."""
    session = connection.session
    return session.identity if isinstance(session, AuthSession) else None


class PeopleRights:
    """Decides whom a connection may watch.

    Raises:
        SettingError: The hook cannot be loaded.

    """

    def __init__(self, settings: Settings) -> None:
        self._calls: HookCalls | None = None
        if settings.people_hook:
            hook: PeopleHook = import_function("people_hook", settings.people_hook)
            self._calls = HookCalls(hook, settings.auth_timeout)
        self._requires_tokens = settings.requires_tokens
        self._clock = asyncio.get_running_loop().time
        self._answers: dict[tuple[str | None, str], tuple[bool, float]] = {}
        self._log = RateLimitedLog()

    def may_learn_rooms(self, connection: Connection) -> bool:
        """Return whether a connection learns in which rooms users are."""
        identity = identity_of(connection)
        return identity is not None and identity.where

    def may_still_watch(self, connection: Connection, user_id: str) -> bool:
        """Return whether a connection may watch a user whom it watches, with the token that it has now."""
        identity = identity_of(connection)
        return self._calls is not None or (identity is not None and identity.may_watch(user_id))

    async def allowed(self, connection: Connection, user_ids: Sequence[str]) -> set[str]:
        """Return those of some users whom a connection may watch.

        Raises:
            PeopleHookFailed: The hook failed, or took too long.

        """
        identity = identity_of(connection)
        if identity is None and self._calls is None:
            return set() if self._requires_tokens else set(user_ids)
        found = {user for user in user_ids if identity is not None and identity.may_watch(user)}
        if self._calls is not None and len(found) < len(user_ids):
            viewer = identity.user_id if identity is not None else None
            found |= await self._asked(connection, viewer, [user for user in user_ids if user not in found])
        return found

    async def _asked(self, connection: Connection, viewer: str | None, user_ids: list[str]) -> set[str]:
        assert self._calls is not None
        now = self._clock()
        known = {
            user: answer[0]
            for user in user_ids
            if (answer := self._answers.get((viewer, user))) is not None and answer[1] > now
        }
        unknown = [user for user in user_ids if user not in known]
        if unknown:
            address = connection.address.name if connection.address is not None else ""
            may_watch = await self._call(address, viewer, unknown)
            if len(self._answers) + len(unknown) > MAX_CACHED:
                self._answers.clear()
            until = now + CACHE_TIME
            for user in unknown:
                known[user] = user in may_watch
                self._answers[viewer, user] = known[user], until
        return {user for user, may in known.items() if may}

    async def _call(self, address: str, viewer: str | None, user_ids: list[str]) -> frozenset[str]:
        assert self._calls is not None
        try:
            return _checked(await self._calls.call(address, viewer, list(user_ids), user_id=viewer))
        except HookStuck:
            self._log.warning("people_hook_stuck", self._clock(), address=address)
        except TimeoutError:
            self._log.warning("people_hook_timeout", self._clock(), address=address)
        except Exception:
            if self._log.is_due("people_hook_failed", self._clock()):
                log.exception("people_hook_failed")
        raise PeopleHookFailed


def _checked(answer: Any) -> frozenset[str]:
    """Return the users that a hook returned.

    A text or a mapping can be iterated over, too, and would allow those who are named in it for another
    reason; a number would allow no one. Raises TypeError.
    """
    if isinstance(answer, str | bytes | Mapping):
        raise TypeError(f"people_hook must return user ids, such as a set, and not {type(answer).__name__}")
    users = frozenset(answer)
    wrong = next((user for user in users if not isinstance(user, str)), None)
    if wrong is not None:
        raise TypeError(f"people_hook must return user ids as text, and not {type(wrong).__name__}")
    return users
