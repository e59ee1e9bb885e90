"""JSON Web Tokens (RFC 7519): the keys, and the verification of a token.

The algorithm of a token is determined by the type of its key, never by the token's header: a secret uses
HS256, an RSA key RS256, an Ed25519 key EdDSA, a P-256 key ES256. Of the header only `kid` is read, to
select among keys that are all trusted.
"""

import json
from pathlib import Path
from typing import Any

import jwt
import structlog
from jwt.types import Options

from reactor.errors import SettingError
from reactor.protocol.identity import Identity, Unauthorised
from reactor.settings import Settings

log = structlog.get_logger(__name__)

MAX_TOKEN_LENGTH = 16384
"""Characters of a token; a longer one is rejected unread."""

_MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
_ALGORITHMS = {("RSA", None): "RS256", ("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256"}
_OPTIONS: Options = {"require": ["exp", "sub"], "verify_sub": False, "verify_jti": False}
"""`sub` may be a number, as ids may be; its value is checked with the rest of the identity."""

_NO_AUDIENCE = "the token is for a certain audience, and this server has no auth_audience (RFC 7519, 4.1.3)"

_PARSE_ERRORS = (
    jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
"""All that hostile input makes the parser of tokens raise."""


class TokenKeys:
    """The keys that verify tokens: a secret, and the public keys of a file.

    Raises:
        SettingError: The file cannot be read, or has no usable key.

    """

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.auth_secret
        self._path = settings.auth_jwks
        self._leeway = settings.auth_leeway
        self._audience, self._issuer = settings.auth_audience, settings.auth_issuer
        self._version: object = None
        self._by_kid: dict[str | None, jwt.PyJWK] = {}
        if self._path is not None:
            self._version = _file_version(self._path)
            self._by_kid = read_keys(self._path)

    def use_secret(self, secret: bytes) -> None:
        """Verify tokens with this secret from now on."""
        self._secret = secret

    def reload(self) -> None:
        """Read the file again if it has changed; if that fails, the present keys stay in use."""
        path = self._path
        if path is None or (version := _file_version(path)) == self._version:
            return
        self._version = version
        try:
            self._by_kid = read_keys(path)
        except SettingError as error:
            log.warning("keys_reload_failed", reason=str(error))
        else:
            log.info("keys_reloaded", keys=len(self._by_kid))

    def verify(self, token: str) -> Identity:
        """Return the identity that a token proves.

        Raises:
            Unauthorised: The token is not valid; the sentence gives the reason, and no part of the token.

        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthorised(f"a token may have at most {MAX_TOKEN_LENGTH} characters")
        try:
            key, algorithm = self._key_for(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options=_OPTIONS,
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthorised("the token has expired: send a new one", "token_expired") from error
        except _PARSE_ERRORS as error:
            if isinstance(error, jwt.InvalidAudienceError) and self._audience is None:
                raise Unauthorised(_NO_AUDIENCE) from error
            raise Unauthorised(_sentence(error)) from error
        return Identity(
            claims["sub"], claims.get("rooms"), claims.get("name"), claims.get("data"), claims["exp"],
            claims.get("send", True), claims.get("watch"), claims.get("people"), claims.get("where", False),
            claims.get("iat"),
        )  # fmt: skip

    def _key_for(self, token: str) -> tuple[Any, str]:
        self.reload()
        if self._by_kid:
            kid = jwt.get_unverified_header(token).get("kid")
            found = self._by_kid.get(kid)
            if kid is None and self._secret is None and len(self._by_kid) == 1:
                (found,) = self._by_kid.values()
            if found is not None:
                return found.key, found.algorithm_name
        if self._secret is None:
            raise Unauthorised("no key of this server has the token's kid")
        return self._secret, "HS256"


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
    except _PARSE_ERRORS as error:
        raise SettingError(f"{where} cannot be read: {error}.") from None
    if algorithm == "RS256" and key.key.key_size < _MIN_RSA_BITS:
        bits = key.key.key_size
        raise SettingError(f"{where} has {bits} bits: an RSA key needs at least {_MIN_RSA_BITS}.")
    return key


def _file_version(path: Path) -> object:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _sentence(error: Exception) -> str:
    match error:
        case jwt.MissingRequiredClaimError():
            return f"the token has no claim {error.claim}"
        case jwt.InvalidSignatureError() | jwt.InvalidAlgorithmError():
            return "the token's signature or algorithm is not valid for this server's key"
        case jwt.ImmatureSignatureError():
            return "the token is not valid yet: the clocks of its issuer and of this server differ"
        case jwt.InvalidAudienceError() | jwt.InvalidIssuerError():
            return "the token's audience or issuer is not the one this server requires"
        case _:
            return "not a valid token"
