"""A primary with replicas under Sentinels (https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/)."""

import re
from pathlib import Path
from typing import Any, Self

import redis

from tests.support.server_set import CONF, USER, DataServer, Fleet, Member, until

DOWN_AFTER = 1.0
"""Seconds after which Sentinels take a silent primary for down."""

_NAME = "main"


class Sentinel(Member):
    """Looks after one primary, with two others."""

    def __init__(self, kind: str, binary: Path, primary: Member) -> None:
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
        self._settings = {"": ""}  # a Sentinel has none to ask for

    def start(self) -> "Sentinel":
        started = not self.alive
        super().start()
        if started:
            # By itself it would see a replica come back only after 10 s, and with one ping a second take a
            # primary that it has just met for down. Its other paces stay as they are.
            self.control.execute_command("SENTINEL", "DEBUG", "info-period", "1000", "ping-period", "200")
        return self

    def reset(self) -> "Sentinel":
        self.start()
        self.resume()
        return self

    def ask(self, command: str) -> Any:
        return self.control.execute_command("SENTINEL", command, _NAME)

    def sees_all(self) -> bool:
        """Whether it knows the primary, two replicas and two others, and takes all for well."""
        primary = _pairs(self.ask("MASTER"))
        if (primary["flags"], primary["num-slaves"], primary["num-other-sentinels"]) != ("master", "2", "2"):
            return False
        replicas = [_pairs(one) for one in self.ask("REPLICAS")]
        return all(
            (one["flags"], one["role-reported"], one["master-link-status"]) == ("slave", "slave", "ok")
            for one in replicas
        ) and not any(re.search("s_down|disconnected", _pairs(one)["flags"]) for one in self.ask("SENTINELS"))


class SentinelSet(Fleet):
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

    def everything(self) -> list[Member]:
        return [*self.servers, *self.sentinels]

    @property
    def primary(self) -> Member:
        """The server that the Sentinels name, once they agree on one that lives."""
        found: Member = until(self._agreed, "the Sentinels agree on a primary")
        return found

    def primaries(self) -> list[Member]:
        return [self.primary]

    def primary_of(self, room_id: str = "") -> Member:
        return self.primary

    def failover(self, room_id: str = "") -> Member:
        old = self.primary
        until(self._takes_order, "a Sentinel begins the failover")
        return self.promoted(old)

    def promoted(self, old: Member, room_id: str = "") -> Member:
        found: Member = until(lambda: (new := self._agreed()) is not old and new, "another primary")
        return found

    def is_whole(self) -> bool:
        primary = self._agreed() if all(one.alive for one in self.everything()) else None
        return (
            primary is not None
            and all(server.follows(primary) for server in self.servers if server is not primary)
            and all(sentinel.sees_all() for sentinel in self.sentinels)
        )

    def _agreed(self) -> Member | None:
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
            return False  # it is about one, or has not seen yet that a replica would do
        return True

    def _mend(self) -> None:
        primary = self.primary
        for server in self.servers:
            if server is not primary and not server.follows(primary):
                server.control.replicaof("127.0.0.1", str(primary.port))


def _pairs(flat: Any) -> dict[str, str]:
    return dict(flat) if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
