"""TLS: the certificate, and the layer between a transport and its connection."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import cast

import structlog

from reactor.errors import SettingError
from reactor.settings import Settings
from reactor.settings.certificates import CERTIFICATE_WARNING, certificate_dates, load_certificate

log = structlog.get_logger(__name__)

_READ_BYTES = 65536  # of plain text
_MIN_SHARE = 8  # of encrypted bytes, at least one in so many has to be plain text
_MAX_SURPLUS = 65536  # encrypted bytes beyond that; a record that is not complete has up to 16 KiB


class Certificate:
    """The server's certificate; new connections use the files as last loaded.

    Attributes:
        expires: When it expires, in seconds since 1970.

    Raises:
        SettingError: The files are not a certificate and its key.

    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert, self._key = cert, key
        self.context = load_certificate(cert, key)
        self.expires = self._note_dates()

    @classmethod
    def from_settings(cls, settings: Settings) -> "Certificate | None":
        """Return the certificate that the settings name, if any. Raises SettingError."""
        if settings.tls_cert is None or settings.tls_key is None:
            return None
        return cls(settings.tls_cert, settings.tls_key)

    def reload(self) -> None:
        """Load the files again; if that fails, the present certificate stays in use."""
        try:
            self.context = load_certificate(self._cert, self._key)
        except SettingError as error:
            log.warning("certificate_reload_failed", reason=str(error))
        else:
            self.expires = self._note_dates()
            log.info("certificate_reloaded", file=str(self._cert))

    def _note_dates(self) -> float:
        """When the certificate expires (s since 1970); a warning where that is soon, or it is not valid."""
        begins, expires = certificate_dates(self._cert)
        if expires < time() + CERTIFICATE_WARNING:
            log.warning(
                "certificate_expires",
                file=str(self._cert),
                at=datetime.fromtimestamp(expires, UTC).isoformat(),
                expired=expires < time(),
                fix="put a renewed certificate there and send SIGHUP",
            )
        if begins > time():
            log.warning(
                "certificate_not_valid_yet",
                file=str(self._cert),
                at=datetime.fromtimestamp(begins, UTC).isoformat(),
                fix="check the clock of this machine and that of the issuer",
            )
        return expires


class TlsLayer(asyncio.Protocol):
    """TLS between a transport and a connection, which uses this object as its transport.

    It works in memory and needs no task, and the gateway's limits hold for it too: a connection is counted,
    and its opening time-out runs, from the first moment, however slowly the TLS handshake arrives.

    note_not_tls: called with the bytes for which a TLS handshake fails.
    """

    __slots__ = (
        "_connection", "_incoming", "_note_not_tls", "_opened", "_outgoing", "_surplus", "_tls", "_transport",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(
        self,
        connection: asyncio.Protocol,
        certificate: Certificate,
        note_not_tls: Callable[[bytes], None] = lambda _data: None,
    ) -> None:
        self._connection, self._note_not_tls = connection, note_not_tls
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = certificate.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._opened = False
        self._surplus = 0

    # asyncio.Protocol: called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection at once; it receives no data before the TLS handshake is complete."""
        self._transport = cast("asyncio.Transport", transport)
        self._connection.connection_made(cast("asyncio.Transport", self))

    def data_received(self, data: bytes) -> None:
        """Decrypt bytes and pass them on: once, since a record may hold a single byte."""
        self._incoming.write(data)
        plain, failed = list[bytes](), False
        try:
            if not self._opened:
                self._tls.do_handshake()
                self._opened = True
            while part := self._tls.read(_READ_BYTES):
                plain.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            # Not TLS, not a version or cipher that is accepted, or the end of TLS: send the alert and close.
            failed = True
        if plain:
            self._connection.data_received(text := b"".join(plain))
            self._surplus -= _MIN_SHARE * len(text)
        elif failed and not self._opened:
            self._note_not_tls(data)
        self._send()
        if failed:
            self._transport.close()
        # Each record takes time, whatever is in it, and no limit of messages counts them.
        self._surplus = max(0, self._surplus + len(data))
        if self._surplus > _MAX_SURPLUS:
            self._transport.abort()

    def eof_received(self) -> None:
        """Pass on that the peer has ended its side."""
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the transport is closed, and release what the handshake has allocated.

        That is 25 KB, which a cycle of references would keep until the garbage collector comes.
        """
        self._opened = False
        del self._tls, self._incoming, self._outgoing
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that the transport's buffer is full."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the transport accepts data again."""
        self._connection.resume_writing()

    # asyncio.Transport: the part that a connection uses

    def get_extra_info(self, name: str) -> object:
        """Return information on the transport."""
        return self._transport.get_extra_info(name)

    def is_closing(self) -> bool:
        """Return whether the transport is closed or closing."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Encrypt and send bytes."""
        if not self._opened:
            return  # a rejection that the peer could not decrypt
        try:
            self._tls.write(data)
        except ssl.SSLError:
            self._transport.abort()
        else:
            self._send()

    def writelines(self, parts: list[bytes]) -> None:
        """Encrypt and send several pieces at once."""
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        """Close the sending side of TLS (close_notify, RFC 8446 section 6.1) and of TCP."""
        if self._opened:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._send()
        if not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        """Send what was written, and the end of TLS, then close the transport."""
        if not self._transport.is_closing():
            self.write_eof()
            self._transport.close()

    def abort(self) -> None:
        """Close the transport immediately."""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait to be sent."""
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Read no further data; what was read before is still passed on."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def _send(self) -> None:
        if self._outgoing.pending and not self._transport.is_closing():
            self._transport.write(self._outgoing.read())
