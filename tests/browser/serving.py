"""The example app as Vite builds it, on a server for files."""

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.js.tools import HERE, installed, run_node

APP = HERE / "app"


async def build(into: Path, root: Path = APP, mode: str = "development") -> Path:
    """Build an app; in development React mounts everything twice, and complains of what it finds."""
    vite = installed() / "vite" / "bin" / "vite.js"
    options = ("--config", APP / "vite.config.js", "--mode", mode, "--outDir", into)
    await run_node(vite, "build", root, *options, NODE_ENV=mode)
    return into


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def files_of(folder: Path) -> Iterator[str]:
    """Serve a folder; gives the address."""
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=os.fspath(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
