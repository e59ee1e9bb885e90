"""The classes that a node builds its instrumented parts from; tracing puts others in their place."""

from collections.abc import Callable
from dataclasses import dataclass

from reactor.expiry.reaper import Reaper
from reactor.gateway.fanout import Fanout
from reactor.membership.handler import RequestHandler
from reactor.presence.room_feed import RoomFeed
from reactor.presence.store import Store


@dataclass(frozen=True)
class Parts:
    """What builds each part. The usual classes know nothing of tracing, so it is free where it is off."""

    store: Callable[..., Store] = Store
    reaper: Callable[..., Reaper] = Reaper
    feed: Callable[..., RoomFeed] = RoomFeed
    fanout: Callable[..., Fanout] = Fanout
    handler: Callable[..., RequestHandler] = RequestHandler
