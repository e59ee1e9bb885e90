"""JSON Web Tokens (RFC 7519): the keys, and the verification of a token.

The algorithm of a token is determined by the type of its key, never by the token's header: a secret uses
HS256, an RSA key RS256, an Ed25519 key EdDSA, a P-256 key ES256. Of the header only `kid` is read, to
select among keys that are all trusted.
"""

from pathlib import Path
from typing import Any

import jwt
import structlog
from jwt.types import Options

from reactor.errors import SettingError
from reactor.protocol.identity import Identity, Unauthorised
from reactor.settings import Settings
from reactor.settings.public_keys import PARSE_ERRORS, read_keys

log = structlog.get_logger(__name__)

MAX_TOKEN_LENGTH = 16384
"""Characters of a token; a longer one is rejected unread."""

_OPTIONS: Options = {"require": ["exp", "sub"], "verify_sub": False, "verify_jti": False}
"""`sub` may be a number, as ids may be; its value is checked with the rest of the identity."""

_NO_AUDIENCE = "the token is for a certain audience, and this server has no auth_audience (RFC 7519, 4.1.3)"


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
        except PARSE_ERRORS as error:
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
