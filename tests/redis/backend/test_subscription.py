"""One Pub/Sub connection: whatever happens to it, every resubscription is reported as a gap."""

import gc
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import redis
import structlog
from redis.exceptions import ResponseError

from reactor.backend import subscription
from reactor.backend.interface import ChannelCallbacks, Channels
from tests.support.servers import Server
from tests.support.stores import Connected, connected
from tests.support.waiting import PATIENCE, until


class Recorder:
    """The calls of one subscription in order: `channel=payload`, `first` or `gap`, and `disconnect`."""

    def __init__(self, redis: Connected) -> None:
        self.calls: list[str] = []
        self.channels: Channels = redis.backend.channels(
            ChannelCallbacks(self._on_message, self._on_gap, self._on_disconnect)
        )

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        self.calls.append(f"{channel.decode()}={payload.decode()}")

    def _on_gap(self, first: bool) -> None:
        self.calls.append("first" if first else "gap")

    def _on_disconnect(self, reason: str) -> None:
        assert reason
        self.calls.append("disconnect")

    async def expect(self, *expected: str, within: float = PATIENCE) -> None:
        """Wait for exactly these calls since the last time."""
        await until(lambda: len(self.calls) >= len(expected), patience=within)
        assert self.calls == list(expected)
        self.calls.clear()


@asynccontextmanager
async def listening(server: Server, *channels: str) -> AsyncIterator[tuple[Recorder, Connected]]:
    async with connected(server) as redis:
        recorder = Recorder(redis)
        redis.tasks.start_soon(recorder.channels.serve, channels)
        await recorder.channels.subscribed()
        await recorder.expect("first")
        yield recorder, redis


async def test_only_messages_of_subscribed_channels_arrive_and_in_order(redis_server: Server) -> None:
    async with listening(redis_server, "a", "b") as (recorder, _):
        assert recorder.channels.listening
        for number in range(100):
            redis_server.control.publish("ab"[number % 2], str(number))
            redis_server.control.publish("c", "not subscribed")
        await recorder.expect(*(f"{'ab'[number % 2]}={number}" for number in range(100)))


async def test_a_channel_added_later_is_received_once_it_is_confirmed(redis_server: Server) -> None:
    async with listening(redis_server) as (recorder, _):
        await recorder.channels.subscribe("a")
        redis_server.control.publish("a", "1")
        await recorder.expect("a=1")
        await recorder.channels.subscribe("a")  # adding it again does nothing
        redis_server.control.publish("a", "2")
        await recorder.expect("a=2")


async def test_a_confirmed_channel_takes_little_memory(redis_server: Server) -> None:
    """A node has one for each room that it follows, and for each user who is watched there."""
    names = [f"channel {number}" for number in range(1000)]
    async with listening(redis_server) as (recorder, _):
        tracemalloc.start()
        try:
            before, _most = tracemalloc.get_traced_memory()
            for name in names:
                await recorder.channels.subscribe(name)
            gc.collect()
            after, _most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (after - before) / len(names) < 400


async def test_an_unsubscribed_channel_delivers_nothing(redis_server: Server) -> None:
    async with listening(redis_server, "a", "b") as (recorder, _):
        recorder.channels.unsubscribe("a")
        recorder.channels.unsubscribe("never subscribed")
        await until(lambda: redis_server.control.pubsub_numsub("a") == [("a", 0)])
        redis_server.control.publish("a", "1")
        redis_server.control.publish("b", "2")
        await recorder.expect("b=2")
        await recorder.channels.subscribe("a")
        redis_server.control.publish("a", "3")
        await recorder.expect("a=3")


async def test_the_last_of_quick_subscribes_and_unsubscribes_counts(
    redis_server: Server,
) -> None:
    async with listening(redis_server) as (recorder, _):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(recorder.channels.subscribe, "a")
                await anyio.lowlevel.checkpoint()
                recorder.channels.unsubscribe("a")
            await recorder.channels.subscribe("a")
            tasks.cancel_scope.cancel()
        await until(lambda: redis_server.control.pubsub_numsub("a") == [("a", 1)])
        redis_server.control.publish("a", "1")
        await recorder.expect("a=1")


async def test_a_killed_connection_is_replaced_and_reported_as_a_gap(redis_server: Server) -> None:
    async with listening(redis_server, "a", "b") as (recorder, _):
        for _ in range(3):
            redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await recorder.expect("disconnect", "gap")
            redis_server.control.publish("b", "1")
            await recorder.expect("b=1")


async def test_subscribed_waits_for_the_new_connection(redis_server: Server) -> None:
    async with listening(redis_server, "a") as (recorder, _):
        redis_server.kill()
        await recorder.expect("disconnect")
        with pytest.raises(TimeoutError), anyio.fail_after(0.3):
            await recorder.channels.subscribed()
        redis_server.start()
        await recorder.channels.subscribed()
        assert recorder.channels.listening
        await recorder.expect("gap")


async def test_a_channel_added_while_the_server_is_down_is_confirmed_when_it_is_back(
    redis_server: Server,
) -> None:
    async with listening(redis_server, "a") as (recorder, redis):
        redis_server.kill()
        await recorder.expect("disconnect")
        confirmed: list[str] = []

        async def subscribe(channel: str) -> None:
            await recorder.channels.subscribe(channel)
            confirmed.append(channel)

        recorder.channels.unsubscribe("a")
        for channel in ("b", "c"):
            redis.tasks.start_soon(subscribe, channel)
        channels: Any = recorder.channels
        await until(lambda: channels._backoff > 4 * subscription.MIN_BACKOFF)  # some attempts have failed
        assert confirmed == []
        redis_server.start()
        await until(lambda: len(confirmed) == 2)
        for channel in "abc":
            redis_server.control.publish(channel, "1")
        await recorder.expect("gap", "b=1", "c=1")


async def test_a_hanging_connection_is_noticed_and_replaced(redis_server: Server) -> None:
    async with listening(redis_server, "a") as (recorder, _):
        redis_server.pause()
        frozen = monotonic()
        try:
            await recorder.expect("disconnect")
            noticed = monotonic() - frozen
            assert 2 < noticed < 15, "nothing else would notice it"
            assert not recorder.channels.listening
        finally:
            redis_server.resume()
        await recorder.expect("gap")
        redis_server.control.publish("a", "1")
        await recorder.expect("a=1")


async def test_an_idle_connection_is_not_taken_for_a_hanging_one(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "PING_INTERVAL", 0.1)
    monkeypatch.setattr(subscription, "PING_TIMEOUT", 2.0)
    async with listening(bundled_server, "a") as (recorder, _):
        await until(lambda: recorder.channels.lags.count >= 30)  # answered pings, in more than PING_TIMEOUT
        assert recorder.calls == []


async def test_a_server_that_refuses_pings_for_a_while_keeps_the_subscription(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so while it loads its data, or runs a long script; a new connection would be refused, too."""
    monkeypatch.setattr(subscription, "PING_INTERVAL", 0.02)
    control = redis_server.control
    async with listening(redis_server, "a") as (recorder, _):
        control.config_set("busy-reply-threshold", "1")
        control.config_resetstat()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_kill_script_after, redis_server, 0.5)
            await anyio.to_thread.run_sync(_run_until_killed, redis_server)
        refused: Any = control.info("errorstats")
        assert refused["errorstat_BUSY"]["count"] > 2
        assert recorder.calls == []
        assert recorder.channels.listening
        control.publish("a", "1")
        await recorder.expect("a=1")


def _run_until_killed(server: Server) -> None:
    with suppress(ResponseError):
        server.control.eval("while true do end", 0)


async def _kill_script_after(server: Server, seconds: float) -> None:
    await anyio.sleep(seconds)
    with redis.Redis(unix_socket_path=str(server.socket), protocol=2) as other:
        await anyio.to_thread.run_sync(lambda: other.execute_command("SCRIPT", "KILL"))


async def test_resubscribing_to_many_channels_is_one_gap(redis_server: Server) -> None:
    channels = [f"channel{number}" for number in range(5000)]
    async with listening(redis_server, *channels) as (recorder, _):
        redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await recorder.expect("disconnect", "gap")
        redis_server.control.publish(channels[-1], "1")
        await recorder.expect(f"{channels[-1]}=1")


async def test_a_channel_added_while_reconnecting_is_subscribed(redis_server: Server) -> None:
    """With so many channels the resubscription takes several steps of the event loop."""
    channels = [f"{number}{'x' * 900}" for number in range(3000)]
    async with listening(redis_server, *channels) as (recorder, _):
        redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        asked = 0
        async with anyio.create_task_group() as tasks:
            while "gap" not in recorder.calls:
                tasks.start_soon(recorder.channels.subscribe, f"late{asked}")
                recorder.channels.unsubscribe(channels[asked])
                asked += 1
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(PATIENCE):
                for number in range(asked):
                    await recorder.channels.subscribe(f"late{number}")
        recorder.calls.clear()
        assert [n for _, n in redis_server.control.pubsub_numsub(*channels[:asked])] == [0] * asked
        for number in range(asked):
            redis_server.control.publish(f"late{number}", "1")
        await recorder.expect(*(f"late{number}=1" for number in range(asked)))


async def test_a_refused_subscription_is_retried_with_a_backoff(
    bundled_server: Server,
) -> None:
    """The refusal is reported once, in Redis's words, and not with each attempt."""
    async with listening(bundled_server, "a") as (recorder, _):
        with structlog.testing.capture_logs():
            bundled_server.control.execute_command("ACL", "LOG", "RESET")
            bundled_server.control.execute_command("ACL", "SETUSER", "default", "resetchannels")
            bundled_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            killed_at = monotonic()
            await until(lambda: _refused_channels(bundled_server) >= 6)
            # Pauses of at least half of 50, 100, 200, 400 and 800 ms lie between them.
            assert monotonic() - killed_at > 0.77
            assert recorder.calls == ["disconnect", "disconnect"], "the broken connection, and the refusal"
            assert "permission" in str(recorder.channels.problem)
            bundled_server.control.execute_command("ACL", "SETUSER", "default", "allchannels")
            await until(lambda: recorder.calls[-1] == "gap")
            assert recorder.channels.problem is None


def _refused_channels(server: Server) -> int:
    entries: Any = server.control.acl_log()
    return sum(entry["count"] for entry in entries if entry["reason"] == "channel")
