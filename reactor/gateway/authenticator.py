"""From a token to an identity: by the keys, or by a function of the operator's own."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from reactor.errors import SettingError
from reactor.protocol.identity import Identity, Unauthorised, checked
from reactor.protocol.limits import Limits
from reactor.settings import Settings

THREADS = 40
"""Calls at a time of a hook that is no coroutine function."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a socket came, for a hook.

    Attributes:
        address: The client's, or the one that trusted proxies name.
        path: Of the request, with its query.
        headers: Of the request; names in any case.

    """

    address: str
    path: str
    headers: Mapping[str, str]


Hook = Callable[[str, Arrival], Identity | Awaitable[Identity]]


class Authenticator:
    """Says whom a token proves.

    Attributes:
        takes_time: Whether a hook is asked.

    Raises:
        SettingError: The keys or the hook cannot be had.

    """

    def __init__(self, settings: Settings) -> None:
        self._limits = Limits(max_id=settings.max_id, max_data=settings.max_data)
        self._rooms = settings.auth_rooms
        self._patience = settings.auth_timeout
        self._hook = load_hook(settings.auth_hook) if settings.auth_hook else None
        from reactor.gateway.tokens import Keys  # noqa: PLC0415 - cryptography takes its time to load

        self._keys = Keys(settings)
        self._threads: anyio.CapacityLimiter | None = None
        self.takes_time = self._hook is not None

    def reload(self) -> None:
        """Read the keys again, if they have changed."""
        self._keys.reload()

    def at_once(self, token: str) -> Identity | None:
        """Return who the token proves one is; None where that takes time.

        Raises:
            Unauthorised: The token is not good.

        """
        if self.takes_time:
            return None
        return checked(self._keys.identify(token), self._limits, self._rooms)

    async def ask(self, token: str, arrival: Arrival) -> Identity:
        """Return what the hook says.

        Raises:
            Unauthorised: The hook does not take the token.
            Exception: The hook failed, in whatever way, or took longer than it may (TimeoutError).

        """
        with anyio.fail_after(self._patience):
            identity = await self._call(token, arrival)
        if not isinstance(identity, Identity):
            raise TypeError(f"auth_hook gave {type(identity).__name__}, not a reactor.Identity")
        return checked(identity, self._limits, self._rooms)

    async def _call(self, token: str, arrival: Arrival) -> Any:
        hook = self._hook
        assert hook is not None
        if inspect.iscoroutinefunction(hook):
            return await hook(token, arrival)
        self._threads = self._threads or anyio.CapacityLimiter(THREADS)
        identity = await anyio.to_thread.run_sync(
            hook, token, arrival, abandon_on_cancel=True, limiter=self._threads
        )
        return await identity if inspect.isawaitable(identity) else identity


def load_hook(name: str) -> Hook:
    """Import a hook by `module:function`; also from the folder that the command runs in.

    Raises:
        SettingError: One line, with what is wrong.

    """
    module, _, path = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        hook = attrgetter(path)(import_module(module))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise SettingError(f"auth_hook {name} cannot be imported: {said}.") from error
    if not callable(hook):
        raise SettingError(f"auth_hook {name} is no function.")
    return hook  # type: ignore[no-any-return]


__all__ = ["Arrival", "Authenticator", "Hook", "Identity", "Unauthorised", "load_hook"]
