"""The image serves as an unprivileged user and shuts down gracefully; needs a container engine.

The base image is `python:3.13-slim`, or PYTHON_TEST_IMAGE; it has to be present, nothing is pulled.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import free_port

ROOT = Path(__file__).parents[2]
BASE = os.environ.get("PYTHON_TEST_IMAGE", "python:3.13-slim")
TAG = "reactor-test"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def docker(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=check, cwd=ROOT)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if shutil.which("docker") is None or docker("info", check=False).returncode != 0:
        pytest.skip("no container engine is running")
    if docker("image", "inspect", BASE, check=False).returncode != 0:
        pytest.skip(f"the image {BASE} is not present")
    built = docker(
        "build", "--network", "host", "--build-arg", f"PYTHON_IMAGE={BASE}",
        "-f", "scripts/deploy/Dockerfile", "-t", TAG, ".", check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    yield TAG
    docker("image", "rm", "-f", TAG)


@pytest.fixture
def container(image: str) -> Iterator[str]:
    name = f"reactor-test-{free_port()}"
    docker("run", "-d", "--name", name, "--read-only", "--tmpfs", "/tmp:exec", image)
    yield name
    docker("rm", "-f", name)


def state(container: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", container).stdout)[0]["State"]
    return found


def test_the_image_becomes_healthy_unprivileged_and_shuts_down_gracefully(container: str) -> None:
    deadline = time.monotonic() + 60
    while state(container)["Health"]["Status"] != "healthy":
        assert time.monotonic() < deadline, docker("logs", container).stderr
        time.sleep(0.2)
    assert docker("exec", container, "id", "-u").stdout.strip() == "10001"
    assert docker("exec", container, "reactor", "rooms").returncode == 0
    docker("stop", "-t", "30", container)
    assert state(container)["ExitCode"] == 0
