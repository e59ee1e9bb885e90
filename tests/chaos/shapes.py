"""The deployments of Redis that schedules run on."""

from pathlib import Path
from typing import Self

from tests.support import servers
from tests.support.cluster_set import ClusterSet
from tests.support.sentinel_set import SentinelSet
from tests.support.server_sets import ServerSet, SetServer


class SingleServer(ServerSet):
    """A single server with the interface of a set."""

    def __init__(self, kind: str, binary: Path) -> None:
        super().__init__(kind, binary)
        self.servers = [SetServer(kind, binary)]
        self.url = self.servers[0].url

    def start(self) -> Self:
        self.servers[0].start()
        return self

    def everything(self) -> list[SetServer]:
        return self.servers

    def primaries(self) -> list[SetServer]:
        return self.servers

    def primary_of(self, room_id: str) -> SetServer:
        return self.servers[0]

    def failover(self, room_id: str) -> SetServer:
        raise AssertionError("a single server has no replica")

    promoted = failover  # type: ignore[assignment]

    def _repair(self) -> None:
        """Nothing to do: a single server has no replication state."""

    def is_whole(self) -> bool:
        return self.servers[0].alive


SHAPES: dict[str, type[ServerSet]] = {"single": SingleServer, "sentinel": SentinelSet, "cluster": ClusterSet}


def kinds() -> list[str]:
    """The kinds of server (valkey, redis7) that this machine has."""
    return [kind for kind in servers.KINDS if servers.find(kind)[0] is not None]
