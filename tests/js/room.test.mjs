// A room over time: its events, resumed, healed, and served as a count.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SETTLE_DELAY } from "../../reactor/js/followed-room.js";
import { Socket, diff, enter, error, joined, member, settle } from "./fake.mjs";

const snapshot = (version, members, more = {}) => ({
  type: "room:members", roomId: "lobby", epoch: "e", version, count: members.length, members, ...more,
});

test("a rejoin emits what has really changed, once", async (t) => {
  const here = [member("me"), member("ann"), member("bob"), member("cy"), member("dee")];
  const { room, seen, tick } = await enter(t, here);
  Socket.last.ends(1006);
  await Socket.again(tick);
  const after = [
    member("me"),
    member("ann", { lastActiveAt: 9999 }),
    member("bob", { away: true }),
    member("dee", { joinedAt: 8000 }),
    member("eve"),
  ];
  Socket.last.answers("join_room", joined(after, { resumed: true, version: 30 }));
  assert.equal(room.resumed, true);
  assert.deepEqual(seen, [
    "reconnecting",
    "leave dee disconnected",
    "leave cy disconnected",
    "join dee",
    "join eve",
    "update bob",
    "connected",
  ]);
  assert.deepEqual([...room.members.keys()], ["me", "ann", "bob", "dee", "eve"]);
});

test("a rejoin to an unchanged room emits nothing", async (t) => {
  const { seen, tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me"), member("ann")], { resumed: true, epoch: "other", version: 1 }));
  assert.deepEqual(seen, ["reconnecting", "connected"]);
});

test("the change event has all events of a message, after the members are updated", async (t) => {
  const { room } = await enter(t);
  const { members } = room;
  const batches = [];
  room.on("join", () => batches.push(room.count));
  room.on("change", (events) => batches.push(events.map(({ kind, count }) => `${kind} ${count}`)));
  Socket.last.says(diff(5, { joined: [member("bob"), member("cy")], left: [{ userId: "ann", reason: "left" }], count: 3 }));
  assert.deepEqual(batches, [3, 3, ["leave 3", "join 3", "join 3"]]);
  assert.equal(room.members, members);
});

test("a repeated diff and the departure of an unknown member emit nothing", async (t) => {
  const { seen } = await enter(t);
  const came = diff(5, { joined: [member("bob")], count: 3 });
  Socket.last.says(came);
  Socket.last.says(came);
  Socket.last.says(diff(6, { left: [{ userId: "nobody", reason: "left" }], count: 3 }));
  assert.deepEqual(seen, ["join bob"]);
});

test("a listener that throws does not affect the others", async (t) => {
  const { room, seen } = await enter(t);
  const { mock } = t.mock.method(console, "error", () => {});
  const fail = () => {
    throw new Error("mine");
  };
  const stop = room.on("join", fail);
  room.on("join", () => seen.push("heard"));
  Socket.last.says(diff(5, { joined: [member("bob")], count: 3 }));
  assert.equal(mock.calls[0].arguments[0].message, "mine");
  stop();
  Socket.last.says(diff(6, { joined: [member("cy")], count: 4 }));
  assert.deepEqual(seen, ["join bob", "heard", "join cy", "heard"]);
});

test("a listener that another one removes is not called any more, also not for the event that is emitted", async (t) => {
  const { room, seen } = await enter(t);
  room.on("join", () => {
    stop();
    room.on("join", () => seen.push("added"));
  });
  const twice = () => seen.push("twice");
  const stop = room.on("join", twice);
  room.on("join", twice);
  Socket.last.says(diff(5, { joined: [member("bob")], count: 3 }));
  assert.deepEqual(seen, ["join bob", "twice"]);
});

test("a gap requests the members once, and emits the difference", async (t) => {
  const { room, seen } = await enter(t);
  Socket.last.says(diff(8, { updated: [member("ann", { away: true })] }));
  Socket.last.says(diff(9, { left: [{ userId: "bob", reason: "kicked" }] }));
  Socket.last.says(diff(10, { left: [{ userId: "ann", reason: "left" }], count: 1 }));
  assert.equal(Socket.last.of("room:members").length, 1);
  assert.deepEqual(seen, []);
  Socket.last.answers("room:members", snapshot(9, [member("me"), member("ann", { away: true }), member("bob")]));
  assert.equal(room.version, 11);
  assert.deepEqual(seen, ["leave ann left"]);
});

test("a snapshot that does not close the gap is followed by another; a refused one is requested later", async (t) => {
  const { room, tick } = await enter(t);
  const two = [member("me"), member("ann")];
  Socket.last.says(diff(8));
  Socket.last.answers("room:members", snapshot(7, two));
  assert.equal(Socket.last.of("room:members").length, 2);
  Socket.last.answers("room:members", error("unavailable"));
  assert.equal(Socket.last.of("room:members").length, 2);
  await tick(2000);
  assert.equal(Socket.last.of("room:members").length, 3);
  Socket.last.answers("room:members", snapshot(9, two));
  assert.equal(room.version, 9);
  await tick(9000);
  assert.equal(Socket.last.of("room:members").length, 3);
});

test("a page of the list that the application requests is not the snapshot that the room needs", async (t) => {
  const { client, room } = await enter(t);
  Socket.last.says(diff(8));
  const asked = client.request({ type: "room:members", roomId: "lobby", limit: 1 });
  await settle();
  Socket.last.answers("room:members", snapshot(9, [member("ann")], { cursor: "c" }));
  assert.equal((await asked).cursor, "c");
  assert.deepEqual([...room.members.keys()], ["me", "ann"]);
});

test("a gap is also repaired on the next socket", async (t) => {
  const { tick } = await enter(t);
  Socket.last.says(diff(8));
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me"), member("ann")], { version: 9 }));
  assert.equal(Socket.last.of("room:members").length, 0);
  Socket.last.says(diff(12));
  assert.equal(Socket.last.of("room:members").length, 1);
});

test("a departure reason applies once", async (t) => {
  const { seen, tick } = await enter(t);
  Socket.last.says(diff(5, { left: [{ userId: "ann", reason: "kicked" }], count: 1 }));
  Socket.last.says(diff(6, { joined: [member("ann", { joinedAt: 2000 })] }));
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me")], { version: 9 }));
  assert.deepEqual(seen, ["leave ann kicked", "join ann", "reconnecting", "leave ann disconnected", "connected"]);
});

test("a member missing from a new epoch may be registered again before it counts as departed", async (t) => {
  const { seen, room, tick } = await enter(t, [member("me"), member("ann"), member("bob")]);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("me", { joinedAt: 3000 })], count: 1 });
  Socket.last.says({ ...diff(1), epoch: "f", joined: [member("ann", { joinedAt: 3001 }), member("cy")], count: 3 });
  assert.deepEqual(seen, ["join cy"]);
  assert.equal(room.count, 4);
  await tick(SETTLE_DELAY);
  assert.deepEqual(seen, ["join cy", "leave bob disconnected"]);
  assert.equal(room.count, 3);
  assert.equal(room.members.get("ann").joinedAt, 3001);
});

test("after leaving nothing more is emitted", async (t) => {
  const { seen, room, tick } = await enter(t);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("me")], count: 1 });
  room.leave();
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await tick(SETTLE_DELAY);
  assert.deepEqual(seen, ["closed"]);
});

test("withheld changes are dropped when the room is served as a count meanwhile", async (t) => {
  const { seen, tick } = await enter(t);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("me")], count: 1 });
  Socket.last.says({ type: "room:count", roomId: "lobby", epoch: "f", version: 2, count: 5000 });
  await tick(SETTLE_DELAY);
  assert.deepEqual(seen, ["sync 5000"]);
});

test("a list without the own member is withheld at first", async (t) => {
  const { seen, room, tick } = await enter(t);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("bob")], count: 1 });
  assert.deepEqual([seen, room.count], [[], 2]);
  await tick(SETTLE_DELAY);
  assert.deepEqual(seen, ["leave me disconnected", "leave ann disconnected", "join bob"]);
});

test("a room that grows too large is served as a count, and as members again when it shrinks", async (t) => {
  const { room, seen } = await enter(t);
  Socket.last.says({ type: "room:count", roomId: "lobby", epoch: "e", version: 6, count: 5000 });
  assert.deepEqual([room.view, room.count, room.members.size, room.me], ["count", 5000, 0, undefined]);
  Socket.last.says({ type: "room:count", roomId: "lobby", epoch: "e", version: 7, count: 4999 });
  Socket.last.says({ type: "room:count", roomId: "lobby", epoch: "e", version: 6, count: 5000 });
  assert.deepEqual(seen, ["sync 5000", "sync 4999"]);
  Socket.last.says(snapshot(8, [member("me"), member("zed")]));
  assert.equal(room.view, "members");
  Socket.last.says(diff(8, { joined: [member("new")], count: 3 }));
  assert.deepEqual(seen.slice(2), ["sync 2", "join new"], "nobody came or went: they only became visible");
  Socket.last.says({ type: "room:count", roomId: "lobby", epoch: "e", version: 12, count: 5000 });
  Socket.last.says(snapshot(11, [member("me")]));
  assert.equal(room.count, 1, "a list that is a little older than the count is better than none");
});

test("replies to requests do not change how the room is served", async (t) => {
  const { client, room, seen } = await enter(t, [], { members: undefined, view: "count", count: 2 });
  const asked = client.request({ type: "room:members", roomId: "lobby" });
  Socket.last.answers("room:members", snapshot(6, [member("me"), member("ann")]));
  assert.equal((await asked).members.length, 2);
  const counted = client.request({ type: "room:count", roomId: "lobby" });
  Socket.last.answers("room:count", { type: "room:count", roomId: "lobby", epoch: "e", version: 6, count: 3 });
  assert.equal((await counted).count, 3);
  assert.deepEqual([room.view, room.count, seen], ["count", 2, []]);
});

test("after a lost connection the snapshot applies, even with an older version", async (t) => {
  const { room, tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me")], { version: 2 }));
  assert.deepEqual([room.version, [...room.members.keys()]], [2, ["me"]]);
});
