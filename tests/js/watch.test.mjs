// Rooms that a client watches without being in them, against a fake server.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Socket, begin, diff, enter, error, joined, member, settle } from "./fake.mjs";

const at = (count, more = {}) => ({ roomId: "lobby", epoch: "e", version: 5, count, ...more });
const watching = (members, more = {}) => ({ type: "room:watching", ...at(members.length), view: "members", members, ...more });
const requests = () => Socket.last.sent.filter(({ type }) => type !== "room:heartbeat").map(({ id, ...request }) => request);

async function watchLobby(t, options = {}) {
  const all = begin(t);
  const room = all.client.watch("lobby", options);
  const seen = [];
  for (const kind of ["join", "update", "leave", "sync"]) {
    room.on(kind, ({ member: who, reason, count }) => seen.push([kind, who?.userId ?? count, reason].filter(Boolean).join(" ")));
  }
  room.on("status", (status) => seen.push(status));
  room.on("error", ({ code }) => seen.push(`error ${code}`));
  await settle();
  Socket.last.opens();
  await settle();
  return { ...all, room, seen };
}

test("a watched room has the members, and follows the diffs", async (t) => {
  const { client, room, seen } = await watchLobby(t);
  assert.deepEqual(requests(), [{ type: "room:watch", roomId: "lobby", view: "members" }]);
  assert.deepEqual([room.status, room.view, room.count], ["connecting", "none", 0]);
  Socket.last.answers("room:watch", watching([member("ann")]));
  assert.deepEqual([room.status, room.view, room.count, [...room.members.keys()]], ["connected", "members", 1, ["ann"]]);
  Socket.last.says(diff(5, { joined: [member("bob")] }));
  Socket.last.says(diff(6, { count: 1, left: [{ userId: "ann", reason: "left" }] }));
  assert.deepEqual([...room.members.keys()], ["bob"]);
  assert.deepEqual(seen, ["sync 1", "connected", "join bob", "leave ann left"]);
  assert.equal(client.rooms.size, 0);
  room.close();
  await settle();
  assert.deepEqual([room.status, room.error, client.status, Socket.last.closed], ["closed", null, "idle", true]);
});

test("the counts of many rooms are one request, and one message updates all of them", async (t) => {
  const { client } = begin(t);
  const rooms = ["a", "b", "c"].map((id) => client.watch(id, { view: "count" }));
  await settle();
  Socket.last.opens();
  await settle();
  assert.deepEqual(requests(), [{ type: "room:watch", roomIds: ["a", "b", "c"], view: "count" }]);
  const counts = (...numbers) => numbers.map((count, index) => ({ ...at(count), roomId: "abc"[index] }));
  Socket.last.answers("room:watch", { type: "room:counts", rooms: counts(1, 2, 3) });
  assert.deepEqual(rooms.map(({ count, status }) => [count, status]), [[1, "connected"], [2, "connected"], [3, "connected"]]);
  Socket.last.says({ type: "room:counts", rooms: [{ ...at(9), roomId: "b", version: 6 }] });
  assert.deepEqual(rooms.map(({ count }) => count), [1, 9, 3]);
  rooms[0].close();
  rooms[2].close();
  await settle();
  assert.deepEqual(requests().at(-1), { type: "room:unwatch", roomIds: ["a", "c"] });
});

test("after a lost connection rooms are watched again, and only differences are events", async (t) => {
  const { tick, room, seen } = await watchLobby(t);
  Socket.last.answers("room:watch", watching([member("ann"), member("bob")]));
  seen.length = 0;
  Socket.last.ends(1006);
  await settle();
  assert.equal(room.status, "reconnecting");
  await Socket.again(tick);
  assert.deepEqual(requests(), [{ type: "room:watch", roomId: "lobby", view: "members" }]);
  Socket.last.answers("room:watch", watching([member("ann"), member("cy")], { version: 9 }));
  assert.deepEqual(seen, ["reconnecting", "leave bob disconnected", "join cy", "connected"]);
});

test("a gap in the diffs is healed by watching again", async (t) => {
  const { room } = await watchLobby(t);
  Socket.last.answers("room:watch", watching([member("ann")]));
  Socket.last.says(diff(7, { joined: [member("dee")] }));
  assert.deepEqual(requests().at(-1), { type: "room:watch", view: "members", roomId: "lobby" });
  Socket.last.answers("room:watch", watching([member("ann"), member("bob"), member("dee")], { version: 8 }));
  assert.deepEqual([...room.members.keys()], ["ann", "bob", "dee"]);
});

test("a refusal is an error of that room; others are watched", async (t) => {
  const { client, room, seen } = await watchLobby(t);
  const other = client.watch("other");
  await settle();
  Socket.last.says({ ...error("forbidden"), id: Socket.last.of("room:watch")[0].id, roomId: "lobby" });
  await settle();
  assert.deepEqual(seen, ["closed", "error forbidden"]);
  assert.equal(room.error.code, "forbidden");
  assert.equal(other.status, "connecting");
  assert.equal(client.status, "connected");
});

test("of several rooms those refused end, and a request refused as a whole is made room by room", async (t) => {
  const { client, tick } = begin(t);
  const rooms = ["a", "b"].map((id) => client.watch(id, { view: "count" }));
  await settle();
  Socket.last.opens();
  await settle();
  Socket.last.answers("room:watch", error("too_many_rooms"));
  assert.deepEqual(requests().slice(1), ["a", "b"].map((roomId) => ({ type: "room:watch", roomId, view: "count" })));
  const [, first, second] = Socket.last.of("room:watch");
  Socket.last.says({ type: "room:watching", ...at(3), roomId: "a", view: "count", id: first.id });
  Socket.last.says({ ...error("too_many_rooms"), id: second.id });
  assert.deepEqual(rooms.map(({ status, count }) => [status, count]), [["connected", 3], ["closed", 0]]);
  const [third, fourth] = ["c", "d"].map((id) => client.watch(id, { view: "count" }));
  await settle();
  Socket.last.answers("room:watch", {
    type: "room:counts", rooms: [{ ...at(1), roomId: "c" }], refused: [{ roomId: "d", code: "forbidden", message: "no" }],
  });
  assert.deepEqual([third.count, fourth.error.code], [1, "forbidden"]);
  await tick(0);
});

test("while Redis is away watching waits, and is repeated", async (t) => {
  const { client, tick, room } = await watchLobby(t);
  Socket.last.answers("room:watch", error("unavailable"));
  assert.deepEqual([client.status, room.status], ["degraded", "connecting"]);
  await tick(2000);
  assert.equal(Socket.last.of("room:watch").length, 2);
  Socket.last.answers("room:watch", watching([]));
  assert.deepEqual([client.status, room.status, room.count], ["connected", "connected", 0]);
});

test("two objects of one room share what is watched, and members are served while one wants them", async (t) => {
  const { client, room } = await watchLobby(t, { view: "count" });
  Socket.last.answers("room:watch", { type: "room:watching", ...at(1), view: "count" });
  const listed = client.watch("lobby");
  await settle();
  assert.deepEqual(requests().at(-1), { type: "room:watch", roomId: "lobby", view: "members" });
  Socket.last.answers("room:watch", watching([member("ann")]));
  Socket.last.says(diff(5, { joined: [member("bob")] }));
  assert.deepEqual([room.count, listed.count], [2, 2]);
  listed.close();
  await settle();
  assert.deepEqual(requests().at(-1), { type: "room:watch", roomId: "lobby", view: "count" });
  room.close();
  await settle();
  assert.equal(client.status, "idle");
});

test("a room may be joined and watched: each keeps its own view", async (t) => {
  const { client, room } = await enter(t);
  const counted = client.watch("lobby", { view: "count" });
  await settle();
  Socket.last.answers("room:watch", { type: "room:watching", ...at(2), view: "count" });
  Socket.last.says({ type: "room:counts", rooms: [at(7, { version: 6 })] });
  assert.deepEqual([room.view, room.count, counted.view, counted.count], ["members", 2, "count", 7]);
  Socket.last.says({ type: "room:force-leave", roomId: "lobby", message: "out", reason: "kicked", timestamp: 1 });
  assert.deepEqual([room.status, counted.status, client.status], ["closed", "connected", "connected"]);
});

test("a joined room that asked for its count takes no list that is for a watched one", async (t) => {
  const { client } = begin(t);
  const coming = client.join("lobby", { userId: "me", view: "count" });
  const listed = client.watch("lobby");
  await settle();
  Socket.last.opens();
  await settle();
  Socket.last.answers("join_room", joined([], { view: "count", members: undefined, count: 3 }));
  const room = await coming;
  Socket.last.answers("room:watch", watching([member("ann")]));
  Socket.last.says({ type: "room:members", ...at(2, { version: 7 }), members: [member("ann"), member("bob")] });
  assert.deepEqual([room.view, room.members.size, room.count], ["count", 0, 3]);
  assert.deepEqual([listed.view, listed.members.size], ["members", 2]);
});

test("a client that only watches sends heartbeats, and notices a dead connection", async (t) => {
  const { tick } = await watchLobby(t);
  Socket.last.answers("room:watch", watching([]));
  for (let passed = 0; passed < 26_000; passed += 1000) await tick(1000);
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
  const socket = Socket.last;
  for (let passed = 0; passed < 12_000; passed += 1000) await tick(1000);
  assert.ok(socket.closed, "without an answer the connection counts as lost");
});

test("closing the client ends what it watches", async (t) => {
  const { client, room } = await watchLobby(t);
  Socket.last.answers("room:watch", watching([member("ann")]));
  client.close();
  assert.deepEqual([room.status, room.error, client.status], ["closed", null, "idle"]);
  room.close();
});

test("a wrong argument is refused at once", (t) => {
  const { client } = begin(t);
  assert.throws(() => client.watch({}), { code: "bad_request" });
  assert.throws(() => client.watch("lobby", { view: "none" }), { code: "bad_request" });
  assert.equal(Socket.all.length, 0);
});
