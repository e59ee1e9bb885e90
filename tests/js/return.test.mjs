// What a client keeps over a lost connection: what the server has confirmed, and what it has not.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Socket, begin, diff, enter, error, joined, member, settle } from "./fake.mjs";

const updated = (version) => ({ type: "room:updated", roomId: "lobby", version });
const mine = (data, more = {}) => [member("me", { username: "Me", data, ...more }), member("ann")];
/** A member that came with data 1, on a server that knows when. */
const present = (t, more = {}, options = {}) => enter(t, mine(1), { joinedAt: 1000, ...more }, options);
const types = () => Socket.last.sent.map(({ type }) => type);

async function back(tick, reply, delay) {
  Socket.last.ends(1006);
  await Socket.again(tick, delay);
  if (reply) Socket.last.answers("join_room", joined(reply, { resumed: true, joinedAt: 1000, version: 9 }));
}

test("a return names the former membership, and its name and data are those that the server has confirmed", async (t) => {
  const { tick, room } = await present(t);
  const first = room.update(2);
  Socket.last.answers("room:update", updated(6));
  await first;
  Socket.last.says(diff(5, { version: 7, updated: [member("me", { username: "Phone", data: 3 })] }));
  await back(tick);
  const [join] = Socket.last.sent;
  assert.deepEqual(join.resume, { epoch: "e", version: 7, joinedAt: 1000, members: 2 });
  assert.deepEqual([join.username, join.data, types()], ["Phone", 3, ["join_room"]]);
});

test("where only a count is served, a return names the membership too, and does not repeat what was acknowledged", async (t) => {
  const { tick, room } = await enter(t, [], { members: undefined, view: "count", count: 2, joinedAt: 1000 });
  const update = room.update(2);
  Socket.last.answers("room:update", updated(6));
  await update;
  await back(tick);
  assert.deepEqual([types(), Socket.last.sent[0].data, Socket.last.sent[0].resume.joinedAt], [["join_room"], 2, 1000]);
  assert.equal(Socket.last.sent[0].resume.members, undefined);
});

test("changes that are not acknowledged are sent right behind the join, once", async (t) => {
  const { tick, room } = await present(t);
  const lost = room.update(2);
  const waiting = room.update(3, { username: "New" });
  await back(tick);
  assert.deepEqual(types(), ["join_room", "room:update"]);
  assert.equal(Socket.last.sent[0].data, 1);
  assert.deepEqual([Socket.last.sent[1].data, Socket.last.sent[1].username], [3, "New"]);
  Socket.last.answers("join_room", joined(mine(1), { resumed: true, joinedAt: 1000 }));
  Socket.last.answers("room:update", updated(7));
  await Promise.all([lost, waiting]);
  await back(tick, mine(3), 500);
  assert.deepEqual(types(), ["join_room"]);
});

test("a change is sent behind a join that is refused for now, and again when that succeeds", async (t) => {
  const { tick, room } = await present(t);
  const update = room.update(2);
  await back(tick);
  Socket.last.answers("join_room", error("unavailable"));
  Socket.last.answers("room:update", error("not_joined"));
  await tick(2000);
  assert.deepEqual(types(), ["join_room", "room:update", "join_room", "room:update"]);
  Socket.last.answers("join_room", joined(mine(1), { resumed: true }));
  Socket.last.answers("room:update", updated(7));
  await update;
});

test("while one change waits to be repeated, the refusal of another for the missing join does not send it twice", async (t) => {
  const { tick, room } = await present(t);
  room.back();
  const first = room.update(2);
  await back(tick);
  Socket.last.answers("join_room", error("unavailable"));
  Socket.last.answers("room:back", error("not_joined"));
  Socket.last.answers("room:update", error("unavailable"));
  await tick(2000);
  Socket.last.answers("join_room", joined(mine(1), { resumed: true, joinedAt: 1000 }));
  const second = room.update(3);
  await tick(2000);
  assert.equal(Socket.last.of("room:update").length, 2, "one request is under way at a time");
  Socket.last.answers("room:update", updated(7));
  await first;
  if (Socket.last.of("room:update").length > 2) Socket.last.answers("room:update", error("forbidden"));
  await assert.rejects(second, { code: "forbidden" });
});

test("changes are sent one request at a time; those that wait are sent as one", async (t) => {
  const { room } = await present(t);
  const all = [room.update(2), room.update(3, { username: "A" }), room.update(4), room.update(undefined, { username: "B" })];
  assert.equal(Socket.last.of("room:update").length, 1);
  Socket.last.answers("room:update", updated(6));
  await settle();
  const { data, username } = Socket.last.of("room:update")[1];
  assert.deepEqual([data, username], [4, "B"]);
  Socket.last.answers("room:update", updated(7));
  await Promise.all(all);
  assert.equal(Socket.last.of("room:update").length, 2);
});

test("a change that is refused for now is not repeated after a later one", async (t) => {
  const { room, tick } = await present(t);
  const older = room.update("old");
  Socket.last.answers("room:update", error("too_many_requests"));
  const newer = room.update("new");
  await tick(2000);
  assert.deepEqual(Socket.last.of("room:update").map(({ data }) => data), ["old", "new"]);
  Socket.last.answers("room:update", updated(6));
  await Promise.all([older, newer]);
});

test("what is refused for now is repeated when the server says", async (t) => {
  const { room, tick } = await present(t);
  room.update("new");
  Socket.last.answers("room:update", { ...error("too_many_requests"), retryAfter: 20_000 });
  await tick(19_999);
  assert.equal(Socket.last.of("room:update").length, 1);
  for (const { id } of Socket.last.of("room:heartbeat")) Socket.last.says({ type: "room:heartbeat:ack", timestamp: 1, id });
  await tick(20_001);
  assert.equal(Socket.last.of("room:update").length, 2);
});

test("of changes that were refused together each is sent by itself, and only the faulty one is rejected", async (t) => {
  const { room, tick } = await present(t);
  Socket.last.ends(1006);
  const outcomes = ["good", "bad", "worse"].map((data) => room.update(data).then(() => data, ({ code }) => code));
  await Socket.again(tick);
  Socket.last.answers("join_room", joined(mine(1), { resumed: true, joinedAt: 1000 }));
  const answer = async (data, reply) => {
    await settle();
    assert.equal(Socket.last.of("room:update").at(-1).data, data);
    Socket.last.answers("room:update", reply);
  };
  await answer("worse", error("forbidden"));
  await answer("good", updated(6));
  await answer("bad", error("forbidden"));
  await answer("worse", error("forbidden"));
  assert.deepEqual(await Promise.all(outcomes), ["good", "forbidden", "forbidden"]);
  await back(tick);
  assert.deepEqual([types(), Socket.last.sent[0].data], [["join_room"], "good"], "what was refused leaves no trace");
});

test("changes that pile up without a connection stay bounded, and the last one counts", async (t) => {
  const { room, tick } = await present(t);
  Socket.last.ends(1006);
  const all = Array.from({ length: 1000 }, (_, number) => room.update(number));
  await Socket.again(tick);
  assert.equal(new Set(all).size, 1000);
  assert.equal(Socket.last.of("room:update")[0].data, 999);
  Socket.last.answers("join_room", joined(mine(1)));
  Socket.last.answers("room:update", updated(6));
  await Promise.all(all);
});

test("a return that is refused for its name or data is repeated without them, once", async (t) => {
  for (const code of ["data_too_big", "too_big", "bad_message", "forbidden"]) {
    const { room, tick } = await present(t);
    await back(tick);
    Socket.last.answers("join_room", error(code));
    const again = Socket.last.of("join_room")[1];
    assert.deepEqual([again.username, again.data, again.resume.joinedAt], [undefined, undefined, 1000]);
    Socket.last.answers("join_room", joined(mine(undefined), { joinedAt: 1000 }));
    assert.equal(room.status, "connected");
    await back(tick);
    Socket.last.answers("join_room", error(code));
    Socket.last.answers("join_room", error(code));
    assert.equal(room.error.code, code);
    t.mock.timers.reset();
    t.mock.restoreAll();
  }
});

test("a return that is answered with a force-leave ends the room, with the server's message", async (t) => {
  const { client, room, seen, tick } = await present(t);
  const update = room.update(2);
  await back(tick);
  Socket.last.answers("join_room", {
    type: "room:force-leave", roomId: "lobby", message: "A moderator removed you.", reason: "kicked", timestamp: 5,
  });
  assert.deepEqual(seen, ["reconnecting", "force-leave kicked: A moderator removed you.", "closed"]);
  await assert.rejects(update, { code: "force-leave" });
  await tick(60_000);
  assert.deepEqual([client.status, room.error.reason, Socket.all.length], ["idle", "kicked", 2]);
});

test("a message that is too big costs its own request alone, and the client returns without it", async (t) => {
  const big = "x".repeat(70_000);
  const { client, room, tick } = await present(t);
  const small = room.away();
  const update = room.update(big);
  Socket.last.ends(1009);
  await assert.rejects(update, { code: "too_big" });
  await Socket.again(tick);
  assert.deepEqual(types(), ["join_room", "room:away"]);
  Socket.last.answers("join_room", joined(mine(1), { joinedAt: 1000 }));
  Socket.last.answers("room:away", { type: "room:away:ok", roomId: "lobby" });
  await small;
  const joining = client.join("den", { userId: "me", data: big });
  joining.catch(() => {});
  await settle();
  Socket.last.ends(1009);
  await assert.rejects(joining, { code: "too_big" });
  const asking = client.request({ type: "room:is_present", roomId: big, userId: "me" });
  asking.catch(() => {});
  await settle();
  Socket.last.opens();
  Socket.last.ends(1009);
  await assert.rejects(asking, { code: "too_big" });
  assert.deepEqual([room.status, client.rooms.size], ["reconnecting", 1]);
});

test("a close with 1009 that no request explains ends none", async (t) => {
  const { client, room, tick } = await present(t);
  const asked = client.request({ type: "room:count", roomId: "den" });
  await settle();
  Socket.last.ends(1009);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined(mine(1)));
  Socket.last.answers("room:count", { type: "room:count", roomId: "den", count: 1 });
  assert.equal((await asked).count, 1);
  assert.equal(room.status, "connected");
});

test("what exceeds the announced limits is refused before it is sent, and that call alone", async (t) => {
  const { client, room, tick } = await present(t, { limits: { message: 2000, data: 100, id: 10 } });
  await assert.rejects(room.update("ü".repeat(50)), { code: "too_big", message: "data: 102 bytes, the server accepts 100: send less" });
  await assert.rejects(room.update(1, { username: "elevenchars" }), { code: "too_big", message: /^username: 11 bytes/ });
  await assert.rejects(client.join("a".repeat(11)), { code: "too_big", message: /^roomId/ });
  await assert.rejects(client.join("den", { userId: "a".repeat(11) }), { code: "too_big", message: /^userId/ });
  await assert.rejects(client.join("den", { userId: "me", data: "x".repeat(100) }), { code: "too_big" });
  const asked = client.request({ type: "room:is_present", roomId: "x", userId: "y".repeat(2000) });
  await tick(0);
  await assert.rejects(asked, { code: "too_big", message: /the server accepts 2000/ });
  assert.deepEqual([types(), client.rooms.size], [["join_room"], 1]);
  const update = room.update("x".repeat(98));
  Socket.last.answers("room:update", updated(6));
  await update;
});

test("what cannot be sent is refused before anything else, and changes nothing", async (t) => {
  const { client, room, tick } = await present(t);
  const half = "Ann \u{1F600}".slice(0, 5);
  await assert.rejects(room.update({ list: [1, 2, 3, () => {}] }), {
    name: "ReactorError", code: "bad_request", message: "data.list[3]: a function cannot be sent",
  });
  await assert.rejects(room.update(1, { username: half }), { code: "bad_request", message: /^username/ });
  await assert.rejects(client.join("lobby", { data: 1n }), { code: "bad_request" });
  await assert.rejects(client.join(half, { userId: "me" }), { code: "bad_request", message: /^roomId/ });
  await assert.rejects(client.join("den", { userId: half }), { code: "bad_request", message: /^userId/ });
  await assert.rejects(client.join(undefined), { code: "bad_request", message: "roomId: text or a whole number is needed, not undefined" });
  await assert.rejects(client.join("den", { userId: {} }), { code: "bad_request", message: /^userId/ });
  await assert.rejects(client.join("den", { userId: "me", username: 5 }), { code: "bad_request", message: /^username/ });
  await assert.rejects(client.join("den", { userId: "me", view: "all" }), { code: "bad_request", message: /^view/ });
  await assert.rejects(client.request({ type: "room:count", roomId: half }), { code: "bad_request", message: /^request\.roomId/ });
  assert.deepEqual([client.rooms.size, types()], [1, ["join_room"]]);
  await back(tick, mine(1));
  assert.deepEqual([types(), Socket.last.sent[0].data, room.status], [["join_room"], 1, "connected"]);
});

test("the application may change its object after the call", async (t) => {
  const { room, tick } = await present(t);
  Socket.last.ends(1006);
  const data = { mood: "blue", list: [1] };
  room.update(data);
  data.mood = () => {};
  data.list.push(2n);
  await Socket.again(tick);
  assert.deepEqual(Socket.last.of("room:update")[0].data, { mood: "blue", list: [1] });
});

test("a room that cannot be joined again does not keep the others from it", async (t) => {
  const faulty = new Set();
  const codec = {
    subprotocol: "reactor.json",
    encode: (message) => {
      if (faulty.has(message.roomId)) throw new Error("no such thing");
      return JSON.stringify(message);
    },
    decode: JSON.parse,
  };
  const { client, room, tick } = await present(t, {}, { codec });
  const second = client.join("den", { userId: "me" });
  await settle();
  Socket.last.answers("join_room", joined([member("me")], { roomId: "den" }));
  const den = await second;
  faulty.add("lobby");
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me")], { roomId: "den" }));
  await tick(1);
  assert.deepEqual([den.status, room.status, room.error?.code], ["connected", "closed", "bad_request"]);
});

test("joining again while the connection is lost changes what is given by an update after the return", async (t) => {
  const { client, room, tick } = await present(t);
  Socket.last.ends(1006);
  const again = client.join("lobby", { data: 2, view: "count" });
  await settle();
  await Socket.again(tick, 0);
  const [join, update] = Socket.last.sent;
  assert.deepEqual([join.data, join.view, join.resume.joinedAt, update.data], [1, "count", 1000, 2]);
  Socket.last.answers("join_room", joined([], { members: undefined, view: "count", count: 2 }));
  Socket.last.answers("room:update", updated(7));
  assert.equal(await again, room);
});

test("joining again to change the view leaves name and data to the server", async (t) => {
  const { client } = await present(t);
  const again = client.join("lobby", { view: "count" });
  await settle();
  const join = Socket.last.of("join_room")[1];
  assert.deepEqual([join.view, join.resume.joinedAt], ["count", 1000]);
  Socket.last.answers("join_room", error("unavailable"));
  Socket.last.says({ type: "service:restored", reason: "" });
  Socket.last.answers("join_room", joined([], { members: undefined, view: "count", count: 2 }));
  assert.equal((await again).view, "count");
});

test("a first join is repeated with what it gives, without a former membership", async (t) => {
  const { client, tick } = begin(t);
  const coming = client.join("lobby", { userId: "me", data: 7 });
  await settle();
  Socket.last.opens();
  await back(tick);
  const [join] = Socket.last.sent;
  assert.deepEqual([join.data, join.resume, types()], [7, undefined, ["join_room"]]);
  Socket.last.answers("join_room", joined(mine(7)));
  await coming;
});
