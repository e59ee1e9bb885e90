"""When a fleet may pass to a newer format of the namespace.

A release that brings a new format speaks the former one as well, and writes that for as long as a node of an
older release is registered. The registry alone does not show that: after a loss of Redis's data it fills
again only little by little. So for ADVANCE_DELAY no older node may have been seen, and the registry not been
lost. The script that renews the lease then advances the format, if each registered node speaks it.
"""

from collections.abc import Mapping

from reactor.fleet.registry import NodeRecord
from reactor.presence.format import FormatRange

ADVANCE_DELAY = 60.0
"""Seconds; as long as that, the release before can also be started again."""


class FormatAdvance:
    """What one node knows about it. now: steady clock (s)."""

    def __init__(self, formats: FormatRange, now: float) -> None:
        self._newest = formats.newest
        self._older_seen_at = now

    def observe(self, nodes: Mapping[str, NodeRecord], now: float) -> None:
        """Take in the registry as it is."""
        if any(record.newest_format < self._newest for record in nodes.values()):
            self._older_seen_at = now

    def registry_lost(self, now: float) -> None:
        """Note that nodes may be missing in the registry."""
        self._older_seen_at = now

    def permitted(self, now: float) -> bool:
        """Return whether the newest format may be written, if every registered node speaks it."""
        return now - self._older_seen_at > ADVANCE_DELAY
