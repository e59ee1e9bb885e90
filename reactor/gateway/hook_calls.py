"""Calls of the operator's hook, of which a slow or stuck one takes no place from other clients.

A thread cannot be cancelled: its place is returned when it ends, not when its caller stops waiting. The calls
of one address are limited, and those of one user where it is known, so that a client for which the hook hangs
keeps out no others.
"""

import asyncio
import inspect
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import anyio

HOOK_THREADS = 40
"""Concurrent calls of a hook that is not a coroutine function."""
HOOK_CALLS_PER_ADDRESS = 10
"""Concurrent calls for one address (IPv6: for one /64 network); further ones wait."""
HOOK_CALLS_PER_USER = 2
"""Concurrent calls for one user, where a token says who it is; further ones wait."""


class HookStuck(Exception):
    """Every place that the call could take is held by one whose caller has stopped waiting."""


class HookCalls:
    """Calls a hook in the event loop if it is a coroutine function, otherwise in threads.

    Args:
        hook: The function.
        timeout: Seconds that a call may take, with the wait for a place.

    """

    def __init__(self, hook: Callable[..., Any], timeout: float) -> None:
        self._hook = hook
        self._timeout = timeout
        self._in_threads = not inspect.iscoroutinefunction(hook)
        self._of_users = _Places(HOOK_CALLS_PER_USER)
        self._of_addresses = _Places(HOOK_CALLS_PER_ADDRESS, HOOK_THREADS if self._in_threads else None)

    @property
    def idle(self) -> bool:
        """Whether no call is under way, and none waits."""
        return self._of_users.unused and self._of_addresses.unused

    async def call(self, address: str, *args: Any, user_id: str | None = None) -> Any:
        """Return what the hook returns.

        Args:
            address: The client's, as it is counted: see `addresses.counted_address`.
            args: Of the hook.
            user_id: The user for whom it is called, where that is known.

        Raises:
            HookStuck: At once, where a wait would be in vain.
            TimeoutError: The call, or the wait for a place, took too long.
            Exception: Whatever the hook raises.

        """
        places = [(self._of_addresses, address)]
        if user_id is not None:
            places.insert(0, (self._of_users, user_id))  # who waits for this one holds no other
        if any(kind.is_stuck(key) for kind, key in places):
            raise HookStuck
        with anyio.fail_after(self._timeout):
            held = _Held()
            try:
                for kind, key in places:
                    await kind.take(key)
                    held.add(kind, key)
                if not self._in_threads:
                    return await self._hook(*args)
                result = await self._call_in_thread(held, args)
            finally:
                if not held.by_thread:
                    held.give_back()
            return await result if inspect.isawaitable(result) else result

    async def _call_in_thread(self, held: "_Held", args: tuple[Any, ...]) -> Any:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            held.give_back()
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        def run() -> None:
            result, error = None, None
            try:
                result = self._hook(*args)
            except BaseException as raised:  # noqa: BLE001 - it is raised again where the result is awaited
                error = raised
            with suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(finish, result, error)

        # A daemon, so that a thread that never ends does not keep the process from ending.
        thread = threading.Thread(target=copy_context().run, args=(run,), name="auth hook", daemon=True)
        thread.start()
        held.by_thread = True
        try:
            return await outcome
        except asyncio.CancelledError:
            if outcome.cancelled():
                held.abandon()
            raise


class _Places:
    """Places for calls: a limited number for each key, and for all together.

    per_key: places of one key. total: places of all; None is no limit.
    """

    def __init__(self, per_key: int, total: int | None = None) -> None:
        self._per_key, self._total = per_key, total
        self._taken = Counter[str]()
        self._abandoned = Counter[str]()  # of these, by calls in a thread and without a caller
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def unused(self) -> bool:
        """Whether no place is taken, and no call waits for one."""
        return not (self._taken or self._abandoned or self._waiting)

    def is_stuck(self, key: str) -> bool:
        """Return whether all places that the key could have are held by calls without a caller."""
        if self._abandoned.get(key, 0) >= self._per_key:
            return True
        return self._total is not None and self._abandoned.total() >= self._total

    async def take(self, key: str) -> None:
        """Take a place; wait until there is one."""
        if self._has_place(key):
            self._taken[key] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turns = self._waiting.setdefault(key, deque())
        turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.give_back(key)  # it was given the place in the same moment
            elif turn in turns:
                turns.remove(turn)
                self._forget_if_empty(key)
            raise

    def abandon(self, key: str) -> None:
        """Note that no caller waits any more for the call that has the place."""
        self._abandoned[key] += 1

    def give_back(self, key: str, *, abandoned: bool = False) -> None:
        """Return a place, and give it to a call that waits. abandoned: whether `abandon` was called."""
        self._taken[key] -= 1
        self._abandoned[key] -= abandoned
        for counter in (self._taken, self._abandoned):
            if not counter[key]:
                del counter[key]
        for waiting in list(self._waiting):
            if self._has_place(waiting):
                self._serve_next(waiting)
                return

    def _has_place(self, key: str) -> bool:
        if self._total is not None and self._taken.total() >= self._total:
            return False
        return self._taken[key] < self._per_key

    def _serve_next(self, key: str) -> None:
        """Give the place to the next call of a key, after which the other keys come first."""
        turns = self._waiting[key]
        while turns:
            turn = turns.popleft()
            if not turn.done():
                self._taken[key] += 1
                turn.set_result(None)
                break
        self._waiting[key] = self._waiting.pop(key)
        self._forget_if_empty(key)

    def _forget_if_empty(self, key: str) -> None:
        if not self._waiting.get(key, True):
            del self._waiting[key]


class _Held:
    """The places that one call has. by_thread: whether its thread returns them."""

    __slots__ = ("_abandoned", "_places", "by_thread")

    def __init__(self) -> None:
        self._places: list[tuple[_Places, str]] = []
        self._abandoned = self.by_thread = False

    def add(self, kind: _Places, key: str) -> None:
        self._places.append((kind, key))

    def abandon(self) -> None:
        self._abandoned = True
        for kind, key in self._places:
            kind.abandon(key)

    def give_back(self) -> None:
        for kind, key in self._places:
            kind.give_back(key, abandoned=self._abandoned)
