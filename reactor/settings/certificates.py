"""The server's certificate and its key, as files: what they hold, and whether TLS can use them."""

import ssl
from pathlib import Path

from reactor.errors import SettingError

CERTIFICATE_WARNING = 14 * 86_400.0
"""Seconds before a certificate's end from which on server and doctor warn of it."""


def certificate_dates(cert: Path) -> tuple[float, float]:
    """From when until when the first certificate of a file is valid (s since 1970). Raises SettingError."""
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415 - few processes have TLS

    try:
        one = load_pem_x509_certificate(cert.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingError(f"tls_cert {cert} cannot be read: {error}.") from None
    return one.not_valid_before_utc.timestamp(), one.not_valid_after_utc.timestamp()


def load_certificate(cert: Path, key: Path) -> ssl.SSLContext:
    """Return a server's TLS context, for TLS 1.2 or later.

    Raises:
        SettingError: One line that says what is wrong.

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
        context.load_cert_chain(cert, key, password=_refuse_password)
    except ssl.SSLError as error:
        problem = f"are not a certificate and its key: {error.reason or 'they are not PEM files'}"
        raise SettingError(f"tls_cert {cert} and tls_key {key} {problem}.") from None
    except _EncryptedKey:
        raise SettingError(f"tls_key {key} is encrypted: use a key without a password.") from None
    return context


class _EncryptedKey(Exception):
    pass


def _refuse_password() -> str:
    raise _EncryptedKey
