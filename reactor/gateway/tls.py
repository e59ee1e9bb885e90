"""TLS: the certificate, and the step before a socket that speaks it."""

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, cast

import structlog

from reactor.errors import SettingError
from reactor.settings import Settings

if TYPE_CHECKING:
    from reactor.gateway.connection import Connection
    from reactor.gateway.hub import Hub

log = structlog.get_logger(__name__)


class Certificate:
    """What this server proves itself with; new sockets get what was read last.

    Raises:
        SettingError: The files are no certificate and its key.

    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert, self._key = cert, key
        self.context = read(cert, key)

    @classmethod
    def of(cls, settings: Settings) -> "Certificate | None":
        """Return the one that the settings name, if they do. Raises SettingError."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key)

    def reload(self) -> None:
        """Read the files again; where that fails, what was read before stays."""
        try:
            self.context = read(self._cert, self._key)
        except SettingError as error:
            log.warning("certificate_not_reloaded", reason=str(error))
        else:
            log.info("certificate_reloaded", file=str(self._cert))


def read(cert: Path, key: Path) -> ssl.SSLContext:
    """Return a context for a server, TLS 1.2 or later.

    Raises:
        SettingError: One line, with what is wrong.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for setting, path in (("tls_cert", cert), ("tls_key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise SettingError(f"{setting} {path} cannot be read: {error.strerror or error}.") from None
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        said = f"are no certificate and its key: {error.reason or 'they are no PEM'}"
        raise SettingError(f"tls_cert {cert} and tls_key {key} {said}.") from None
    except _Encrypted:
        raise SettingError(f"tls_key {key} has a password: give one without.") from None
    return context


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted


class Doorstep(asyncio.Protocol):
    """A socket before its TLS handshake.

    It is counted, and its opening time-out runs, from the moment it is there: so a handshake that drips in
    costs no more here than it does without TLS.
    """

    def __init__(self, hub: "Hub", connection: "Connection", certificate: Certificate) -> None:
        self._hub = hub
        self._connection = connection
        self._certificate = certificate
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._connection.connection_made(transport)
        if transport.is_closing():
            return
        plain = cast("asyncio.Transport", transport)
        plain.pause_reading()
        self._hub.chores.start(self._secure(plain))

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of it."""
        if not self._lost:
            self._lost = True
            self._connection.connection_lost(exc)

    async def _secure(self, plain: asyncio.Transport) -> None:
        connection = self._connection
        loop = asyncio.get_running_loop()
        try:
            secure = await loop.start_tls(
                plain,
                connection,
                self._certificate.context,
                server_side=True,
                ssl_handshake_timeout=self._hub.open_timeout,
                ssl_shutdown_timeout=self._hub.close_timeout,
            )
        except (OSError, RuntimeError, asyncio.CancelledError):
            # No TLS, or none that fits, or not in time: whoever it was is gone.
            plain.abort()
            self.connection_lost(None)
            return
        assert secure is not None
        connection.secured(secure)
