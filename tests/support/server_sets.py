"""Sets of Redis servers for tests, and what those of Sentinels and of a cluster have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.support.servers import Server, find, moves_slots_at_once, standing_for
from tests.support.waiting import until_blocking

CONF = Path(__file__).parents[2] / "redis-conf"
USER = "reactor:change-this-password"
"""Username and password of the nodes, from users.acl, with the rights given there and no more."""
QUICK = {"repl-ping-replica-period": "1"}
_IN_FILES = ("notify-keyspace-events", "save", "appendonly")
_CHANGED_BY_TESTS = ("notify-keyspace-events", "min-replicas-to-write", "cluster-require-full-coverage")


class SetServer(Server):
    """One server of a set. It has a configuration file, because Sentinel and CONFIG REWRITE rewrite it."""

    def __init__(
        self,
        kind: str,
        binary: Path,
        *,
        flags: str = "",
        text: str = "",
        config: dict[str, str] | None = None,
    ) -> None:
        super().__init__(kind, binary, config)
        for name in _IN_FILES:
            del self._config[name]
        (self.folder / "server.conf").write_text(text)
        program = self.folder / "run"
        program.write_text(f"#!/bin/sh\nexec '{binary}' server.conf {flags} \"$@\"\n")
        program.chmod(0o700)
        self._binary = program
        self._paused = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether it runs, and answers."""
        return self._watch is not None and self._watch.poll() is None and not self._paused

    def pause(self) -> None:
        super().pause()
        self._paused = True

    def resume(self) -> None:
        super().resume()
        self._paused = False

    def kill(self) -> None:
        """SIGKILL. It starts again without data."""
        super().kill()
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    def kill_saved(self) -> None:
        """SIGKILL after SAVE. It starts again with its present data."""
        self.control.save()
        super().kill()

    def info(self, section: str) -> dict[str, Any]:
        found: Any = self.control.info(section)
        return dict(found)

    @property
    def is_primary(self) -> bool:
        return bool(self.info("replication")["role"] == "master")

    def follows(self, primary: "SetServer") -> bool:
        """Whether it is a replica of the primary, and up to date."""
        seen = self.info("replication")
        return (seen["role"], seen.get("master_port"), seen.get("master_link_status")) == (
            "slave",
            primary.port,
            "up",
        )

    def reset(self) -> "SetServer":
        """Reset everything but its data and its role in the set."""
        self.start()
        self.resume()
        control = self.control
        control.execute_command("CLIENT", "UNPAUSE")
        if "aclfile" in self._config:
            control.execute_command("ACL", "SETUSER", "replica", "+psync", "+sync")
        for name in _CHANGED_BY_TESTS:
            if name in self._settings:
                control.config_set(name, self._settings[name])
        control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        return self


class DataServer(SetServer):
    """A data server, configured from redis-conf/: standalone.conf, the file of its set, and users.acl."""

    def __init__(self, kind: str, binary: Path, file: str, config: dict[str, str]) -> None:
        text = f"include {CONF / 'standalone.conf'}\ninclude {CONF / file}\n"
        super().__init__(kind, binary, text=text, config={**QUICK, "aclfile": "users.acl", **config})
        (self.folder / "users.acl").write_text(open_users())

    def start(self) -> "DataServer":
        super().start()
        if moves_slots_at_once(self.kind):  # as cluster.conf says
            rights = "~* +select +@write +cluster|syncslots"
            self.control.execute_command("ACL", "SETUSER", "replica", *rights.split())
        return self


def open_users() -> str:
    """The text of users.acl, with an administrator that needs no password."""
    users, closed = (CONF / "users.acl").read_text(), "user default on >change-this-password "
    assert closed in users
    return users.replace(closed, "user default on nopass ")


class ServerSet(ABC):
    """A set of servers. `servers` are those with data; some may be down.

    Every method blocks until its effect is visible: on an event loop, call it in a thread.
    """

    url: str
    servers: list[SetServer]

    def __init__(self, kind: str, _binary: Path) -> None:
        self.kind = kind

    @abstractmethod
    def start(self) -> Self:
        """Start all servers and wait until the set is complete."""

    @abstractmethod
    def everything(self) -> list[SetServer]:
        """All processes of the set."""

    @abstractmethod
    def primaries(self) -> list[SetServer]:
        """The servers that take writes."""

    @abstractmethod
    def primary_of(self, room_id: str) -> SetServer:
        """The primary of the room's shard, once all servers agree."""

    @abstractmethod
    def failover(self, room_id: str) -> SetServer:
        """Fail the room's primary over without loss; the new primary."""

    @abstractmethod
    def promoted(self, old: SetServer, room_id: str) -> SetServer:
        """Wait until all agree on another primary for the room; the new primary."""

    @abstractmethod
    def _repair(self) -> None:
        """Undo changes that the set would take long to undo by itself."""

    @abstractmethod
    def is_whole(self) -> bool:
        """Whether everything is up, agreed upon and replicated."""

    @property
    def admin_url(self) -> str:
        """The URL with the rights of an administrator, for a node that sets notify-keyspace-events."""
        return self.url.replace(f"{USER}@", "")

    def stop(self) -> None:
        for server in self.everything():
            server.stop()

    def wait_whole(self) -> None:
        until_blocking(self.is_whole, what="the set is whole")

    def kill_primary(self, room_id: str) -> SetServer:
        """SIGKILL to the room's primary; the killed server."""
        primary = self.primary_of(room_id)
        primary.kill()
        return primary

    def restart(self, server: SetServer) -> None:
        """Start a killed server again on its former address, and wait until the set is complete."""
        server.start()
        self.wait_whole()

    def reset(self) -> Self:
        """Make the set complete, empty and configured as at the start. The roles may stay as they are."""
        for server in self.everything():
            server.reset()
        self._repair()
        self.wait_whole()
        for primary in self.primaries():
            primary.control.flushall()
        for server in self.servers:
            server.control.script_flush()
        return self

    @contextmanager
    def unreplicated(self, primary: SetServer) -> Iterator[None]:
        """Let no write of a primary reach its replicas, so that a failover in the block loses it."""
        primary.control.config_set("min-replicas-to-write", 0)
        primary.control.execute_command("ACL", "SETUSER", "replica", "-psync", "-sync")
        primary.control.execute_command("CLIENT", "KILL", "TYPE", "replica")
        until_blocking(
            lambda: primary.info("replication")["connected_slaves"] == 0, what="its replicas are cut off"
        )
        try:
            yield
        finally:
            if primary.alive:
                primary.control.execute_command("ACL", "SETUSER", "replica", "+psync", "+sync")


class RunningSets:
    """The running sets of one process, each started at its first use."""

    def __init__(self) -> None:
        self._started: dict[tuple[type[ServerSet], str], ServerSet] = {}

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator[Self]:
        """Stop all sets at the end of the block."""
        sets = cls()
        try:
            yield sets
        finally:
            for server_set in sets._started.values():
                server_set.stop()

    def get(self, set_type: type[ServerSet], kind: str) -> ServerSet:
        """A running set; blocks while it starts. Raises LookupError if the machine lacks the server."""
        kind = standing_for(kind)
        if (set_type, kind) not in self._started:
            binary, missing = find(kind)
            if binary is None:
                raise LookupError(missing)
            server_set = set_type(kind, binary)
            try:
                self._started[set_type, kind] = server_set.start()
            except BaseException:
                server_set.stop()
                raise
        return self._started[set_type, kind]
