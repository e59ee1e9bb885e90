"""An operator's way from a stock Redis to a safe one, as the README has it, and what is printed on it."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.docs.documents import document
from tests.support.command import environment, reactor
from tests.support.nodes import serving
from tests.support.servers import Server, find

DOCUMENT = document("redis-conf/README.md")
STOCK = """
port {port}
unixsocket {folder}/redis.sock
dir {folder}
notify-keyspace-events ""
save 3600 1 300 100 60 10000
"""


@pytest.fixture
def stock() -> Iterator[Server]:
    """Redis with a file like the one that Debian installs."""
    binary, missing = find("redis7")
    if binary is None:
        pytest.skip(missing)
    server = Server("redis7", binary)
    file = server.folder / "redis.conf"
    file.write_text(STOCK.format(port=server.port, folder=server.folder))
    program = server.folder / "run"
    program.write_text(f"#!/bin/sh\nexec {binary} {file}\n")
    program.chmod(0o700)
    server._binary, server._settings = program, {"": ""}
    yield server.start()
    server.stop()


def block(name: str) -> tuple[list[str], str]:
    """The command of a block, and what it says that it prints."""
    pattern = rf"<!-- run: {name} -->\n```\n\$ reactor (.*?)\n(.*?)^```"
    match = re.search(pattern, DOCUMENT, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1].split(), match[2]


def typed(server: Server, arguments: list[str]) -> str:
    """What a person sees who answers yes to everything."""
    ours, theirs = pty.openpty()
    given = [word.replace(":6379", f":{server.port}") for word in arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", "reactor", *given],
        env=environment(TERM="dumb", COLUMNS="80", LINES="25"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    with process, suppress(OSError):
        while chunk := os.read(ours, 65536):
            written += chunk
            if written.endswith(b"[y/N] "):
                os.write(ours, b"y\n")
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def plain(text: str, server: Server) -> str:
    """Without what differs from machine to machine."""
    text = text.replace(f":{server.port}", ":6379").replace(str(server.folder), "/etc/redis")
    text = re.sub(r"answers in \S+ ms", "answers in N ms", text)
    text = re.sub(r"(Redis|Valkey) \d+\.\d[\d.]* *", "Redis 7 ", text)
    text = re.sub(r"(&\{reactor:\* )&.*", r"\1…", text)
    # What was measured on a server of this kind.
    text = re.sub(
        r"asured on\s+(Redis|Valkey)\s+\d.*?pacemaker half\s+within \d+ m?s", "…", text, flags=re.DOTALL
    )
    return re.sub(r" +", " ", "\n".join(line.rstrip() for line in text.strip().splitlines()))


def test_the_way_to_a_safe_redis(stock: Server):
    arguments, shown = block("doctor")
    said = typed(stock, arguments)
    assert plain(said, stock) == plain(shown, stock)

    arguments, shown = block("doctor --fix")
    fixed = typed(stock, arguments)
    assert plain(fixed, stock).startswith(plain(shown, stock))
    file = (stock.folder / "redis.conf").read_text()
    assert re.search(r'^notify-keyspace-events "?(xE|Ex)"?$', file, re.MULTILINE)

    (rule,) = re.findall(r"^\[1\] (ACL SETUSER reactor .*)$", said, re.MULTILINE)
    steps = re.findall(r"^127\.0\.0\.1:6379> (.*)$", DOCUMENT, re.MULTILINE)
    assert len(steps) == 3
    assert rule.startswith(steps[0].removesuffix("…"))
    for step in (rule, *steps[1:]):
        stock.control.execute_command(*step.split())

    url = f"redis://reactor:PASSWORD@127.0.0.1:{stock.port}"
    assert url.replace(str(stock.port), "6379") in DOCUMENT
    answer = reactor("doctor", REACTOR_REDIS_URL=url)
    assert answer.code == 0
    # How late the event comes says how busy this machine is.
    assert {line["check"] for line in answer.lines if line["severity"] != "ok"} <= {"expiry"}
    assert re.search(r"All is well\.|1 note\b", typed(stock, ["doctor", "--redis-url", url]))
    with serving("--redis-url", url):
        pass
    assert reactor("doctor", REACTOR_REDIS_URL=url.replace("reactor:PASSWORD@", "")).code == 2


def test_what_was_set_holds_after_a_restart(stock: Server):
    typed(stock, block("doctor --fix")[0])
    stock.restart()
    assert reactor("doctor", "--redis-url", stock.url).code == 0


def test_the_keys_of_a_finding_are_named(stock: Server):
    keys = list(reactor("doctor", "--redis-url", stock.url).lines[0])
    assert [key for key in keys if f"`{key}`" not in DOCUMENT] == []
