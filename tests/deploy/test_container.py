"""Join, heartbeat and expiry on a Redis in a container, if a container engine is running.

The image is `redis:7`, or what REDIS_TEST_IMAGE names.
"""

import gc
import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from reactor.presence.api import Presence
from reactor.server.process import serve_node
from reactor.settings import Settings
from tests.support.raw_client import RawClient
from tests.support.waiting import until_blocking

IMAGE = os.environ.get("REDIS_TEST_IMAGE", "redis:7")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def _no_engine(docker: Any) -> str | None:
    """Why no container engine can be used; None if one can."""
    with warnings.catch_warnings():
        # A client whose constructor fails leaves its socket to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            client = docker.from_env()
            client.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, no engine can be used
            return type(error).__name__
        finally:
            gc.collect()
    return None


@pytest.fixture(scope="module")
def container_url() -> Iterator[str]:
    docker = pytest.importorskip("docker")
    container_module = pytest.importorskip("testcontainers.core.container")
    if (reason := _no_engine(docker)) is not None:
        pytest.skip(f"no container engine is running: {reason}")
    try:
        container = container_module.DockerContainer(IMAGE).with_exposed_ports(6379)
        container.start()
    except docker.errors.DockerException as error:
        pytest.skip(f"the image {IMAGE} is not available: {type(error).__name__}")
    try:
        url = f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
        with redis.Redis.from_url(url) as client:
            until_blocking(client.ping, what="the engine's port is open before Redis answers behind it")
        yield url
    finally:
        container.stop()


async def test_join_heartbeat_expiry_and_force_leave(container_url: str) -> None:
    async with (
        serve_node(Settings(redis_url=container_url, port=0, ttl=1.5, drain_seconds=0)) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        assert node.events.ok  # off in the image: the node switched them on
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        ann.start_heartbeats()
        assert (await bob.receive("room:force-leave"))["reason"] == "inactivity_timeout"
        assert await bob.closed() == 4003
        assert await ann.receive_departure_of("bob") == "inactivity_timeout"
        async with Presence.open(container_url) as presence:
            assert [member.user_id for member in await presence.members("lobby")] == ["ann"]
