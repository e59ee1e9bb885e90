"""The public keys with which tokens are verified: a file with a JWK set (RFC 7517).

Not imported by `reactor.settings` itself, since cryptography is slow to import.
"""

import json
from pathlib import Path
from typing import Any

import jwt

from reactor.errors import SettingError

PARSE_ERRORS = (
    jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
"""All that hostile input makes the parser of tokens and keys raise."""

_MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
_ALGORITHMS = {("RSA", None): "RS256", ("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256"}


def read_keys(path: Path) -> dict[str | None, jwt.PyJWK]:
    """Return the public keys of a file (JWK set, RFC 7517) by their `kid`.

    Raises:
        SettingError: One line that says what is wrong, and the fix.

    """
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingError(f"auth_jwks {path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise SettingError(f"auth_jwks {path} is not JSON: {error}.") from None
    entries = table.get("keys") if isinstance(table, dict) else None
    if not isinstance(entries, list):
        raise SettingError(f'auth_jwks {path} is not a JWK set: it must be {{"keys": [...]}}.')
    keys: dict[str | None, jwt.PyJWK] = {}
    for number, entry in enumerate(entries, 1):
        where = f"auth_jwks {path}: key {number}"
        if isinstance(entry, dict) and entry.get("use", "sig") != "sig":
            continue  # an encryption key
        key = _read_key(entry, where)
        if key.key_id in keys:
            raise SettingError(f"{where} has the kid of another key: each key needs its own.")
        keys[key.key_id] = key
    if not keys:
        raise SettingError(f"auth_jwks {path} has no key for verifying signatures.")
    if len(keys) > 1 and None in keys:
        raise SettingError(
            f"auth_jwks {path} has several keys, one of them without a kid: each needs its own."
        )
    return keys


def _read_key(entry: Any, where: str) -> jwt.PyJWK:
    if not isinstance(entry, dict):
        raise SettingError(f"{where} is not an object.")
    if entry.get("kty") == "oct":
        raise SettingError(f"{where} is a secret, not a public key: set it as auth_secret.")
    algorithm = _ALGORITHMS.get((str(entry.get("kty")), entry.get("crv") and str(entry["crv"])))
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        known = ", ".join(sorted(_ALGORITHMS.values()))
        raise SettingError(f"{where} is for an algorithm other than {known}.")
    if not isinstance(entry.get("kid"), str | None):
        raise SettingError(f"{where} has a kid that is not text.")
    try:
        key = jwt.PyJWK({name: value for name, value in entry.items() if name != "d"}, algorithm)
    except PARSE_ERRORS as error:
        raise SettingError(f"{where} cannot be read: {error}.") from None
    if algorithm == "RS256" and key.key.key_size < _MIN_RSA_BITS:
        bits = key.key.key_size
        raise SettingError(f"{where} has {bits} bits: an RSA key needs at least {_MIN_RSA_BITS}.")
    return key
