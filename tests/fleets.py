"""Sets of servers as they are run for real: a primary with replicas under Sentinels, and a cluster."""

from tests.fleet.clusters import NODE_TIMEOUT, ClusterSet, slot_of
from tests.fleet.members import Fleet, Member, until
from tests.fleet.sentinels import DOWN_AFTER, SentinelSet

__all__ = [
    "DOWN_AFTER",
    "NODE_TIMEOUT",
    "ClusterSet",
    "Fleet",
    "Member",
    "SentinelSet",
    "slot_of",
    "until",
]
