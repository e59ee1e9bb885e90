"""Runs a server for the process that started it, and ends it when that process is gone, however it went.

Run as a program of its own, by path, so that it imports nothing of the package:
`python -I -S owner_watch.py FOLDER BINARY ARGUMENT...`. Its standard input is a pipe whose other end only the
owner holds. The pipe closes when the owner stops the server and when the owner dies, by SIGKILL too, on every
system, and FOLDER is removed then. The server's pid is in FOLDER/pid, its output in FOLDER/server.log.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_SECONDS_TO_STOP = 3.0


def main(folder: Path, command: list[str]) -> int:
    """Run `command` until it ends or the owner is gone; give its exit code, or 127 if it could not start."""
    with (folder / "server.log").open("ab") as log:
        try:
            server = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                # Linux alone has it: should this process be killed too, the server still ends.
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        except OSError as error:
            log.write(f"{command[0]}: {error.strerror}\n".encode())
            return 127
    # By rename, so that whoever sees the file sees all of it; the server may answer before it is there.
    (folder / "pid.new").write_text(str(server.pid))
    (folder / "pid.new").replace(folder / "pid")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owner_is_gone = threading.Event()
    threading.Thread(target=_stop_when_owner_is_gone, args=(server, owner_is_gone), daemon=True).start()
    code = server.wait()
    # An owner that is still there wants to read why its server ended.
    if owner_is_gone.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_when_owner_is_gone(server: subprocess.Popen[bytes], owner_is_gone: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    owner_is_gone.set()
    server.terminate()
    try:
        server.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
