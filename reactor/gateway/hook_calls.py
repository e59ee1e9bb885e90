"""Calls of the operator's hook, of which a slow or stuck one takes no place from other clients.

A thread cannot be cancelled: its place is returned when it ends, not when its caller stops waiting. The calls
of one address are limited, so that clients with tokens on which the hook hangs keep out no others.
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

from reactor.gateway.addresses import counted_address

HOOK_THREADS = 40
"""Concurrent calls of a hook that is not a coroutine function."""
HOOK_CALLS_PER_ADDRESS = 10
"""Concurrent calls for one address (IPv6: for one /64 network); further ones wait."""


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
        self._running = Counter[str]()  # calls by address
        self._abandoned = Counter[str]()  # of these, in a thread and without a caller
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def call(self, address: str, *args: Any) -> Any:
        """Return what the hook returns.

        Args:
            address: The client's, which the call is counted under.
            args: Of the hook.

        Raises:
            HookStuck: At once, where a wait would be in vain.
            TimeoutError: The call, or the wait for a place, took too long.
            Exception: Whatever the hook raises.

        """
        address = counted_address(address)
        if (
            self._abandoned.get(address, 0) >= HOOK_CALLS_PER_ADDRESS
            or self._abandoned.total() >= HOOK_THREADS
        ):
            raise HookStuck
        with anyio.fail_after(self._timeout):
            await self._take_place(address)
            if self._in_threads:
                result = await self._call_in_thread(address, args)
                return await result if inspect.isawaitable(result) else result
            try:
                return await self._hook(*args)
            finally:
                self._return_place(address)

    async def _call_in_thread(self, address: str, args: tuple[Any, ...]) -> Any:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            if outcome.done():
                self._abandoned[address] -= 1
            self._return_place(address)
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
        try:
            thread.start()
        except RuntimeError:
            self._return_place(address)
            raise
        try:
            return await outcome
        except asyncio.CancelledError:
            if outcome.cancelled():
                self._abandoned[address] += 1
            raise

    async def _take_place(self, address: str) -> None:
        if self._has_place(address):
            self._running[address] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turns = self._waiting.setdefault(address, deque())
        turns.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._return_place(address)  # it was given the place in the same moment
            elif turn in turns:
                turns.remove(turn)
                self._forget_if_empty(address)
            raise

    def _has_place(self, address: str) -> bool:
        if self._in_threads and self._running.total() >= HOOK_THREADS:
            return False
        return self._running[address] < HOOK_CALLS_PER_ADDRESS

    def _return_place(self, address: str) -> None:
        self._running[address] -= 1
        for counter in (self._running, self._abandoned):
            if not counter[address]:
                del counter[address]
        for waiting in list(self._waiting):
            if self._has_place(waiting):
                self._serve_next(waiting)
                return

    def _serve_next(self, address: str) -> None:
        """Give the place to the next call of an address, after which the other addresses come first."""
        turns = self._waiting[address]
        while turns:
            turn = turns.popleft()
            if not turn.done():
                self._running[address] += 1
                turn.set_result(None)
                break
        self._waiting[address] = self._waiting.pop(address)
        self._forget_if_empty(address)

    def _forget_if_empty(self, address: str) -> None:
        if not self._waiting.get(address, True):
            del self._waiting[address]
