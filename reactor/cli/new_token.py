"""Makes the token that `reactor token` prints."""

import json
import time
from typing import Any

import jwt

from reactor.errors import ReactorError, SettingError
from reactor.protocol.identity import Identity, Unauthorised, checked
from reactor.protocol.limits import Limits
from reactor.settings import Settings


def new_token(
    settings: Settings,
    user: str,
    ttl: float,
    *,
    rooms: tuple[str, ...] | None = None,
    watch: tuple[str, ...] | None = None,
    people: tuple[str, ...] | None = None,
    where: bool = False,
    send: bool = True,
    name: str | None = None,
    data: Any = None,
) -> str:
    """Make a token for a user that expires after `ttl` seconds.

    The other arguments are the claims of that name; None, and the default of a switch, leaves the claim out.

    Raises:
        ReactorError: There is no secret, or the server would reject the token; the message is one line.

    """
    if settings.auth_secret is None:
        raise ReactorError(
            "No secret to sign with: give the server's as --secret, or set REACTOR_AUTH_SECRET. "
            "For auth_jwks sign with the private key, by any library for JWT."
        )
    now = int(time.time())
    claims: dict[str, Any] = {"sub": user, "iat": now, "exp": now + round(ttl)}
    optional = {
        "rooms": rooms,
        "watch": watch,
        "people": people,
        "where": True if where else None,
        "send": None if send else False,
        "name": name,
        "data": data,
        "aud": settings.auth_audience,
        "iss": settings.auth_issuer,
    }
    claims |= {claim: value for claim, value in optional.items() if value is not None}
    try:
        limits = Limits(max_id=settings.max_id, max_data=settings.max_data)
        identity = Identity(
            user, rooms, name, data, claims["exp"], send=send, watch=watch, people=people, where=where
        )
        checked(identity, limits, ())
    except Unauthorised as error:
        raise ReactorError(f"The server would reject this token: {error.message}.") from None
    return jwt.encode(claims, settings.auth_secret, algorithm="HS256")


def parse_data(text: str | None) -> Any:
    """Decode the JSON of --data; None if it was not given. Raises SettingError."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        example = """--data '{"role": "host"}'"""
        raise SettingError(f"--data is not JSON; put quotes around it, as in {example}.") from None
