"""A program that runs an embedded server, and stops it when the process that owns it has ended.

embedded.py starts it by path, so that it imports nothing of the package:
`python -I -S owner_watch.py FOLDER BINARY ARGUMENT...`. Its standard input is a pipe that only the owner has
open. The pipe closes when the owner stops the server, and also when the owner ends in any way, SIGKILL
included, on every operating system; the server is stopped and FOLDER removed then. The server's process id is
in FOLDER/pid, its output in FOLDER/server.log.
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
_STOP_TIMEOUT = 3.0


def main(folder: Path, command: list[str]) -> int:
    """Run `command` until it ends or the owner has ended; its exit code, or 127 if it could not start."""
    with (folder / "server.log").open("ab") as log:
        try:
            server = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                # The server ends even if this process is killed; only Linux can do that.
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        except OSError as error:
            log.write(f"{command[0]}: {error.strerror}\n".encode())
            return 127
    # By rename, so that a reader never sees half of the file.
    (folder / "pid.new").write_text(str(server.pid))
    (folder / "pid.new").replace(folder / "pid")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owner_ended = threading.Event()
    threading.Thread(target=_stop_when_owner_ended, args=(server, owner_ended), daemon=True).start()
    code = server.wait()
    # An owner that is still running reads from the log why its server ended.
    if owner_ended.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_when_owner_ended(server: subprocess.Popen[bytes], owner_ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    owner_ended.set()
    server.terminate()
    try:
        server.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
