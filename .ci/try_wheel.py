"""Sees that a built wheel is the whole product: every file is in it, and the command it installs serves."""

import json
import signal
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

SECONDS = 30


def main(wheel: Path, tracked: Path) -> None:
    """Check `wheel`, which is installed beside this interpreter, against the list of files in `tracked`."""
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    expected = set(tracked.read_text().split("\n")) - {""}
    missing = sorted(expected - packed)
    assert not missing, f"not in the wheel: {missing}"
    strangers = sorted(name for name in packed - expected if ".dist-info/" not in name)
    assert not strangers, f"in the wheel, but not in the project: {strangers}"
    for suffix in (".lua", ".html", ".js", ".css", "py.typed"):
        assert any(name.endswith(suffix) for name in packed), f"no {suffix} in the wheel"

    command = Path(sys.executable).with_name("reactor")
    version = subprocess.run(
        [command, "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert wheel.name.startswith(f"reactor_presence-{version}-"), (wheel.name, version)
    serve(command)
    print(f"{wheel.name}: {len(packed)} files, version {version}, serves")


def serve(command: Path) -> None:
    """Start the server, get its page and health, and end it."""
    arguments = [command, "serve", "--port", "0", "--log-format", "json", "--drain-seconds", "0"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            events = (json.loads(line) for line in process.stderr)
            page = next((event["page"] for event in events if event["event"] == "serving"), None)
            assert page, f"the server ended with {process.wait(SECONDS)} before it served"
            for path, expected in (
                ("", b"<html"),
                ("page.js", b""),
                ("client.js", b"ReactorClient"),
                ("healthz", b"ok"),
                ("readyz", b"ok"),
            ):
                with urllib.request.urlopen(page + path, timeout=SECONDS) as answer:
                    assert answer.status == 200, (path, answer.status)
                    assert expected in answer.read(), path
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
