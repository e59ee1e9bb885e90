"""Passes each publication that this node receives to the part of the node that acts on it.

The channels of the rules, of the fleet and of the shards are subscribed to all the time, those of rooms and
of users while they are followed. What is published for the fleet or for a shard begins with a mark (see
`presence/keys.py`), or is the time of a wake-up.
"""

from reactor.expiry.pacemaker import Pacemaker
from reactor.membership.roster_audit import RosterAudit
from reactor.membership.user_removal import UserRemoval
from reactor.presence.keys import (
    BAN_MARK,
    DAMAGED_MARK,
    DISCONNECT_MARK,
    MISSING_MARK,
    REVOKED_MARK,
    Keyspace,
    fleet_channel,
)
from reactor.presence.known_bans import KnownBans
from reactor.presence.people_feed import PeopleFeed
from reactor.presence.revocations import Revocations
from reactor.presence.room_feed import RoomFeed
from reactor.presence.rules import RoomRules
from reactor.tasks import Spawner


class Publications:
    """What is published to this node. Nothing may be received before `connect`."""

    _feed: RoomFeed
    _people: PeopleFeed | None
    _pacemaker: Pacemaker
    _roster_audit: RosterAudit
    _user_removal: UserRemoval

    def __init__(
        self, keys: Keyspace, rules: RoomRules, revocations: Revocations, bans: KnownBans, tasks: Spawner
    ) -> None:
        self._keys, self._rules, self._revocations, self._tasks = keys, rules, revocations, tasks
        self._bans = bans
        self._rules_channel = rules.channel.encode()
        self._fleet_channel = fleet_channel(keys.namespace, keys.database).encode()
        self._wake_channels: dict[bytes, int] = {}
        self._person_mark = keys.person_mark.encode()

    def connect(
        self, *, feed: RoomFeed, people: PeopleFeed | None, pacemaker: Pacemaker,
        roster_audit: RosterAudit, user_removal: UserRemoval,
    ) -> None:  # fmt: skip
        """Set the parts that are created after the subscription. people: None where their index is off."""
        self._feed, self._people, self._pacemaker = feed, people, pacemaker
        self._roster_audit, self._user_removal = roster_audit, user_removal

    def permanent_channels(self) -> list[str]:
        """Return the channels to subscribe to all the time; the number of shards has to be known."""
        self._wake_channels = {self._keys.wake_channel(shard).encode(): shard for shard in self._keys.shards}
        return [one.decode() for one in (self._rules_channel, self._fleet_channel, *self._wake_channels)]

    def on_message(self, channel: bytes, payload: bytes) -> None:
        """Act on a message, or begin to; what other programs publish is ignored."""
        shard = self._wake_channels.get(channel)
        if shard is not None:
            self._on_shard_message(shard, payload)
        elif channel == self._fleet_channel:
            self._on_fleet_message(payload)
        elif channel == self._rules_channel:
            self._rules.changed(payload.decode(errors="replace"))
        elif self._people is not None and self._person_mark in channel:
            self._people.on_message(channel, payload)
        else:
            self._feed.on_message(channel, payload)

    def _on_shard_message(self, shard: int, payload: bytes) -> None:
        if payload.startswith(DAMAGED_MARK):
            self._on_damaged_key(payload)
        elif payload.startswith(MISSING_MARK):
            self._roster_audit.on_missing_member(payload[len(MISSING_MARK) :].decode(errors="replace"))
        elif payload.startswith(BAN_MARK):
            self._bans.on_message(payload[len(BAN_MARK) :])
        elif payload.isdigit() and len(payload) < 16:
            self._pacemaker.wake(shard, int(payload))

    def _on_fleet_message(self, payload: bytes) -> None:
        if payload.startswith(DAMAGED_MARK):
            self._on_damaged_key(payload)
        elif payload.startswith(DISCONNECT_MARK):
            self._tasks.start_soon(self._user_removal.remove, payload[len(DISCONNECT_MARK) :])
        elif payload.startswith(REVOKED_MARK):
            self._revocations.on_message(payload[len(REVOKED_MARK) :].decode(errors="replace"))
        elif payload.startswith(BAN_MARK):
            self._bans.on_message(payload[len(BAN_MARK) :])

    def _on_damaged_key(self, payload: bytes) -> None:
        self._roster_audit.on_damaged_key(payload[len(DAMAGED_MARK) :].decode(errors="backslashreplace"))
