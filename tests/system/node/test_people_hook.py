"""Whom clients may watch where the application decides it: the setting `people_hook`."""

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from reactor.errors import SettingError
from reactor.gateway import people_rights
from tests.support import people_hooks
from tests.support.nodes import served
from tests.support.people import statuses, watch
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token

HOOK = "tests.support.people_hooks:friends"
IN_A_THREAD = "tests.support.people_hooks:friends_in_a_thread"


@pytest.fixture(autouse=True)
def calls() -> Iterator[list[tuple[str | None, list[str]]]]:
    people_hooks.CALLS.clear()
    people_hooks.RELEASED.clear()
    yield people_hooks.CALLS
    people_hooks.RELEASED.set()


@asynccontextmanager
async def signed_in(node: Any, user: str, **claims: Any) -> Any:
    async with RawClient.connect(node) as client:
        await client.ask("auth", "auth:ok", token=token(sub=user, **claims))
        yield client


def statuses_of(people: list[dict[str, Any]]) -> dict[str, str]:
    return {person["userId"]: person["status"] for person in people}


@pytest.mark.parametrize("hook", [HOOK, IN_A_THREAD])
async def test_the_hook_decides_for_up_to_a_thousand_users_whom_the_token_does_not_name(
    redis_server: Server, hook: str, calls: list[tuple[str | None, list[str]]]
) -> None:
    async with (
        served(redis_server, auth_secret=SECRET, people_hook=hook) as node,
        served(redis_server, auth_secret=SECRET) as other,
        signed_in(node, "ann", people=["team-*"]) as ann,
        signed_in(other, "friend 1") as friend,
        signed_in(other, "bob") as bob,
        signed_in(other, "team-1") as team,
    ):
        users = ["team-1", "bob", *(f"friend {number}" for number in range(997)), "é*[b]"]
        assert [person["userId"] for person in await watch(ann, *users)] == users
        assert calls == [("ann", users[1:])]
        for client, user in ((bob, "bob"), (friend, "friend 1"), (team, "team-1")):
            await client.join("lobby", user)
        await ann.until(lambda: statuses(ann, "friend 1") == statuses(ann, "team-1") == ["online"])
        seen = statuses_of(await watch(ann, "team-1", "friend 1", "bob"))
        assert seen == {"team-1": "online", "friend 1": "online", "bob": "offline"}
        assert statuses(ann, "bob") == []
        assert len(calls) == 1


async def test_an_answer_holds_for_the_viewer_and_for_a_while(
    bundled_server: Server, calls: list[tuple[str | None, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        served(bundled_server, auth_secret=SECRET, people_hook=IN_A_THREAD) as node,
        signed_in(node, "ann") as ann,
        signed_in(node, "ann") as page,
        signed_in(node, "cy") as cy,
    ):
        await watch(ann, "friend", "bob")
        await watch(page, "bob", "friend", "dan")
        await watch(cy, "bob")
        assert calls == [("ann", ["friend", "bob"]), ("ann", ["dan"]), ("cy", ["bob"])]
        monkeypatch.setattr(people_rights, "CACHE_TIME", -1.0)
        await watch(cy, "eve")
        await watch(cy, "eve")
        assert calls[3:] == [("cy", ["eve"])] * 2


async def test_without_tokens_the_hook_is_called_without_a_viewer(
    bundled_server: Server, calls: list[tuple[str | None, list[str]]]
) -> None:
    async with (
        served(bundled_server, people_hook=IN_A_THREAD) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as friend,
    ):
        await watch(watcher, "bob", "friend")
        assert calls == [(None, ["bob", "friend"])]
        await bob.join("lobby", "bob")
        await friend.join("lobby", "friend")
        await watcher.until(lambda: statuses(watcher, "friend") == ["online"])
        seen = statuses_of(await watch(watcher, "friend", "bob"))
        assert seen == {"bob": "offline", "friend": "online"}


async def test_while_the_hook_fails_or_hangs_watching_is_refused_and_nothing_else(
    bundled_server: Server, calls: list[tuple[str | None, list[str]]]
) -> None:
    with capture_logs() as logs:
        async with (
            served(bundled_server, auth_secret=SECRET, people_hook=HOOK, auth_timeout=0.5) as node,
            signed_in(node, "broken", people=["team"]) as broken,
            signed_in(node, "slow") as slow,
            signed_in(node, "ann") as ann,
        ):
            answer = await broken.answer("people:watch", userIds=["friend", "team"])
            assert (answer["type"], answer["code"]) == ("error", "unavailable")
            assert "whom this client may watch" in answer["message"]
            assert statuses_of(await watch(broken, "team")) == {"team": "offline"}  # needs no hook
            waiting = asyncio.create_task(slow.answer("people:watch", userIds=["friend"]))
            assert statuses_of(await watch(ann, "friend")) == {"friend": "offline"}
            await broken.join("lobby", "broken")
            await slow.join("lobby", "slow")
            answer = await waiting
            assert (answer["type"], answer["code"]) == ("error", "unavailable")
            assert len(node.handler.people) == 2  # team and friend
    events = [line["event"] for line in logs]
    assert "people_hook_failed" in events
    assert "people_hook_timeout" in events


async def test_a_hook_that_hangs_in_threads_keeps_out_no_other_address(bundled_server: Server) -> None:
    settings = {
        "auth_secret": SECRET, "people_hook": IN_A_THREAD, "auth_timeout": 0.3, "trusted_proxies": "127.0.0.1"
    }  # fmt: skip
    async with (
        served(bundled_server, **settings) as node,
        RawClient.connect(node, additional_headers={"X-Forwarded-For": "10.0.0.1"}) as slow,
        RawClient.connect(node, additional_headers={"X-Forwarded-For": "10.0.0.2"}) as ann,
    ):
        await slow.ask("auth", "auth:ok", token=token(sub="slow"))
        await ann.ask("auth", "auth:ok", token=token(sub="ann"))
        answers = [asyncio.create_task(slow.answer("people:watch", userIds=[f"u{n}"])) for n in range(20)]
        assert {answer["code"] for answer in await asyncio.gather(*answers)} == {"unavailable"}
        assert statuses_of(await watch(ann, "friend")) == {"friend": "offline"}


@pytest.mark.parametrize("wrong", people_hooks.WRONG)
async def test_what_is_no_set_of_user_ids_allows_no_one(bundled_server: Server, wrong: str) -> None:
    """A mapping of flags names users who may not be watched, too; a text is a set of its characters."""
    with capture_logs() as logs:
        async with (
            served(bundled_server, auth_secret=SECRET, people_hook=HOOK) as node,
            signed_in(node, wrong) as viewer,
        ):
            for users in (["bob"], ["b", "7"]):
                answer = await viewer.answer("people:watch", userIds=users)
                assert (answer["type"], answer["code"]) == ("error", "unavailable")
            assert len(node.handler.people) == 0
    assert "people_hook_failed" in [line["event"] for line in logs]


@pytest.mark.parametrize(
    "name", ["tests.support.people_hooks:WRONG", "tests.support.people_hooks:none", "no"]
)
async def test_a_hook_that_cannot_be_called_is_refused_at_the_start(
    bundled_server: Server, name: str
) -> None:
    with pytest.raises(SettingError, match="people_hook"):
        async with served(bundled_server, people_hook=name):
            raise AssertionError("it started")


async def test_who_may_not_be_watched_is_answered_as_one_who_is_unknown(redis_server: Server) -> None:
    """By the same fields and the same commands to Redis, so that the time of the answer says nothing."""
    async with (
        served(redis_server, auth_secret=SECRET) as node,
        signed_in(node, "cy") as cy,
        signed_in(node, "ann", people=["friend*"], where=True) as ann,
    ):
        await cy.join("lobby", "cy")
        for user in ("friend", "cy"):
            redis_server.control.config_resetstat()
            (person,) = await watch(ann, user)
            assert person == {"userId": user, "status": "offline", "rooms": []}
            stats: Any = redis_server.control.info("commandstats")
            assert stats["cmdstat_subscribe"]["calls"] == 1
            assert stats["cmdstat_hgetall"]["calls"] >= 1  # of the record
        await cy.join("hall", "cy")
        await cy.ask("leave_room", "room:left", roomId="lobby")
        await ann.barrier()
        assert statuses(ann, "cy") == []
        await ann.ask("auth", "auth:ok", token=token(sub="ann", people=[], where=True))
        await watch(ann, "cy")
        assert statuses(ann, "cy") == statuses(ann, "friend")
