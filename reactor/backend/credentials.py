"""The user name and password of connections to Redis, which may be rotated while a server runs.

Redis keeps a connection whose password is replaced later, so only new connections need the present one.
"""

from collections.abc import Callable

import structlog
from anyio import to_thread
from redis.credentials import CredentialProvider

from reactor.backend.target import parse_url
from reactor.errors import SettingError
from reactor.settings import Settings
from reactor.settings.security import import_function

log = structlog.get_logger()

Login = tuple[str] | tuple[str, str]
"""A password, or a user name and a password."""
ReadLogin = Callable[[], Login | str]


class Credentials(CredentialProvider):
    """Asks `read`, in a thread, for the login of each new connection; the last one holds where it fails."""

    def __init__(self, read: ReadLogin, last: Login | None = None) -> None:
        self._read, self._last = read, last

    async def get_credentials_async(self) -> Login:
        """The login of a new connection. Raises what `read` raises the first time."""
        try:
            login = await to_thread.run_sync(self._read)
        except Exception as error:
            if self._last is None:
                raise SettingError(f"redis_credentials failed: {type(error).__name__}: {error}.") from error
            log.warning("redis_credentials_failed", reason=f"{type(error).__name__}: {error}")
        else:
            self._last = (login,) if isinstance(login, str) else login
        return self._last

    def get_credentials(self) -> Login:
        """The last login; the asynchronous client does not call it."""
        return self._last or ("",)


def credentials_of(settings: Settings, load: Callable[[], Settings] | None) -> Credentials | None:
    """The credentials that settings name, or None where those of the address never change.

    load: reads the settings again; then a password that a file holds may be replaced there. Raises
    SettingError.
    """
    if settings.redis_credentials is not None:
        return Credentials(import_function("redis_credentials", settings.redis_credentials))
    login = _login(settings)
    if login is None or load is None:
        return None
    return Credentials(lambda: _login(load()) or login, login)


def _login(settings: Settings) -> Login | None:
    target = parse_url(settings.redis_url) if settings.redis_url else None
    if target is None or not target.password:
        return None
    return (target.username, target.password) if target.username else (target.password,)
