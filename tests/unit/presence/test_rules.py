"""The settings of single rooms, as far as they need no Redis."""

from typing import Any, cast

from reactor.presence.rules import RoomRules
from reactor.settings import RoomRule, Settings


async def test_the_cached_policies_are_bounded():
    settings = Settings(rooms=(RoomRule(match="room-7", ttl=5),))
    rules = RoomRules(settings, cast("Any", None))
    for number in range(25_000):
        assert rules.policy(f"room-{number}").ttl == (5000 if number == 7 else settings.ttl * 1000)
    assert len(rules._policies) <= 10_000
    assert rules.policy("room-7") is rules.policy("room-7")
