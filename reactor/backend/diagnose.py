"""Turns an error of the Redis client into one line for the operator: what happened, and how to fix it."""

import errno
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import ByteStream
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,  # noqa: A004 - as redis-py names it
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from reactor.backend.outages import MAX_CLIENTS, PROTECTED, brief
from reactor.backend.target import Target
from reactor.errors import ReactorError, RedisMisconfigured, RedisUnreachable

_PROBE_TIMEOUT = 1.0
# uvloop raises RuntimeError for closing a transport that the peer has closed.
_BROKEN = (OSError, anyio.BrokenResourceError, anyio.EndOfStream, RuntimeError)
# OpenSSL's X509_V_ERR_ codes (https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/).
_HOSTNAME = "use a name that it has in the address, or issue one for this name"
NAMED_BY_CLUSTER = (
    "the cluster gives its servers this name: on each set cluster-announce-hostname to a name that its "
    "certificate has, and cluster-preferred-endpoint-type hostname; or map the name with redis_address_map"
)
NAMED_BY_SENTINELS = (
    "the Sentinels give the server this name: set replica-announce-ip to a name that its certificate has, "
    "with resolve-hostnames and announce-hostnames on the Sentinels; or map the name with redis_address_map"
)
"""The fix where a certificate lacks the name of a server that the address did not give."""
_UNKNOWN_AUTHORITY = "add its CA file to the address, as in rediss://host:6379?ssl_ca_certs=ca.pem"
_EXPIRED = 10
_CERTIFICATE_FIXES = {
    9: "it is not valid yet: check the clocks of both machines",
    _EXPIRED: "it has expired, or an intermediate one has: renew it on the server",
    23: "it was revoked: replace it on the server",
    62: _HOSTNAME,
    64: _HOSTNAME,
}
_REFUSED = "nothing listens there; start Redis, or correct the address."
BUSY_WORDS = ("BUSY", "UNKILLABLE", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF")
"""Error replies of a server that will take commands again, by itself or once its disk has space."""
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
        case AuthenticationError():
            return _login_error(reply, target)
        case NoPermissionError():
            return RedisMisconfigured(f"{target}: {reply}; grant it with ACL SETUSER, or use another user.")
        case BusyLoadingError():
            return RedisUnreachable(f"{target} is still loading its data; try again later.")
        case ResponseError() if reply.startswith(BUSY_WORDS):
            fix = "see its log, and free its disk" if reply.startswith("MISCONF") else "try again later"
            return RedisUnreachable(f"{target} takes no commands at present ({brief(reply)}); {fix}.")
        case ResponseError() if problem := _mode_problem(reply, target):
            return RedisMisconfigured(f"{target} {problem}.")
        case ResponseError() if target.kind == "sentinel" and "unknown command" in reply:
            return RedisMisconfigured(f"{target} is not a Sentinel; use redis://HOST:PORT.")
        case ResponseError():
            return RedisMisconfigured(f"{target} answered: {reply}.")
        case InvalidResponse():
            return RedisMisconfigured(f"{target} is not a Redis server; check the host and port.")
        case _ if MAX_CLIENTS in reply:
            return RedisUnreachable(f"{target} has reached its limit of clients; raise maxclients.")
    return None


def _mode_problem(reply: str, target: Target) -> str:
    """What is wrong with the mode or the database of the server, and the fix; "" for something else."""
    if reply.startswith(PROTECTED):
        return (
            "is in protected mode, in which it answers its own machine alone; set a password there and in "
            "the address, or protected-mode no"
        )
    if not target.db:
        return ""
    if "SELECT is not allowed in cluster mode" in reply:
        return "has only database 0, as every cluster before Valkey 9: leave the number out of the address"
    if "DB index is out of range" in reply:
        setting = "cluster-databases" if target.kind == "cluster" else "databases"
        return f"has no database {target.db}: use a lower number, or set {setting} on every server"
    return ""


def _login_error(reply: str, target: Target) -> ReactorError:
    if "without any password configured" in reply:
        return RedisMisconfigured(f"{target} needs no password; remove it from the address.")
    if "uthentication required" in reply:
        return RedisMisconfigured(
            f"{target} requires a password; add it to the address, as in redis://:PASSWORD@host:6379."
        )
    function = getattr(target.credentials, "function", None)
    place = (
        f"correct what redis_credentials {function} returns" if function else "correct them in the address"
    )
    return RedisMisconfigured(f"{target} rejects the user name or password; {place}.")


def _system_error(error: BaseException, target: Target) -> ReactorError | None:
    """Explain an error of the operating system or of TLS, which redis-py wraps."""
    for cause in _chain(error):
        match cause:
            case socket.gaierror():
                return RedisUnreachable(f"{target}: the host name cannot be resolved; check it for typos.")
            case ssl.SSLError():
                return RedisMisconfigured(f"{target}: {_tls_problem(cause, target)}.")
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


def _tls_problem(error: ssl.SSLError, target: Target) -> str:
    """What is wrong with TLS, and the fix."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fix = _other_name(error, target) or _CERTIFICATE_FIXES.get(error.verify_code, _UNKNOWN_AUTHORITY)
        if error.verify_code == _EXPIRED:
            fix = _expired_authority(target) or fix
        return f"its certificate cannot be verified ({error.verify_message.rstrip('.')}); {fix}"
    options = dict(target.tls_options)
    if "ssl_certfile" in options and (problem := _key_problem(options)):
        return problem
    reason = getattr(error, "reason", None) or ""
    if reason == "NO_CERTIFICATE_OR_CRL_FOUND":
        return "the file in ssl_ca_certs holds no certificate in PEM format"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return (
            f"the server refused the TLS handshake ({reason}); where it wants a certificate of its clients, "
            "add ssl_certfile and ssl_keyfile"
        )
    if "UNKNOWN_CA" in reason or "BAD_CERTIFICATE" in reason:
        return (
            f"the server does not accept the certificate in ssl_certfile ({error.args[-1]}); "
            "use one of the authority that it trusts (its tls-ca-cert-file)"
        )
    if "PROTOCOL" in reason or "VERSION" in reason:
        return f"no common version of TLS ({error.args[-1]}); enable TLS 1.2 or later on the server"
    return f"the TLS handshake failed ({error.args[-1]}); check the ssl_ options"


def _expired_authority(target: Target) -> str:
    """The fix where an authority of the own file has expired: OpenSSL does not say which certificate has."""
    file = dict(target.tls_options).get("ssl_ca_certs")
    if file is None:
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    for authority in context.get_ca_certs():
        end = ssl.cert_time_to_seconds(str(authority["notAfter"]))
        if end < time.time():
            subject: Any = authority["subject"]
            name = ", ".join(value for part in subject for _, value in part)
            day = time.strftime("%Y-%m-%d", time.gmtime(end))
            return f"the authority {name} in ssl_ca_certs expired on {day}: replace it in that file"
    return ""


def _other_name(error: ssl.SSLCertVerificationError, target: Target) -> str:
    """The fix where the name that a certificate lacks is not one of the address; empty where it is."""
    name = re.search(r"certificate is not valid for '(.+)'", error.verify_message)
    if name is None or name[1] in {host for host, _ in target.hosts}:
        return ""
    return {"cluster": NAMED_BY_CLUSTER, "sentinel": NAMED_BY_SENTINELS, "single": ""}[target.kind]


def _key_problem(options: dict[str, str]) -> str:
    """What is wrong with the client's certificate and key; empty where nothing is."""
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return options.get("ssl_password", "")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), password)
    except FileNotFoundError:
        return "a file named in the ssl_ options does not exist"
    except ssl.SSLError as error:
        if asked and "ssl_password" not in options:
            return "the key in ssl_keyfile is encrypted; add its password to the address as ssl_password"
        if asked:
            return "ssl_password does not decrypt the key in ssl_keyfile"
        if error.reason == "KEY_VALUES_MISMATCH":
            return "ssl_keyfile is not the key of the certificate in ssl_certfile"
        return "ssl_certfile and ssl_keyfile are not a certificate and its key in PEM format"
    return ""


async def _no_answer(error: BaseException, target: Target) -> ReactorError:
    """Explain a missing reply: TLS used on one side only, a server that hangs, or one that hangs up."""
    sentinel = target.kind == "sentinel"
    with_tls = target.sentinel_tls if sentinel else target.tls
    if with_tls and await _answers_without_tls(target):
        fix = f"use {_scheme(target, tls=False)} instead of {_scheme(target, tls=True)}"
        fix += ", or ?sentinel_tls=no where only the servers behind the Sentinels use TLS" if sentinel else ""
        return RedisMisconfigured(f"{target} does not use TLS on that port; {fix}.")
    if target.hosts and not with_tls and await _answers_tls(target):
        fix = f"use {_scheme(target, tls=True)} instead of {_scheme(target, tls=False)}"
        return RedisMisconfigured(
            f"{target} uses TLS on that port; {'leave out sentinel_tls=no' if target.tls else fix}."
        )
    if with_tls and (refusal := await _tls_alert(target)) is not None:
        return RedisMisconfigured(f"{target}: {_tls_problem(refusal, target)}.")
    if any(isinstance(cause, RedisTimeoutError | TimeoutError) for cause in _chain(error)):
        return RedisUnreachable(
            f"{target} did not answer in time; check that it is running and that no firewall is in between."
        )
    if not with_tls and (words := await refusal_of_connections(target.path or target.hosts[0])):
        return _error_reply(words, target) or RedisUnreachable(f"{target}: {words}.")
    return RedisUnreachable(
        f"{target} closed the connection at once; check that it is Redis and has not reached maxclients."
    )


async def refusal_of_connections(address: tuple[str, int] | str) -> RedisError | None:
    """What a server says to a new connection before it closes it; None where it closes none.

    address: host and port, or the path of a Unix socket.
    """
    greeting = b""
    with suppress(*_BROKEN), anyio.move_on_after(_PROBE_TIMEOUT):
        stream: ByteStream = await (
            anyio.connect_unix(address) if isinstance(address, str) else anyio.connect_tcp(*address)
        )
        async with stream:
            greeting = await stream.receive(1024)
    text = greeting.decode(errors="replace")
    if MAX_CLIENTS in text:
        return ConnectionError(f"{MAX_CLIENTS} reached")
    if text.startswith(f"-{PROTECTED}"):
        return ResponseError(f"{PROTECTED} Redis is in protected mode, and answers its own machine alone")
    return None


def _scheme(target: Target, *, tls: bool) -> str:
    kind = "" if target.kind == "single" else f"+{target.kind}"
    return f"redis{'s' if tls else ''}{kind}://"


async def _answers_without_tls(target: Target) -> bool:
    with suppress(*_BROKEN), anyio.move_on_after(_PROBE_TIMEOUT):
        async with await anyio.connect_tcp(*target.hosts[0]) as stream:
            await stream.send(b"PING\r\n")
            return (await stream.receive(64)).startswith((b"+PONG", b"-NOAUTH"))
    return False


async def _answers_tls(target: Target) -> bool:
    answered = False
    with suppress(*_BROKEN), anyio.move_on_after(_PROBE_TIMEOUT):
        stream = await anyio.connect_tcp(
            *target.hosts[0], ssl_context=_any_certificate(), tls_standard_compatible=False
        )
        answered = True
        await anyio.aclose_forcefully(stream)
    return answered


def _any_certificate() -> ssl.SSLContext:
    """For a question about TLS alone: nothing is sent over the connection that would need a known server."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _tls_alert(target: Target) -> ssl.SSLError | None:
    """Return the alert by which the server ends a connection once TLS is agreed on; None where it does not.

    In TLS 1.3 it checks the client's certificate only then (RFC 8446, section 4.4.2.4). A command that was
    written meanwhile can turn the alert into a reset, so nothing is sent here.
    """
    options = dict(target.tls_options)
    context = _any_certificate()
    try:
        if "ssl_certfile" in options:
            context.load_cert_chain(
                options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password", "")
            )
        with anyio.move_on_after(_PROBE_TIMEOUT):
            async with await anyio.connect_tcp(
                *target.hosts[0], ssl_context=context, tls_standard_compatible=False
            ) as stream:
                await stream.receive(1)
    except (*_BROKEN, ssl.SSLError) as error:
        alerts = (cause for cause in _chain(error) if isinstance(cause, ssl.SSLError))
        return next((alert for alert in alerts if "ALERT" in (alert.reason or "")), None)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
