"""Sets of servers as they are run for real: a primary with replicas under Sentinels, and a cluster."""

from tests.support.clusters import NODE_TIMEOUT, ClusterSet, slot_of
from tests.support.sentinels import DOWN_AFTER, SentinelSet
from tests.support.server_set import Fleet, Member, until

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
