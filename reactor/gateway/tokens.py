"""JSON Web Tokens (RFC 7519): which keys there are, whether a token is good, and who it says one is.

The algorithm of a token is fixed by the kind of its key, never by the token's own header: a secret takes
HS256, an RSA key RS256, an Ed25519 key EdDSA, a P-256 key ES256. Of the header only `kid` is looked at, to
choose among keys that are all trusted.
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

LONGEST = 16384
"""Characters of a token: more is no token of ours, and is not looked at."""

_LEAST_RSA = 2048  # bits, RFC 7518 section 3.3
_ALGORITHMS = {("RSA", None): "RS256", ("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256"}
_OPTIONS: Options = {"require": ["exp", "sub"], "verify_sub": False, "verify_jti": False}
"""`sub` may be a number, as ids may be; what it holds is checked with the rest of the identity."""

_BAD = (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""All that hostile text makes a parser of tokens raise."""


class Keys:
    """The keys that tokens may be signed with: a secret, and the public keys of a file.

    Raises:
        SettingError: The file cannot be read, or has no usable key.

    """

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.auth_secret
        self._path = settings.auth_jwks
        self._leeway = settings.auth_leeway
        self._audience, self._issuer = settings.auth_audience, settings.auth_issuer
        self._options = _OPTIONS if self._audience else Options(**_OPTIONS, verify_aud=False)
        self._stamp: object = None
        self._by_id: dict[str | None, jwt.PyJWK] = {}
        if self._path is not None:
            self._stamp = _stamp(self._path)
            self._by_id = read_keys(self._path)

    def __bool__(self) -> bool:
        return self._secret is not None or self._path is not None

    def reload(self) -> None:
        """Read the file again if it has changed; where that fails, the keys of before stay."""
        path = self._path
        if path is None or (stamp := _stamp(path)) == self._stamp:
            return
        self._stamp = stamp
        try:
            self._by_id = read_keys(path)
        except SettingError as error:
            log.warning("keys_not_reloaded", reason=str(error))
        else:
            log.info("keys_reloaded", keys=len(self._by_id))

    def identify(self, token: str) -> Identity:
        """Return who a token says one is.

        Raises:
            Unauthorised: The token is not good; the sentence says why, and nothing of the token.

        """
        if len(token) > LONGEST:
            raise Unauthorised(f"a token has at most {LONGEST} characters")
        try:
            key, algorithm = self._key_for(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
                options=self._options,
            )
        except jwt.ExpiredSignatureError as error:
            raise Unauthorised("the token has run out: send a fresh one", "token_expired") from error
        except _BAD as error:
            raise Unauthorised(_sentence(error)) from error
        return Identity(
            claims["sub"],
            claims.get("rooms"),
            claims.get("name"),
            claims.get("data"),
            claims["exp"],
        )

    def _key_for(self, token: str) -> tuple[Any, str]:
        self.reload()
        if self._by_id:
            kid = jwt.get_unverified_header(token).get("kid")
            found = self._by_id.get(kid)
            if kid is None and self._secret is None and len(self._by_id) == 1:
                (found,) = self._by_id.values()
            if found is not None:
                return found.key, found.algorithm_name
        if self._secret is None:
            raise Unauthorised("the token's kid is that of no key here")
        return self._secret, "HS256"


def read_keys(path: Path) -> dict[str | None, jwt.PyJWK]:
    """Read a file of public keys (JWK set, RFC 7517) by their `kid`.

    Raises:
        SettingError: One line, with the mend.

    """
    try:
        table = json.loads(path.read_bytes())
    except OSError as error:
        raise SettingError(f"auth_jwks {path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise SettingError(f"auth_jwks {path} is no JSON: {error}.") from None
    entries = table.get("keys") if isinstance(table, dict) else None
    if not isinstance(entries, list):
        raise SettingError(f'auth_jwks {path} is no set of keys: it takes {{"keys": [...]}}.')
    keys: dict[str | None, jwt.PyJWK] = {}
    for number, entry in enumerate(entries, 1):
        where = f"auth_jwks {path}: key {number}"
        if isinstance(entry, dict) and entry.get("use", "sig") != "sig":
            continue  # it is for encryption
        key = _read_key(entry, where)
        if key.key_id in keys:
            raise SettingError(f"{where} has the kid of another: give each its own.")
        keys[key.key_id] = key
    if not keys:
        raise SettingError(f"auth_jwks {path} has no key to check a signature with.")
    if len(keys) > 1 and None in keys:
        raise SettingError(f"auth_jwks {path} has several keys, and one of them no kid: give each its own.")
    return keys


def _read_key(entry: Any, where: str) -> jwt.PyJWK:
    if not isinstance(entry, dict):
        raise SettingError(f"{where} is no object.")
    if entry.get("kty") == "oct":
        raise SettingError(f"{where} is a secret, not a public key: give it as auth_secret.")
    algorithm = _ALGORITHMS.get((str(entry.get("kty")), entry.get("crv") and str(entry["crv"])))
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        known = ", ".join(sorted(_ALGORITHMS.values()))
        raise SettingError(f"{where} is for another algorithm than {known}.")
    if not isinstance(entry.get("kid"), str | None):
        raise SettingError(f"{where} has a kid that is no text.")
    try:
        key = jwt.PyJWK({name: value for name, value in entry.items() if name != "d"}, algorithm)
    except _BAD as error:
        raise SettingError(f"{where} cannot be read: {error}.") from None
    if algorithm == "RS256" and key.key.key_size < _LEAST_RSA:
        raise SettingError(f"{where} has {key.key.key_size} bits: an RSA key takes {_LEAST_RSA} or more.")
    return key


def _stamp(path: Path) -> object:
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
            return "the token is signed with another key, or in another way, than is asked for here"
        case jwt.ImmatureSignatureError():
            return "the token is not good yet: one of the clocks is off"
        case jwt.InvalidAudienceError() | jwt.InvalidIssuerError():
            return "the token is meant for another server"
        case _:
            return "this is no token"
