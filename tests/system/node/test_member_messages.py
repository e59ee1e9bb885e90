"""Messages of members to each other, and changes of single fields of a member's data."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from reactor.gateway.fanout import MAX_WINDOW_MESSAGES
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.signing import SECRET, token
from tests.support.waiting import until


def heard(client: RawClient) -> list[Any]:
    return [message["data"] for message in client.of("room:message")]


async def test_a_message_reaches_all_others_on_every_node_and_no_connection_of_the_sender(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as ann_too,
        RawClient.connect(one) as bob,
        RawClient.connect(two) as cy,
        RawClient.connect(two) as elsewhere,
    ):
        joined = await ann.join("lobby", "ann")
        await ann_too.join("lobby", "ann")
        await bob.join("lobby", "bob", view="none")
        await cy.join("lobby", "cy", view="count")
        await elsewhere.join("attic", "dee")
        data = {"typing": True, "at": [1, 2.5, None]}
        sent = await ann.answer("room:send", roomId="lobby", data=data)
        assert {name: sent[name] for name in sent if name != "id"} == {"type": "room:sent", "roomId": "lobby"}
        for client in (bob, cy):
            message = await client.receive("room:message")
            assert message.pop("timestamp") >= joined["joinedAt"]
            assert message == {
                "type": "room:message", "roomId": "lobby", "data": data, "userId": "ann",
                "socketId": joined["socketId"],
            }  # fmt: skip
        await bob.answer("room:send", roomId="lobby", data=None)
        for client in (ann, ann_too, cy):
            assert (await client.receive("room:message", userId="bob"))["data"] is None
        assert heard(ann) == heard(ann_too) == [None]
        assert not elsewhere.of("room:message")
        assert one.feed.resyncs.total() == two.feed.resyncs.total() == 0


async def test_a_message_to_some_users_reaches_them_alone(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as ann_too,
        RawClient.connect(two) as bob,
        RawClient.connect(one) as cy,
    ):
        for client, name in ((ann, "ann"), (ann_too, "ann"), (bob, 7), (cy, "cy")):
            await client.join("lobby", name)
        await ann.answer("room:send", roomId="lobby", data="to bob", to=[7, "7", "nobody"])
        await ann.answer("room:send", roomId="lobby", data="to me", to=["ann"])
        await ann.answer("room:send", roomId="lobby", data="to none", to=[])
        await ann.answer("room:send", roomId="lobby", data="to all")
        for client in (bob, cy):
            await client.receive("room:message", data="to all")
        await ann_too.receive("room:message", data="to me")
        assert heard(bob) == ["to bob", "to all"]
        assert heard(cy) == ["to all"]
        assert (heard(ann), heard(ann_too)) == ([], ["to me"])


async def test_messages_of_one_connection_keep_their_order_and_come_behind_the_join(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, diff_window=0.3) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann")
        for number in range(20):
            await ann.send("room:send", roomId="lobby", data=number)
        await watcher.receive("room:message", data=19)
        assert heard(watcher) == list(range(20))
        kinds = [one["type"] for one in watcher.of("room:diff", "room:message")]
        assert kinds == ["room:diff", *["room:message"] * 20]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "bad_message"),
        ({"data": 1, "to": "bob"}, "bad_message"),
        ({"data": 1, "to": [""]}, "bad_id"),
        ({"data": 1, "to": [None]}, "bad_message"),
        ({"data": 1, "to": [str(number) for number in range(101)]}, "bad_message"),
        ({"data": "x" * 5000}, "data_too_big"),
        ({"data": 1, "roomId": "attic"}, "not_joined"),
    ],
    ids=str,
)
async def test_a_message_that_is_not_valid_is_refused(
    bundled_server: Server, fields: dict[str, Any], code: str
) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        assert (await ann.answer("room:send", **{"roomId": "lobby", **fields}))["code"] == code


async def test_messages_are_off_where_the_setting_or_the_token_says_so(bundled_server: Server) -> None:
    async with (
        served(bundled_server, member_messages="off") as off,
        served(bundled_server, auth_secret=SECRET.encode()) as on,
        RawClient.connect(off) as ann,
    ):
        await ann.join("lobby", "ann")
        error = await ann.answer("room:send", roomId="lobby", data=1)
        assert (error["code"], error["roomId"]) == ("forbidden", "lobby")
        assert "member_messages" in error["message"]
        for send, kind in ((None, "room:sent"), (True, "room:sent"), (False, "error")):
            headers = {"Authorization": f"Bearer {token(sub='bob', rooms=['*'], send=send)}"}
            async with RawClient.connect(on, additional_headers=headers) as bob:
                await bob.join("lobby", "bob")
                answer = await bob.answer("room:send", roomId="lobby", data=1)
                assert (answer["type"], answer.get("code")) == (
                    kind,
                    "forbidden" if kind == "error" else None,
                )


async def test_a_member_that_redis_lost_sends_nothing(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        redis_server.control.delete("{reactor:7kf}:room:lobby:user:ann")
        assert (await ann.answer("room:send", roomId="lobby", data=1))["code"] == "not_joined"
        await bob.barrier()
        assert not bob.of("room:message")


async def test_a_message_is_charged_by_how_many_receive_it(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=40) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        for client, name, to in ((ann, "ann", ["bob"]), (bob, "bob", [f"u{n}" for n in range(100)])):
            await client.join("lobby", name)
            answers = [await client.answer("room:send", roomId="lobby", data=n, to=to) for n in range(15)]
            refused = [answer for answer in answers if answer["type"] == "error"]
            # A unit each, and two more for a hundred receivers.
            assert bool(refused) is (name == "bob")
            assert {answer["code"] for answer in refused} <= {"too_many_requests"}


async def test_more_messages_than_a_window_takes_are_lost_and_counted(bundled_server: Server) -> None:
    async with (
        served(bundled_server, diff_window=6) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        with capture_logs() as logs:
            answers = await asyncio.gather(
                *(ann.answer("room:send", roomId="lobby", data=n) for n in range(MAX_WINDOW_MESSAGES + 10))
            )
            assert {answer["type"] for answer in answers} == {"room:sent"}
            await until(lambda: node.fanout.messages_lost > 0)
        assert [line["event"] for line in logs].count("room_messages_lost") == 1
        await bob.receive("room:message", data=MAX_WINDOW_MESSAGES - 5)


async def test_a_patch_changes_what_it_names(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as ann_too,
        RawClient.connect(node) as bob,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann", data={"list": [], "mood": "blue", "n": 2**60})
        await ann_too.join("lobby", "ann")
        await asyncio.gather(
            ann.answer("room:update", roomId="lobby", patch={"typing": True, "mood": None}),
            ann_too.answer("room:update", roomId="lobby", username="Ann", patch={"at": {"x": 1}}),
        )
        members = (await bob.answer("room:members", roomId="lobby"))["members"]
        (member,) = [one for one in members if one["userId"] == "ann"]
        assert member["data"] == {"list": [], "n": 2**60, "typing": True, "at": {"x": 1}}
        assert member["username"] == "Ann"


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"data": 1, "patch": {}}, "bad_message", "data or patch"),
        ({"patch": [1]}, "bad_message", "must be an object"),
        ({"patch": None}, "bad_message", "must be an object"),
        ({"patch": {"a": "x" * 5000}}, "data_too_big", "data takes"),
        (
            {"patch": {"b": "x" * 3000}},
            "data_too_big",
            "data would take 6015 bytes as JSON, the limit is 4096",
        ),
    ],
    ids=str,
)
async def test_a_patch_that_is_not_valid_changes_nothing(
    bundled_server: Server, fields: dict[str, Any], code: str, words: str
) -> None:
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        before = await ann.join("lobby", "ann", data={"a": "x" * 3000})
        error = await ann.answer("room:update", roomId="lobby", username="Eve", **fields)
        assert (error["code"], error["roomId"]) == (code, "lobby")
        assert words in error["message"]
        after = await ann.answer("room:members", roomId="lobby")
        assert (after["version"], after["members"]) == (before["version"], before["members"])


async def test_a_token_that_fixes_the_data_allows_no_patch(bundled_server: Server) -> None:
    async with served(bundled_server, auth_secret=SECRET.encode()) as node:
        headers = {"Authorization": f"Bearer {token(sub='ann', rooms=['*'], data={'a': 1})}"}
        async with RawClient.connect(node, additional_headers=headers) as ann:
            await ann.join("lobby", "ann")
            error = await ann.answer("room:update", roomId="lobby", patch={"b": 1})
            assert error["code"] == "forbidden"
