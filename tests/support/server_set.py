"""One server of a set, what every set of servers can do, and how to wait for what nobody announces."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import redis

from tests.support.servers import Server

PATIENCE = 30.0
CONF = Path(__file__).parents[2] / "redis-conf"
USER = "reactor:change-this-password"
"""Whom the nodes log in as: the user of users.acl, with no more rights than that."""
QUICK = {"repl-ping-replica-period": "1"}
_IN_FILES = ("notify-keyspace-events", "save", "appendonly")
_CHANGED_BY_TESTS = ("notify-keyspace-events", "min-replicas-to-write", "cluster-require-full-coverage")


class Member(Server):
    """One server of a set. It has a real configuration file, for Sentinel and CONFIG REWRITE replace it."""

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
        """End it by SIGKILL. When it starts again it is empty."""
        super().kill()
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    def kill_saved(self) -> None:
        """End it by SIGKILL. When it starts again it has the data that it has now."""
        self.control.save()
        super().kill()

    def info(self, section: str) -> dict[str, Any]:
        found: Any = self.control.info(section)
        return dict(found)

    @property
    def is_primary(self) -> bool:
        return bool(self.info("replication")["role"] == "master")

    def follows(self, primary: "Member") -> bool:
        """Whether it is a replica of the primary, and up to date."""
        seen = self.info("replication")
        return (seen["role"], seen.get("master_port"), seen.get("master_link_status")) == (
            "slave",
            primary.port,
            "up",
        )

    def reset(self) -> "Member":
        """As new, but for its data and its part in the set."""
        self.start()
        self.resume()
        control = self.control
        control.execute_command("CLIENT", "UNPAUSE")
        if "aclfile" in self._config:
            control.execute_command("ACL", "SETUSER", "replica", "+psync")
        for name in _CHANGED_BY_TESTS:
            if name in self._settings:
                control.config_set(name, self._settings[name])
        control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        return self


class DataServer(Member):
    """One with data, as redis-conf/ has it: standalone.conf, what its set needs beside, and users.acl."""

    def __init__(self, kind: str, binary: Path, file: str, config: dict[str, str]) -> None:
        text = f"include {CONF / 'standalone.conf'}\ninclude {CONF / file}\n"
        super().__init__(kind, binary, text=text, config={**QUICK, "aclfile": "users.acl", **config})
        (self.folder / "users.acl").write_text(open_users())

    def start(self) -> "DataServer":
        super().start()
        if self.kind == "valkey":  # as cluster.conf says
            rights = "~* +select +@write +cluster|syncslots"
            self.control.execute_command("ACL", "SETUSER", "replica", *rights.split())
        return self


def open_users() -> str:
    """The users of users.acl, but for the administrator, who needs no password here."""
    users, closed = (CONF / "users.acl").read_text(), "user default on >change-this-password "
    assert closed in users
    return users.replace(closed, "user default on nopass ")


class Fleet(ABC):
    """A set of servers. `servers` are those with data; some may be down.

    All calls block until what they are to bring about is so: on an event loop, make them in a thread.
    """

    url: str
    servers: list[Member]

    def __init__(self, kind: str, _binary: Path) -> None:
        self.kind = kind

    @abstractmethod
    def start(self) -> Self:
        """Start everything; it is whole when this returns."""

    @abstractmethod
    def everything(self) -> list[Member]:
        """All processes of the set."""

    @abstractmethod
    def primaries(self) -> list[Member]:
        """The servers that take writes."""

    @abstractmethod
    def primary_of(self, room_id: str) -> Member:
        """The server that has the room, once all agree."""

    @abstractmethod
    def failover(self, room_id: str) -> Member:
        """Change the room's primary in good order; the new one."""

    @abstractmethod
    def promoted(self, old: Member, room_id: str) -> Member:
        """Wait until all agree that another server is the room's primary; which one."""

    @abstractmethod
    def _mend(self) -> None:
        """Undo what would take long to heal by itself."""

    @abstractmethod
    def is_whole(self) -> bool:
        """Whether everything is up, agreed upon and replicated."""

    @property
    def admin_url(self) -> str:
        """The address for a node that may also switch events on."""
        return self.url.replace(f"{USER}@", "")

    def stop(self) -> None:
        for server in self.everything():
            server.stop()

    def wait_whole(self) -> None:
        until(self.is_whole, "the set is whole")

    def kill_primary(self, room_id: str) -> Member:
        """End the room's primary by SIGKILL; the dead one."""
        primary = self.primary_of(room_id)
        primary.kill()
        return primary

    def restart(self, server: Member) -> None:
        """Start a server that was killed, on its former address, and wait until it has found its place."""
        server.start()
        self.wait_whole()

    def reset(self) -> Self:
        """Whole, empty, and configured as at first. Who is primary may stay as it is."""
        for server in self.everything():
            server.reset()
        self._mend()
        self.wait_whole()
        for primary in self.primaries():
            primary.control.flushall()
        for server in self.servers:
            server.control.script_flush()
        return self

    @contextmanager
    def unreplicated(self, primary: Member) -> Iterator[None]:
        """Let no write of a primary reach its replicas, so that a failover in the block loses it."""
        primary.control.config_set("min-replicas-to-write", 0)
        primary.control.execute_command("ACL", "SETUSER", "replica", "-psync")
        primary.control.execute_command("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: primary.info("replication")["connected_slaves"] == 0, "its replicas are cut off")
        try:
            yield
        finally:
            if primary.alive:
                primary.control.execute_command("ACL", "SETUSER", "replica", "+psync")


def until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Ask again and again until the answer is true; the answer. No answer from a server is not yet one."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if found := condition():
                return found
        except redis.ConnectionError:
            pass  # it is on its way down or up
        assert time.monotonic() < deadline, f"in {patience:.0f} s this did not come true: {what}"
        time.sleep(0.02)
