"""Turns an error of the Redis client into one line for the operator: what happened, and how to fix it."""

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

_PROBE_TIMEOUT = 1.0
# uvloop raises RuntimeError for closing a transport that the peer has closed.
_BROKEN = (OSError, anyio.BrokenResourceError, anyio.EndOfStream, RuntimeError)
_REFUSED = "nothing listens there; start Redis, or correct the address."
_UNROUTABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTDOWN}


async def explain(error: BaseException, target: Target) -> ReactorError:
    """The error to raise in place of `error`. May connect once more, to see whether the server uses TLS."""
    if isinstance(error, MasterNotFoundError):
        if error.__cause__ is None:
            return RedisMisconfigured(
                f"{target}: the Sentinels know no primary of that name; SENTINEL MASTERS lists them."
            )
        error = error.__cause__
    return _error_reply(error, target) or _system_error(error, target) or await _no_answer(error, target)


def _error_reply(error: BaseException, target: Target) -> ReactorError | None:
    """Explain an error that the server sent."""
    reply = str(error).strip().rstrip(".")
    match error:
        case AuthenticationError() if "without any password configured" in reply:
            return RedisMisconfigured(f"{target} needs no password; remove it from the address.")
        case AuthenticationError() if "uthentication required" in reply:
            return RedisMisconfigured(
                f"{target} requires a password; add it to the address, as in redis://:PASSWORD@host:6379."
            )
        case AuthenticationError():
            return RedisMisconfigured(
                f"{target} rejects the user name or password; correct them in the address."
            )
        case NoPermissionError():
            return RedisMisconfigured(f"{target}: {reply}; grant it with ACL SETUSER, or use another user.")
        case BusyLoadingError():
            return RedisUnreachable(f"{target} is still loading its data; try again later.")
        case ResponseError() if target.kind == "sentinel" and "unknown command" in reply:
            return RedisMisconfigured(f"{target} is not a Sentinel; use redis://HOST:PORT.")
        case ResponseError():
            return RedisMisconfigured(f"{target} answered: {reply}.")
        case InvalidResponse():
            return RedisMisconfigured(f"{target} is not a Redis server; check the host and port.")
        case _ if "max number of clients" in reply:
            return RedisUnreachable(f"{target} has reached its limit of clients; raise maxclients.")
    return None


def _system_error(error: BaseException, target: Target) -> ReactorError | None:
    """Explain an error of the operating system or of TLS, which redis-py wraps."""
    for cause in _chain(error):
        match cause:
            case socket.gaierror():
                return RedisUnreachable(f"{target}: the host name cannot be resolved; check it for typos.")
            case ssl.SSLCertVerificationError():
                return RedisMisconfigured(
                    f"{target}: its certificate cannot be verified ({cause.verify_message}); "
                    "add its CA file to the address, as in rediss://host:6379?ssl_ca_certs=ca.pem."
                )
            case ssl.SSLError():
                return RedisMisconfigured(
                    f"{target}: the TLS handshake failed ({cause.args[-1]}); check the ssl_ options."
                )
            case FileNotFoundError() if target.tls_options:
                return RedisMisconfigured(f"{target}: a file named in the ssl_ options does not exist.")
            case FileNotFoundError() | ConnectionRefusedError():
                return RedisUnreachable(f"{target}: {_REFUSED}")
            case PermissionError():
                return RedisMisconfigured(
                    f"{target}: this user may not open the socket; check unixsocketperm."
                )
            case OSError() if cause.errno in _UNROUTABLE:
                return RedisUnreachable(
                    f"{target}: the host cannot be reached ({cause.strerror}); check the network."
                )
            case OSError() if f"[Errno {errno.ECONNREFUSED}]" in str(cause):
                return RedisUnreachable(f"{target}: {_REFUSED}")
    return None


async def _no_answer(error: BaseException, target: Target) -> ReactorError:
    """Explain a missing reply: TLS used on one side only, a server that hangs, or one that hangs up."""
    if target.tls and await _answers_without_tls(target):
        return RedisMisconfigured(
            f"{target} does not use TLS on that port; use redis:// instead of rediss://."
        )
    if target.hosts and not target.tls and await _answers_tls(target):
        return RedisMisconfigured(f"{target} uses TLS on that port; use rediss:// instead of redis://.")
    if any(isinstance(cause, RedisTimeoutError | TimeoutError) for cause in _chain(error)):
        return RedisUnreachable(
            f"{target} did not answer in time; check that it is running and that no firewall is in between."
        )
    return RedisUnreachable(
        f"{target} closed the connection at once; check that it is Redis and has not reached maxclients."
    )


async def _answers_without_tls(target: Target) -> bool:
    with suppress(*_BROKEN), anyio.move_on_after(_PROBE_TIMEOUT):
        async with await anyio.connect_tcp(*target.hosts[0]) as stream:
            await stream.send(b"PING\r\n")
            return (await stream.receive(64)).startswith((b"+PONG", b"-NOAUTH"))
    return False


async def _answers_tls(target: Target) -> bool:
    any_certificate = ssl.create_default_context()
    any_certificate.check_hostname, any_certificate.verify_mode = False, ssl.CERT_NONE
    answered = False
    with suppress(*_BROKEN), anyio.move_on_after(_PROBE_TIMEOUT):
        stream = await anyio.connect_tcp(
            *target.hosts[0], ssl_context=any_certificate, tls_standard_compatible=False
        )
        answered = True
        await anyio.aclose_forcefully(stream)
    return answered


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
