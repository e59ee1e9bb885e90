"""Certificates for tests."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


def write_certificate(
    folder: Path,
    name: str,
    password: bytes | None = None,
    *,
    days: int = 30,
    begins: int = -9,
    host: str = "",
) -> tuple[Path, Path]:
    """A certificate with this common name that expires after `days`, and its key.

    begins: in how many days it becomes valid.
    host: the one DNS name for which it is issued; without it, the IP 127.0.0.1.
    """
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    issued_for = x509.DNSName(host) if host else x509.IPAddress(ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([issued_for]), critical=False)
        .sign(key, None)
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(Encoding.PEM))
    how: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    return cert_path, key_path


def write_issued_certificate(folder: Path, *, authority_days: int) -> tuple[Path, Path, Path]:
    """The certificate of an authority, one that it issued for 127.0.0.1, and the key of that one.

    authority_days: when the authority expires; what it issued is valid for 30 days.
    """
    now = datetime.now(UTC)
    authority_key, key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority.test")])

    def builder(name: str, days: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(authority)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=days))
        )

    own = builder("authority.test", authority_days).public_key(authority_key.public_key())
    own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    issued = builder("server", 30).public_key(key.public_key())
    issued_for = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    issued = issued.add_extension(issued_for, critical=False)
    paths = folder / "authority.pem", folder / "issued.pem", folder / "issued.key"
    paths[0].write_bytes(own.sign(authority_key, None).public_bytes(Encoding.PEM))
    paths[1].write_bytes(issued.sign(authority_key, None).public_bytes(Encoding.PEM))
    paths[2].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=cert)
