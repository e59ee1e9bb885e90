"""Turns what went wrong with Redis into one line for a person: what it is, and what mends it."""

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress

import anyio
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from reactor.backend.target import Target
from reactor.errors import ReactorError, RedisMisconfigured, RedisUnreachable

_PROBE_SECONDS = 1.0
# uvloop raises RuntimeError at the closing of what the other side has closed already.
_LOST = (OSError, anyio.BrokenResourceError, anyio.EndOfStream, RuntimeError)
_NOBODY = "nothing listens there; start Redis, or correct the address."
_NO_WAY = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTDOWN}


async def explain(error: BaseException, target: Target) -> ReactorError:
    """Give the error to raise in place of `error`. It may ask the server once more, to tell TLS from none."""
    if isinstance(error, MasterNotFoundError):
        if error.__cause__ is None:
            return RedisMisconfigured(
                f"{target}: its Sentinels know no master of that name; see what SENTINEL MASTERS lists."
            )
        error = error.__cause__
    return _refusal(error, target) or _no_link(error, target) or await _no_answer(error, target)


def _refusal(error: BaseException, target: Target) -> ReactorError | None:
    """Name what the server itself said."""
    said = str(error).strip().rstrip(".")
    match error:
        case AuthenticationError() if "without any password configured" in said:
            return RedisMisconfigured(f"{target} has no password; leave the one in the address out.")
        case AuthenticationError() if "uthentication required" in said:
            return RedisMisconfigured(
                f"{target} wants a password; give it, as in redis://:PASSWORD@host:6379."
            )
        case AuthenticationError():
            return RedisMisconfigured(
                f"{target} refuses the user or the password; correct them in the address."
            )
        case NoPermissionError():
            return RedisMisconfigured(f"{target}: {said}; grant it with ACL SETUSER, or give another user.")
        case BusyLoadingError():
            return RedisUnreachable(f"{target} is still loading its data; try again when it has.")
        case ResponseError() if target.kind == "sentinel" and "unknown command" in said:
            return RedisMisconfigured(f"{target} is no Sentinel; write redis://HOST:PORT.")
        case ResponseError():
            return RedisMisconfigured(f"{target} answers: {said}.")
        case InvalidResponse():
            return RedisMisconfigured(f"{target} is no Redis; see that host and port are right.")
        case _ if "max number of clients" in said:
            return RedisUnreachable(f"{target} has as many clients as it takes; raise its maxclients.")
    return None


def _no_link(error: BaseException, target: Target) -> ReactorError | None:
    """Name what the system said, which redis-py wraps."""
    for cause in _chain(error):
        match cause:
            case socket.gaierror():
                return RedisUnreachable(f"{target}: the name of the host is not known; see that it is right.")
            case ssl.SSLCertVerificationError():
                return RedisMisconfigured(
                    f"{target}: its certificate is not trusted ({cause.verify_message}); "
                    "name its authority's file, as in rediss://host:6379?ssl_ca_certs=ca.pem."
                )
            case ssl.SSLError():
                return RedisMisconfigured(f"{target}: TLS fails ({cause.args[-1]}); see its ssl_ options.")
            case FileNotFoundError() if target.tls_options:
                return RedisMisconfigured(f"{target}: a file that its ssl_ options name is not there.")
            case FileNotFoundError() | ConnectionRefusedError():
                return RedisUnreachable(f"{target}: {_NOBODY}")
            case PermissionError():
                return RedisMisconfigured(
                    f"{target}: this user may not open that socket; see its unixsocketperm."
                )
            case OSError() if cause.errno in _NO_WAY:
                return RedisUnreachable(
                    f"{target}: there is no way there ({cause.strerror}); see the network."
                )
            case OSError() if f"[Errno {errno.ECONNREFUSED}]" in str(cause):
                return RedisUnreachable(f"{target}: {_NOBODY}")
    return None


async def _no_answer(error: BaseException, target: Target) -> ReactorError:
    """Tell a server that is silent from one that we address with or without TLS by mistake."""
    if target.tls and await _speaks_without_tls(target):
        return RedisMisconfigured(f"{target} speaks no TLS there; write redis:// in place of rediss://.")
    if target.hosts and not target.tls and await _speaks_tls(target):
        return RedisMisconfigured(f"{target} speaks TLS there; write rediss:// in place of redis://.")
    if any(isinstance(cause, RedisTimeoutError | TimeoutError) for cause in _chain(error)):
        return RedisUnreachable(
            f"{target} does not answer in time; see that it runs, and that the way there is open."
        )
    return RedisUnreachable(
        f"{target} closes the connection at once; see that it is Redis, and that maxclients is not reached."
    )


async def _speaks_without_tls(target: Target) -> bool:
    with suppress(*_LOST), anyio.move_on_after(_PROBE_SECONDS):
        async with await anyio.connect_tcp(*target.hosts[0]) as stream:
            await stream.send(b"PING\r\n")
            return (await stream.receive(64)).startswith((b"+PONG", b"-NOAUTH"))
    return False


async def _speaks_tls(target: Target) -> bool:
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    spoke = False
    with suppress(*_LOST), anyio.move_on_after(_PROBE_SECONDS):
        stream = await anyio.connect_tcp(*target.hosts[0], ssl_context=anyone, tls_standard_compatible=False)
        spoke = True
        await anyio.aclose_forcefully(stream)
    return spoke


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
