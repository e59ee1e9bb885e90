"""The rounds in which the logs are trimmed."""

from typing import Any, cast

import anyio
import pytest
import structlog.testing

from reactor.errors import Unavailable
from reactor.expiry.log_trimming import LogTrimmer
from tests.support.keyspace import SHARDS, keyspace
from tests.support.waiting import PATIENCE


async def test_a_shard_that_does_not_answer_keeps_no_other_from_being_trimmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reactor.expiry.log_trimming.TRIM_INTERVAL", 0.0)
    asked: set[int] = set()
    done = anyio.Event()

    class PartlyAway:
        keys = keyspace()

        async def trim_logs(self, shard: int, _max_bytes: int, _max_age: int) -> tuple[int, int]:
            asked.add(shard)
            if len(asked) == SHARDS:
                done.set()
            if shard == 0:
                raise Unavailable("this one is away")
            return 0, 0

    trimmer = LogTrimmer(cast("Any", PartlyAway()), lambda: True, max_bytes=1, max_age=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(trimmer.serve)
        with anyio.fail_after(PATIENCE):
            await done.wait()
        tasks.cancel_scope.cancel()


async def test_a_missing_right_is_logged_once_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.expiry.log_trimming.TRIM_INTERVAL", 0.0)
    rounds = dict.fromkeys(range(SHARDS), 0)
    refused = True
    changed = anyio.Event()

    class Limited:
        keys = keyspace()

        async def trim_logs(self, shard: int, _max_bytes: int, _max_age: int) -> tuple[int, int]:
            rounds[shard] += 1
            if min(rounds.values()) >= 3:
                changed.set()
            return (-1, -1) if refused else (0, 0)

    async def three_rounds() -> None:
        nonlocal changed
        changed = anyio.Event()
        rounds.update(dict.fromkeys(rounds, 0))
        with anyio.fail_after(PATIENCE):
            await changed.wait()

    trimmer = LogTrimmer(cast("Any", Limited()), lambda: True, max_bytes=1, max_age=0)
    with structlog.testing.capture_logs() as logged:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(trimmer.serve)
            await three_rounds()
            assert [line["event"] for line in logged] == ["logs_not_trimmed"]
            assert "+xtrim" in logged[0]["fix"]
            refused = False
            await three_rounds()
            refused = True
            await three_rounds()
            tasks.cancel_scope.cancel()
    assert [line["event"] for line in logged] == ["logs_not_trimmed"] * 2
