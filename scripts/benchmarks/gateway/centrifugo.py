"""Runs Centrifugo 6 as a peer of the gateway benchmark: channels with presence, joins and leaves, in Redis.

usage: python -m scripts.benchmarks.gateway.centrifugo REDIS_URL

Prints {"port": ...} once it listens, and ends it with the standard input. The program `centrifugo` is the one
on PATH; `go install github.com/centrifugal/centrifugo/v6@latest` makes it.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

START_WITHIN = 20.0


def configuration(port: int, redis_url: str) -> dict[str, Any]:
    """Return its configuration: what room presence needs, without tokens, and its other defaults.

    The intervals are 25 s by default, as the reactor's: of pings, and of the renewal of presence.
    """
    return {
        "http_server": {"address": "127.0.0.1", "port": str(port)},
        "client": {"insecure": True, "allowed_origins": ["*"]},
        "channel": {
            "without_namespace": {"presence": True, "join_leave": True, "force_push_join_leave": True}
        },
        "engine": {"type": "redis", "redis": {"address": redis_url}},
        "log": {"level": "error"},
    }


def main(redis_url: str) -> int:
    """Run it until the standard input ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(configuration(port, redis_url)))
        with subprocess.Popen(["centrifugo", "--config", str(path)], stdout=subprocess.DEVNULL) as server:
            try:
                if not _listens(server, port):
                    return 1
                print(json.dumps({"port": port}), flush=True)
                sys.stdin.read()
            finally:
                server.terminate()
    return 0


def _listens(server: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until the server accepts connections; False where it has ended, or takes too long."""
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
