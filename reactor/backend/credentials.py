"""The user name and password of connections to Redis, which may be rotated while a server runs.

Redis keeps a connection whose password is replaced later, so only new connections need the present one.
"""

import asyncio
from collections.abc import Callable
from inspect import iscoroutine

import anyio
import structlog
from redis.credentials import CredentialProvider

from reactor.backend.target import parse_url
from reactor.errors import RedisUnreachable, SettingError
from reactor.settings import Settings
from reactor.settings.security import import_function
from reactor.tasks import run_in_daemon_thread

log = structlog.get_logger()

READ_TIMEOUT = 2.0
"""Seconds for a login to be read before a connection uses the last one; a connection may take 3 s in all."""
FIRST_READ_TIMEOUT = 5.0
"""Seconds for the first one."""

Login = tuple[str] | tuple[str, str]
"""A password, or a user name and a password."""
ReadLogin = Callable[[], Login | str]


class Credentials(CredentialProvider):
    """Asks `read`, in a thread, for the login of each new connection; the last one holds where it fails.

    function: the name of the operator's function; None where `read` reads the settings.
    """

    def __init__(self, read: ReadLogin, last: Login | None = None, *, function: str | None = None) -> None:
        self._read, self._last, self.function = read, last, function
        self._reading: asyncio.Task[Login] | None = None

    async def get_credentials_async(self) -> Login:
        """The login of a new connection. Without a last one it raises SettingError or RedisUnreachable."""
        # A call that hangs is not made again beside itself; its result is used as soon as it is there.
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._ask())
            self._reading.add_done_callback(_retrieve)
        try:
            with anyio.fail_after(READ_TIMEOUT if self._last else FIRST_READ_TIMEOUT):
                return await asyncio.shield(self._reading)
        except TimeoutError:
            problem = f"no answer within {READ_TIMEOUT:g} s"
            if self._last is None:
                raise RedisUnreachable(
                    f"{self._name} did not return within {FIRST_READ_TIMEOUT:g} s."
                ) from None
        except Exception as error:
            problem = _one_line(error)
            if self._last is None:
                raise SettingError(f"{self._name} failed: {problem}.") from error
        log.warning("redis_credentials_failed", reason=problem)
        return self._last

    async def _ask(self) -> Login:
        self._last = login = checked_login(await run_in_daemon_thread(self._read_caught))
        return login

    def _read_caught(self) -> Login | str:
        try:
            return self._read()
        except (SystemExit, KeyboardInterrupt) as error:  # the function's own, which must not end the server
            raise RuntimeError(_one_line(error)) from error

    @property
    def _name(self) -> str:
        return f"redis_credentials {self.function}" if self.function else "reading the password of Redis"

    def get_credentials(self) -> Login:
        """The last login; the asynchronous client does not call it."""
        return self._last or ("",)


def checked_login(found: object) -> Login:
    """Return what a function returned as a login. Raises TypeError or ValueError where it is none."""
    if iscoroutine(found):
        found.close()
        raise TypeError("it is async; make it a plain function, which is called in a thread")
    parts = (found,) if isinstance(found, str) else tuple(found) if isinstance(found, tuple | list) else ()
    if not 1 <= len(parts) <= 2 or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"it returned {_kind(found)}; return a password, or (user, password)")
    if not all(parts):
        raise ValueError("it returned an empty user or password")
    if any(map(_unencodable, parts)):
        raise ValueError("it returned text that is no UTF-8")
    return parts


def _retrieve(task: asyncio.Task[Login]) -> None:
    """Retrieve the error of a call for which no connection waits any more, so that asyncio logs none."""
    if not task.cancelled():
        task.exception()


def _kind(found: object) -> str:
    """What was returned, without any secret in it."""
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {', '.join(type(part).__name__ for part in found) or 'nothing'}"
    return type(found).__name__


def _unencodable(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _one_line(error: BaseException) -> str:
    text = str(error).partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def credentials_of(settings: Settings, load: Callable[[], Settings] | None) -> Credentials | None:
    """The credentials that settings name, or None where those of the address never change.

    load: reads the settings again; then a password that a file holds may be replaced there. Raises
    SettingError.
    """
    if settings.redis_credentials is not None:
        name = settings.redis_credentials
        return Credentials(import_function("redis_credentials", name), function=name)
    login = _login(settings)
    if login is None or load is None:
        return None
    return Credentials(lambda: _login(load()) or login, login)


def _login(settings: Settings) -> Login | None:
    target = parse_url(settings.redis_url) if settings.redis_url else None
    if target is None or not target.password:
        return None
    return (target.username, target.password) if target.username else (target.password,)
