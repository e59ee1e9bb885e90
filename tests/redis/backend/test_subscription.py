"""The connection that listens: whatever happens to its link, every new subscription is reported as a gap."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

import anyio
import anyio.lowlevel
import pytest
import structlog

from reactor.backend import subscription
from reactor.backend.interface import Channels
from tests.support.connected import Connected, connected, until
from tests.support.servers import Server


class Ear:
    """What one subscription said, in its order: messages as text, gaps as `first` or `gap`, and `lost`."""

    def __init__(self, redis: Connected) -> None:
        self.heard: list[str] = []
        self.channels: Channels = redis.backend.channels(self._on_message, self._on_gap, self._on_lost)

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        self.heard.append(f"{channel.decode()}={payload.decode()}")

    def _on_gap(self, first: bool) -> None:
        self.heard.append("first" if first else "gap")

    def _on_lost(self, reason: str) -> None:
        assert reason
        self.heard.append("lost")

    async def hears(self, *expected: str, within: float = 15.0) -> None:
        """These, and nothing else, since the last time."""
        await until(lambda: len(self.heard) >= len(expected), within=within)
        assert self.heard == list(expected)
        self.heard.clear()


@asynccontextmanager
async def listening(server: Server, *channels: str) -> AsyncIterator[tuple[Ear, Connected]]:
    async with connected(server) as redis:
        ear = Ear(redis)
        redis.tasks.start_soon(ear.channels.serve, channels)
        await ear.channels.subscribed()
        await ear.hears("first")
        yield ear, redis


async def test_messages_of_its_channels_come_in_order_and_no_others(redis_server: Server) -> None:
    async with listening(redis_server, "a", "b") as (ear, _):
        assert ear.channels.listening
        for number in range(100):
            redis_server.control.publish("ab"[number % 2], str(number))
            redis_server.control.publish("c", "not asked for")
        await ear.hears(*(f"{'ab'[number % 2]}={number}" for number in range(100)))


async def test_a_channel_asked_for_later_is_heard_once_it_is_confirmed(redis_server: Server) -> None:
    async with listening(redis_server) as (ear, _):
        await ear.channels.subscribe("a")
        redis_server.control.publish("a", "1")
        await ear.hears("a=1")
        await ear.channels.subscribe("a")  # twice is no harm
        redis_server.control.publish("a", "2")
        await ear.hears("a=2")


async def test_a_channel_that_is_let_go_is_silent(redis_server: Server) -> None:
    async with listening(redis_server, "a", "b") as (ear, _):
        ear.channels.unsubscribe("a")
        ear.channels.unsubscribe("never asked for")
        await until(lambda: redis_server.control.pubsub_numsub("a") == [("a", 0)])
        redis_server.control.publish("a", "1")
        redis_server.control.publish("b", "2")
        await ear.hears("b=2")
        await ear.channels.subscribe("a")
        redis_server.control.publish("a", "3")
        await ear.hears("a=3")


async def test_asked_for_let_go_and_asked_for_again_in_one_breath(redis_server: Server) -> None:
    async with listening(redis_server) as (ear, _):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ear.channels.subscribe, "a")
                await anyio.lowlevel.checkpoint()
                ear.channels.unsubscribe("a")
            await ear.channels.subscribe("a")
            tasks.cancel_scope.cancel()
        await until(lambda: redis_server.control.pubsub_numsub("a") == [("a", 1)])
        redis_server.control.publish("a", "1")
        await ear.hears("a=1")


async def test_a_killed_link_is_made_anew_and_reported_as_a_gap(redis_server: Server) -> None:
    async with listening(redis_server, "a", "b") as (ear, _):
        for _ in range(3):
            redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await ear.hears("lost", "gap", within=3)
            redis_server.control.publish("b", "1")
            await ear.hears("b=1")


async def test_who_waits_to_be_subscribed_waits_for_the_new_link(redis_server: Server) -> None:
    async with listening(redis_server, "a") as (ear, _):
        redis_server.kill()
        await ear.hears("lost")
        with pytest.raises(TimeoutError), anyio.fail_after(0.3):
            await ear.channels.subscribed()
        redis_server.start()
        await ear.channels.subscribed()
        assert ear.channels.listening
        await ear.hears("gap")


async def test_a_channel_asked_for_while_the_server_is_down_comes_when_it_is_back(
    redis_server: Server,
) -> None:
    async with listening(redis_server, "a") as (ear, redis):
        redis_server.kill()
        await ear.hears("lost")
        confirmed: list[str] = []

        async def subscribe(channel: str) -> None:
            await ear.channels.subscribe(channel)
            confirmed.append(channel)

        ear.channels.unsubscribe("a")
        for channel in ("b", "c"):
            redis.tasks.start_soon(subscribe, channel)
        await anyio.sleep(0.2)  # some attempts fail
        assert confirmed == []
        redis_server.start()
        await until(lambda: len(confirmed) == 2)
        for channel in "abc":
            redis_server.control.publish(channel, "1")
        await ear.hears("gap", "b=1", "c=1")


async def test_a_frozen_link_is_noticed_and_comes_back_with_the_server(redis_server: Server) -> None:
    async with listening(redis_server, "a") as (ear, _):
        redis_server.pause()
        frozen = monotonic()
        try:
            await ear.hears("lost", within=8)
            noticed = monotonic() - frozen
            assert 2 < noticed < 5.5
            assert not ear.channels.listening
        finally:
            redis_server.resume()
        await ear.hears("gap")
        redis_server.control.publish("a", "1")
        await ear.hears("a=1")


async def test_a_quiet_link_is_not_taken_for_frozen(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "PING_EVERY", 0.1)
    monkeypatch.setattr(subscription, "SILENCE_ALLOWED", 0.5)
    async with listening(bundled_server, "a") as (ear, _):
        await anyio.sleep(1.2)  # longer than the silence that is allowed
        assert ear.heard == []


async def test_many_channels_are_one_gap(redis_server: Server) -> None:
    channels = [f"channel{number}" for number in range(5000)]
    async with listening(redis_server, *channels) as (ear, _):
        redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await ear.hears("lost", "gap")
        redis_server.control.publish(channels[-1], "1")
        await ear.hears(f"{channels[-1]}=1")


async def test_a_channel_asked_for_while_a_link_is_being_made_is_not_forgotten(redis_server: Server) -> None:
    """With so many channels the subscribing takes several turns of the loop."""
    channels = [f"{number}{'x' * 900}" for number in range(3000)]
    async with listening(redis_server, *channels) as (ear, _):
        redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        asked = 0
        async with anyio.create_task_group() as tasks:
            while "gap" not in ear.heard:
                tasks.start_soon(ear.channels.subscribe, f"late{asked}")
                ear.channels.unsubscribe(channels[asked])
                asked += 1
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(3):
                for number in range(asked):
                    await ear.channels.subscribe(f"late{number}")
        ear.heard.clear()
        assert [n for _, n in redis_server.control.pubsub_numsub(*channels[:asked])] == [0] * asked
        for number in range(asked):
            redis_server.control.publish(f"late{number}", "1")
        await ear.hears(*(f"late{number}=1" for number in range(asked)))


async def test_a_server_that_refuses_to_subscribe_is_asked_with_a_pause(
    bundled_server: Server,
) -> None:
    async with listening(bundled_server, "a") as (ear, _):
        with structlog.testing.capture_logs():
            bundled_server.control.execute_command("ACL", "SETUSER", "default", "resetchannels")
            bundled_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await anyio.sleep(1.5)  # no more attempts than that are made
            assert 1 < ear.heard.count("lost") < 8
            bundled_server.control.execute_command("ACL", "SETUSER", "default", "allchannels")
            await until(lambda: ear.heard[-1] == "gap")
