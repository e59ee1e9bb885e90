"""Loads settings from flags, environment and file, in this order of precedence; then the defaults."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from reactor.errors import SettingError
from reactor.settings import RoomRule, Settings, kinds, setting_fields
from reactor.settings.rooms import read_rules
from reactor.settings.secret_files import PASSWORD_FILE, has_password, merge
from reactor.settings.security import is_loopback

PREFIX = "REACTOR_"

BACKGROUND_TIMERS = 75.0
"""Shortest ttl (seconds) for clients whose timers run once a minute, as those of hidden pages do."""
OTHER_VARIABLES = frozenset({"REACTOR_TOKEN"})
"""Variables that are not settings: `reactor watch` reads them."""


def load(flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings from all sources.

    flags: values from the command line by setting name; None counts as not given. environ: `os.environ` by
    default; an empty variable counts as not set. Raises SettingError.
    """
    environ = os.environ if environ is None else environ
    from_flags: dict[str, Any] = {}
    from_environ: dict[str, Any] = {}
    for item in setting_fields():
        kind: kinds.Kind = item.metadata["kind"]
        flag, variable = (flags or {}).get(item.name), environ.get(variable_name(item.name))
        if flag is not None:
            from_flags[item.name] = kind.read(flag_name(item.name), flag)
        if variable:
            from_environ[item.name] = kind.read(variable_name(item.name), variable)
    config = from_flags.get("config") or from_environ.get("config")
    given = merge([read_file(config) if config else {}, from_environ, from_flags])
    if PASSWORD_FILE in given and has_password(given.get("redis_url", "")):
        raise SettingError(f"{PASSWORD_FILE} is set, and redis_url has a password: keep one of them.")
    return Settings(**given)


def read_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file by name, with the rules of its table `rooms`. Raises SettingError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise SettingError(f"{path} is not valid TOML: it is not UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"{path} is not valid TOML: {error}.") from None
    known = {item.name: item.metadata["kind"] for item in setting_fields() if item.name != "config"}
    rules: tuple[RoomRule, ...] = ()
    given: dict[str, Any] = {}
    for key, value in table.items():
        if key == "rooms":
            rules = read_rules(value, f"{path}: ")
        elif key in known:
            given[key] = known[key].read(f"{path}: {key}", value)
        else:
            raise SettingError(f"{path}: {key} is not a setting.{kinds.did_you_mean(key, [*known, 'rooms'])}")
    return {**given, "rooms": rules}


def advice(settings: Settings, environ: Mapping[str, str] | None = None) -> list[str]:
    """Warnings about settings that are valid, and yet dangerous or probably a mistake."""
    environ = os.environ if environ is None else environ
    lines = [_unknown_variable(name) for name in sorted(environ) if _is_unknown(name)]
    if not (settings.pacemaker or settings.listener or settings.sweep_interval):
        lines.append("pacemaker, listener and sweep_interval are all off: expired members are not removed.")
    if not (settings.requires_tokens or is_loopback(settings.host)):
        lines.append(
            f"host is {settings.host} and no token is required: every client that reaches this server can "
            "join any room as any user. Set auth_secret or auth_jwks, or use a proxy that authenticates."
        )
    if settings.auth_jwks is not None and settings.auth_audience is None:
        lines.append(
            "auth_jwks is set, but auth_audience is not: tokens that the same issuer made for another "
            "application are accepted if they name no audience, and refused if they name one. "
            "Set auth_audience to the aud of your tokens."
        )
    if settings.admin_port is not None and not (settings.admin_tls or is_loopback(settings.admin_host)):
        lines.append(
            f"admin_host is {settings.admin_host}: the admin key is sent there unencrypted; "
            "set tls_cert, keep it on 127.0.0.1, or let only a proxy with TLS reach it."
        )
    lines += _advice_on_redis(settings.redis_url or "")
    lines += _advice_on_times("", settings.ttl, settings.ttl, settings.grace, settings.heartbeat_interval)
    for rule in settings.rooms:
        ttl = settings.ttl if rule.ttl is None else rule.ttl
        where = f' in rooms."{rule.match}"'
        lines += _advice_on_times(where, ttl, rule.ttl, rule.grace, settings.heartbeat_interval)
    return lines


def variable_name(setting: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.upper()


def flag_name(setting: str) -> str:
    """The flag of a setting."""
    return "--" + setting.replace("_", "-")


def _advice_on_redis(url: str) -> list[str]:
    options = dict(parse_qsl(urlsplit(url).query))
    lines = []
    if (chosen := options.get("ssl_cert_reqs", "required")) != "required":
        lines.append(
            f"redis_url has ssl_cert_reqs={chosen}: any program between this server and Redis can read and "
            "change everything, the password included. Use ssl_ca_certs instead."
        )
    elif options.get("ssl_check_hostname", "yes").strip().lower() in kinds.OFF_WORDS:
        lines.append(
            "redis_url has ssl_check_hostname=no: every server with a certificate of the same authority "
            "passes for Redis. Connect by a name that its certificate has."
        )
    return lines


def _advice_on_times(
    where: str, ttl: float, own_ttl: float | None, own_grace: float | None, heartbeat: float
) -> list[str]:
    """Warnings about the values set at this place; inherited values are checked where they are set."""
    lines = []
    if own_ttl is not None and heartbeat > own_ttl / 2:
        lines.append(
            f"ttl{where} is {kinds.show_duration(own_ttl)}, less than two intervals of "
            f"heartbeat_interval ({kinds.show_duration(heartbeat)}): one late heartbeat removes a member."
        )
    if own_ttl is not None and own_ttl < BACKGROUND_TIMERS:
        lines.append(
            f"ttl{where} is {kinds.show_duration(own_ttl)}: the timers of hidden pages run once a minute, so "
            f"members may expire there. {kinds.show_duration(BACKGROUND_TIMERS)} or more is safe."
        )
    if own_grace is not None and own_grace > ttl:
        lines.append(f"grace{where} is longer than ttl ({kinds.show_duration(ttl)}), which limits it.")
    return lines


def _is_unknown(variable: str) -> bool:
    known = {variable_name(item.name) for item in setting_fields()}
    return variable.startswith(PREFIX) and variable not in known | OTHER_VARIABLES


def _unknown_variable(variable: str) -> str:
    near = kinds.nearest(variable.removeprefix(PREFIX), [item.name for item in setting_fields()])
    hint = f" Did you mean {variable_name(near)}?" if near else ""
    return f"{variable} is not a setting and has no effect.{hint}"
