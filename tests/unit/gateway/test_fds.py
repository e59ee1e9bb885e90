"""The limit of open files, and the descriptors reserved for other things than clients."""

import resource
import subprocess
import sys

import pytest

from reactor.gateway import fds

RAISE = """
import resource
from reactor.gateway.fds import raise_fd_limit, max_sockets
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 900))
print(max_sockets())
raise_fd_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE), max_sockets())
"""


@pytest.mark.parametrize(
    ("soft", "expected"),
    [(64, 16), (256, 128), (1024, 896), (20_000, 19_600), (1_048_576, 1_027_605), (-1, 1_000_000)],
)
def test_some_descriptors_are_reserved(monkeypatch, soft, expected):
    monkeypatch.setattr(resource, "getrlimit", lambda _resource: (soft, soft))
    assert fds.max_sockets() == expected


def test_the_soft_limit_is_raised_to_the_hard_limit():
    done = subprocess.run([sys.executable, "-c", RAISE], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["172", "(900, 900) 772"]
