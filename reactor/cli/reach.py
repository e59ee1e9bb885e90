"""Which Redis a command asks: the one that is named, else that of a `reactor serve` of this user."""

import sys
from typing import Any

from reactor.errors import ReactorError
from reactor.settings import Settings
from reactor.settings.load import load


def reach(flags: dict[str, Any]) -> Settings:
    """Settings with the Redis to ask. Raises ReactorError where none is named and none runs here."""
    from reactor.backend.embedded import running_urls
    from reactor.log import set_up_logs

    settings = load(flags)
    if settings.redis_url is None:
        urls = running_urls()
        if not urls:
            raise ReactorError(
                "No Redis is named, and this user runs no `reactor serve` with a server of its own here. "
                "Name one with --redis-url or REACTOR_REDIS_URL."
            )
        if len(urls) > 1:
            sys.stderr.write(
                f"note: {len(urls)} servers run here; asking the youngest, --redis-url {urls[0]}\n"
            )
        settings = load({**flags, "redis_url": urls[0]})
    set_up_logs(settings)
    return settings
