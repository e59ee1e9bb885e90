"""Gives commands the settings as flags, from the table of settings, and finds the Redis that they ask."""

import inspect
import sys
from collections.abc import Callable, Container
from typing import Annotated, Any

from cyclopts import Group, Parameter

from reactor.errors import ReactorError
from reactor.settings import Settings, kinds, setting_fields
from reactor.settings.load import load

ABOUT_SETTINGS = """
Each setting can also be set in the environment (`REACTOR_TTL=10m`), or in the file that `--config` names
(`ttl = "10m"`, and rules for rooms, as in `[rooms."lobby-*"]`). A flag overrides the environment, and the
environment overrides the file. A duration is 90 (seconds), 500ms, 15s, 10m, 6h or 1d; a size is 4096 (bytes),
64KiB or 1MiB.
"""


def with_settings(
    names: Container[str] | None = None, group: str | None = None, no_redis: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a function that takes `**flags`, so that it takes settings as flags.

    The values are text, None where a flag is not given. `reactor.settings.load` reads them, so that an
    invalid value gets the same message from every source.

    names: the settings; all of them by default. group: one heading of the help for all of them. no_redis:
    what the help says is used when no Redis is named.
    """
    chosen = [item for item in setting_fields() if names is None or item.name in names]
    headings = {
        name: Group.create_ordered(name) for name in dict.fromkeys(_heading(item, group) for item in chosen)
    }
    parameters = []
    for item in chosen:
        kind: kinds.Kind = item.metadata["kind"]
        flag = Parameter(
            group=headings[_heading(item, group)],
            help=item.metadata["about"],
            metavar=kind.word,
            show_default=_default(item, no_redis),
            allow_leading_hyphen=True,
        )
        parameters.append(
            inspect.Parameter(
                item.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[str | None, flag],
            )
        )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        own = [
            item for item in signature.parameters.values() if item.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        function.__signature__ = signature.replace(parameters=[*own, *parameters])  # type: ignore[attr-defined]
        function.__annotations__ |= {item.name: item.annotation for item in parameters}
        return function

    return decorate


def settings_with_redis(flags: dict[str, Any]) -> Settings:
    """Load the settings, with the Redis of a running `reactor serve` of this user if none is named.

    Raises ReactorError if no Redis is named and no `reactor serve` of this user runs here.
    """
    from reactor.backend.embedded import running_urls
    from reactor.log import set_up_logs

    settings = load(flags)
    if settings.redis_url is None:
        urls = running_urls()
        if not urls:
            raise ReactorError(
                "No Redis is named, and this user runs no `reactor serve` with an embedded server here. "
                "Name one with --redis-url or REACTOR_REDIS_URL."
            )
        if len(urls) > 1:
            sys.stderr.write(
                f"note: {len(urls)} servers run here; using the newest one, --redis-url {urls[0]}\n"
            )
        settings = load({**flags, "redis_url": urls[0]})
    set_up_logs(settings)
    return settings


def _default(item: Any, no_redis: str) -> str:
    if item.name == "redis_url" and no_redis:
        return no_redis
    return str(
        item.metadata["none"] if item.default in (None, ()) else item.metadata["kind"].show(item.default)
    )


def _heading(item: Any, group: str | None) -> str:
    return group or str(item.metadata["group"])


redis_flags = with_settings(
    ("redis_url", "redis_url_file", "redis_password_file", "namespace", "config", "log_level"),
    "Which Redis",
    "that of a reactor serve here",
)
