"""A primary with replicas under Sentinels, for tests.

https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/
"""

import re
from pathlib import Path
from typing import Any, Self

import redis

from tests.support.server_sets import CONF, USER, DataServer, ServerSet, SetServer
from tests.support.waiting import until_blocking

DOWN_AFTER = 1.0
"""Seconds without an answer after which Sentinels consider the primary down."""

_NAME = "main"


class Sentinel(SetServer):
    """One of three Sentinels that monitor one primary."""

    def __init__(self, kind: str, binary: Path, primary: SetServer) -> None:
        text = (CONF / "sentinel.conf").read_text()
        for line, quick in (
            ("port 26379", ""),
            ("monitor main 127.0.0.1 6379", f"monitor {_NAME} 127.0.0.1 {primary.port}"),
            ("down-after-milliseconds main 5000", f"down-after-milliseconds {_NAME} {DOWN_AFTER * 1000:.0f}"),
            ("failover-timeout main 30000", f"failover-timeout {_NAME} 3000"),
        ):
            assert text.count(line) == 1
            text = text.replace(line, quick)
        super().__init__(kind, binary, flags="--sentinel", text=text)
        self._settings = {"": ""}  # a Sentinel has no CONFIG GET

    def start(self) -> "Sentinel":
        started = not self.alive
        super().start()
        if started:
            # With the default periods it would notice a returned replica only after 10 s, and with one ping
            # a second consider a new primary down.
            self.control.execute_command("SENTINEL", "DEBUG", "info-period", "1000", "ping-period", "200")
        return self

    def reset(self) -> "Sentinel":
        self.start()
        self.resume()
        return self

    def ask(self, command: str) -> Any:
        return self.control.execute_command("SENTINEL", command, _NAME)

    def sees_all(self) -> bool:
        """Whether it knows the primary, two replicas and two other Sentinels, and considers them all up."""
        primary = _pairs(self.ask("MASTER"))
        if (primary["flags"], primary["num-slaves"], primary["num-other-sentinels"]) != ("master", "2", "2"):
            return False
        replicas = [_pairs(one) for one in self.ask("REPLICAS")]
        return all(
            (one["flags"], one["role-reported"], one["master-link-status"]) == ("slave", "slave", "ok")
            for one in replicas
        ) and not any(re.search("s_down|disconnected", _pairs(one)["flags"]) for one in self.ask("SENTINELS"))


class SentinelSet(ServerSet):
    """A primary, two replicas and three Sentinels."""

    def __init__(self, kind: str, binary: Path) -> None:
        super().__init__(kind, binary)
        self.servers = [DataServer(kind, binary, "replicated.conf", {}) for _ in range(3)]
        self.sentinels = [Sentinel(kind, binary, self.servers[0]) for _ in range(3)]
        self.url = f"redis+sentinel://{USER}@{','.join(one.address for one in self.sentinels)}/{_NAME}/0"

    def start(self) -> Self:
        for server in self.servers:
            server.start()
        for replica in self.servers[1:]:
            replica.control.replicaof("127.0.0.1", str(self.servers[0].port))
            replica.control.config_rewrite()
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait_whole()
        return self

    def everything(self) -> list[SetServer]:
        return [*self.servers, *self.sentinels]

    @property
    def primary(self) -> SetServer:
        """The primary, once all Sentinels agree on a server that is up."""
        found: SetServer = until_blocking(self._agreed, what="the Sentinels agree on a primary")
        return found

    def primaries(self) -> list[SetServer]:
        return [self.primary]

    def primary_of(self, room_id: str = "") -> SetServer:
        return self.primary

    def failover(self, room_id: str = "") -> SetServer:
        old = self.primary
        until_blocking(self._takes_order, what="a Sentinel begins the failover")
        return self.promoted(old)

    def promoted(self, old: SetServer, room_id: str = "") -> SetServer:
        found: SetServer = until_blocking(
            lambda: (new := self._agreed()) is not old and new, what="another primary"
        )
        return found

    def is_whole(self) -> bool:
        primary = self._agreed() if all(one.alive for one in self.everything()) else None
        return (
            primary is not None
            and all(server.follows(primary) for server in self.servers if server is not primary)
            and all(sentinel.sees_all() for sentinel in self.sentinels)
        )

    def _agreed(self) -> SetServer | None:
        named = {tuple(one.ask("GET-MASTER-ADDR-BY-NAME")) for one in self.sentinels if one.alive}
        if len(named) != 1:
            return None
        ((_, port),) = named
        found = next(server for server in self.servers if server.port == int(port))
        return found if found.alive and found.is_primary else None

    def _takes_order(self) -> bool:
        try:
            self.sentinels[0].ask("FAILOVER")
        except redis.ResponseError:
            return False  # a failover is in progress, or it knows no suitable replica yet
        return True

    def _repair(self) -> None:
        primary = self.primary
        for server in self.servers:
            if server is not primary and not server.follows(primary):
                server.control.replicaof("127.0.0.1", str(primary.port))


def _pairs(flat: Any) -> dict[str, str]:
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
