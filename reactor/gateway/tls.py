"""TLS: the certificate, and the layer between a socket and its connection."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import structlog

from reactor.errors import SettingError
from reactor.settings import Settings

if TYPE_CHECKING:
    from reactor.gateway.connection import Connection

log = structlog.get_logger(__name__)

_AT_ONCE = 65536  # bytes of plain text


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
    context.options |= ssl.OP_NO_RENEGOTIATION
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


class Secured(asyncio.Protocol):
    """TLS between a transport and a connection, which takes this for its transport.

    Through memory, so that it takes no task, and what the gateway bounds is bounded here too: a socket is
    counted, and its opening time-out runs, from its first moment, however slowly the handshake drips in.
    """

    __slots__ = ("_connection", "_incoming", "_opened", "_outgoing", "_tls", "_transport")

    _transport: asyncio.Transport

    def __init__(self, connection: "Connection", certificate: Certificate) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = certificate.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._opened = False

    # Towards the network.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Show the socket to the connection; it hears nothing of it before the handshake is over."""
        self._transport = cast("asyncio.Transport", transport)
        self._connection.connection_made(cast("asyncio.Transport", self))

    def data_received(self, data: bytes) -> None:
        """Take encrypted bytes, and hand on what they hold."""
        self._incoming.write(data)
        try:
            if not self._opened:
                self._tls.do_handshake()
                self._opened = True
            while not self._transport.is_closing() and (plain := self._tls.read(_AT_ONCE)):
                self._connection.data_received(plain)
            self._send()
        except ssl.SSLWantReadError:
            self._send()
        except ssl.SSLError:
            # It is no TLS, or none that is taken here, or it ends. The alert that says so goes out.
            self._send()
            self._transport.close()

    def eof_received(self) -> None:
        """End: the peer says no more."""
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell the connection that the socket has stopped taking."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Tell the connection that it takes again."""
        self._connection.resume_writing()

    # Towards the connection: what it uses of a transport.

    def get_extra_info(self, name: str) -> object:
        """What is known of the socket."""
        return self._transport.get_extra_info(name)

    def is_closing(self) -> bool:
        """Whether the socket is closed, or told to be."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send bytes, encrypted."""
        if not self._opened:
            return  # a refusal that nobody could read
        try:
            self._tls.write(data)
        except ssl.SSLError:
            self._transport.abort()
        else:
            self._send()

    def writelines(self, parts: list[bytes]) -> None:
        """Send several at once."""
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        """Say that no more comes, in TLS (close_notify, RFC 8446 section 6.1) and in TCP."""
        if self._opened:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._send()
        if not self._transport.is_closing():
            self._transport.write_eof()

    def abort(self) -> None:
        """Cut the socket off."""
        self._transport.abort()

    def _send(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())
