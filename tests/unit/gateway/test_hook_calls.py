"""Calls of the hook: a thread's place is returned when it ends, and each address has its share."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from reactor.gateway import hook_calls
from reactor.gateway.addresses import counted_address
from reactor.gateway.hook_calls import HookCalls, HookStuck
from tests.support.waiting import PATIENCE, until


class Hook:
    """A function that hangs for some tokens until it is released."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.released = threading.Event()

    def __call__(self, token: str) -> str:
        self.called.append(token)
        if token.startswith("slow"):
            self.released.wait(PATIENCE)
        return token


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.released.set()


@pytest.fixture(autouse=True)
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_calls, "HOOK_THREADS", 4)
    monkeypatch.setattr(hook_calls, "HOOK_CALLS_PER_ADDRESS", 2)
    monkeypatch.setattr(hook_calls, "HOOK_CALLS_PER_USER", 1)


def hook_threads() -> int:
    return sum(thread.name == "auth hook" for thread in threading.enumerate())


async def outcome(calls: HookCalls, address: str, token: str) -> str:
    try:
        return str(await calls.call(counted_address(address), token))
    except (TimeoutError, HookStuck) as error:
        return type(error).__name__


async def test_a_thread_keeps_its_place_until_it_ends(hook: Hook) -> None:
    calls, before = HookCalls(hook, 0.2), hook_threads()
    slow = [outcome(calls, f"10.0.0.{number % 4}", f"slow {number}") for number in range(40)]
    assert set(await asyncio.gather(*slow)) == {"TimeoutError"}
    assert hook_threads() - before == len(hook.called) == 4
    assert await outcome(calls, "10.0.0.9", "good") == "HookStuck"  # at once
    hook.released.set()
    await until(lambda: hook_threads() == before)
    assert await outcome(calls, "10.0.0.9", "good") == "good"
    assert calls.idle


async def test_clients_of_one_address_keep_out_no_others(hook: Hook) -> None:
    calls = HookCalls(hook, PATIENCE)
    slow = [asyncio.create_task(calls.call("10.0.0.1", f"slow {number}")) for number in range(10)]
    await until(lambda: len(hook.called) == 2)
    assert await asyncio.gather(*(calls.call("10.0.0.2", f"good {n}") for n in range(20)))
    assert len(hook.called) == 22
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    assert await outcome(calls, "10.0.0.1", "good") == "HookStuck"
    assert await outcome(calls, "10.0.0.2", "good") == "good"


async def test_a_waiting_call_gets_the_place_of_one_that_ended(hook: Hook) -> None:
    calls = HookCalls(hook, PATIENCE)
    slow = [asyncio.create_task(calls.call("10.0.0.1", f"slow {number}")) for number in range(2)]
    good = [asyncio.create_task(calls.call("10.0.0.1", f"good {number}")) for number in range(20)]
    await until(lambda: len(hook.called) == 2)
    good[3].cancel()  # its connection has closed
    hook.released.set()
    assert await asyncio.gather(*slow) == ["slow 0", "slow 1"]
    assert await asyncio.gather(*good[:3], *good[4:])
    assert "good 3" not in hook.called
    assert calls.idle


async def test_the_network_of_an_ipv6_client_has_one_share(hook: Hook) -> None:
    calls = HookCalls(hook, PATIENCE)
    slow = [
        asyncio.create_task(calls.call(counted_address(f"2001:db8::{number}"), f"slow {number}"))
        for number in range(4)
    ]
    await until(lambda: len(hook.called) == 2)
    assert await outcome(calls, "2001:db8:0:1::1", "good") == "good"
    hook.released.set()
    await asyncio.gather(*slow)


async def test_a_coroutine_function_is_cancelled_with_its_caller_and_shares_are_the_same() -> None:
    called: list[str] = []
    ended: list[str] = []

    async def hook(token: str) -> str:
        called.append(token)
        try:
            if token.startswith("slow"):
                await asyncio.sleep(PATIENCE)
        finally:
            ended.append(token)
        return token

    calls = HookCalls(hook, 1.0)
    slow = [outcome(calls, "10.0.0.1", f"slow {number}") for number in range(5)]
    assert await asyncio.gather(*slow, outcome(calls, "10.0.0.2", "good")) == ["TimeoutError"] * 5 + ["good"]
    # A slow call may receive the place of one that timed out just before it does so itself.
    assert called[:3] == ["slow 0", "slow 1", "good"]
    assert sorted(ended) == sorted(called)
    assert calls.idle


async def test_what_a_hook_raises_is_raised_and_its_place_returned() -> None:
    def hook(token: str) -> str:
        raise ValueError(token)

    calls = HookCalls(hook, PATIENCE)
    for _ in range(10):
        with pytest.raises(ValueError, match="bad"):
            await calls.call("10.0.0.1", "bad")
    assert calls.idle


async def test_a_user_for_whom_the_hook_hangs_keeps_out_no_others_of_the_same_address(hook: Hook) -> None:
    calls = HookCalls(hook, PATIENCE)
    slow = [asyncio.create_task(calls.call("10.0.0.1", f"slow {n}", user_id="mallory")) for n in range(10)]
    await until(lambda: len(hook.called) == 1)
    assert await asyncio.gather(*(calls.call("10.0.0.1", f"good {n}", user_id="ann") for n in range(20)))
    assert await calls.call("10.0.0.1", "good")
    assert len(hook.called) == 22
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    with pytest.raises(HookStuck):
        await calls.call("10.0.0.1", "good", user_id="mallory")
    assert await calls.call("10.0.0.1", "good", user_id="ann")
    hook.released.set()
    await until(lambda: calls.idle)
