// A room over time: resumed, healed, served as a count, and ended.
import assert from "node:assert/strict";
import { test } from "node:test";
import { HEARTBEAT, Socket, diff, enter, error, joined, member } from "./fake.mjs";

test("resuming tells what really changed, once", async (t) => {
  const here = [member("me"), member("ann"), member("bob"), member("cy"), member("dee")];
  const { client, room, seen, tick } = await enter(t, here);
  Socket.last.ends(1006);
  assert.equal(room.status, "interrupted");
  tick(500);
  Socket.last.opens();
  const after = [
    member("me"),
    member("ann", { lastActiveAt: 9999 }),
    member("bob", { away: true }),
    member("dee", { joinedAt: 8000 }),
    member("eve"),
  ];
  Socket.last.answers("join_room", joined(after, { resumed: true, version: 30 }));
  assert.equal(room.resumed, true);
  assert.equal(room.status, "joined");
  assert.equal(client.status, "open");
  assert.equal(seen.changes.length, 1);
  const [{ joined: came, updated, left }] = seen.changes;
  assert.deepEqual(came.map(({ userId }) => userId), ["dee", "eve"]);
  assert.deepEqual(updated.map(({ userId }) => userId), ["bob"]);
  assert.deepEqual(left.map(({ userId, reason, member: known }) => [userId, reason, known.joinedAt]), [
    ["dee", "unknown", 1000],
    ["cy", "unknown", 1000],
  ]);
});

test("resuming to the same room tells nothing", async (t) => {
  const { seen, tick } = await enter(t);
  Socket.last.ends(1006);
  tick(500);
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me"), member("ann")], { resumed: true, epoch: "other", version: 1 }));
  assert.deepEqual(seen.changes, []);
});

test("who was away is away again after a loss", async (t) => {
  const { room, tick } = await enter(t);
  room.setAway(true);
  Socket.last.answers("room:away", { type: "room:away:ok", roomId: "lobby" });
  Socket.last.ends(1006);
  tick(500);
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me"), member("ann")], { resumed: true }));
  assert.equal(Socket.last.of("room:away").length, 1);
  room.setAway(false);
  assert.equal(Socket.last.of("room:back").length, 1);
});

test("a diff is told with who it was that left", async (t) => {
  const { room, seen } = await enter(t);
  Socket.last.says(diff(5, { left: [{ userId: "ann", reason: "disconnected" }], count: 1 }));
  assert.deepEqual(seen.changes, [
    { joined: [], updated: [], left: [{ userId: "ann", reason: "disconnected", member: member("ann") }] },
  ]);
  assert.deepEqual([...room.members.keys()], ["me"]);
  assert.equal(room.count, 1);
});

test("who came and went unseen within one diff is no news", async (t) => {
  const { seen } = await enter(t);
  Socket.last.says(diff(5, { left: [{ userId: "nobody", reason: "left" }] }));
  assert.deepEqual(seen.changes, []);
});

test("a gap asks for the members once, and is healed into one change", async (t) => {
  const { room, seen } = await enter(t);
  Socket.last.says(diff(8, { updated: [member("ann", { away: true })] }));
  Socket.last.says(diff(9, { left: [{ userId: "bob", reason: "kicked" }] }));
  Socket.last.says(diff(10, { left: [{ userId: "ann", reason: "left" }], count: 1 }));
  assert.equal(Socket.last.of("room:members").length, 1);
  assert.deepEqual(seen.changes, []);
  Socket.last.answers("room:members", {
    type: "room:members", roomId: "lobby", epoch: "e", version: 9, count: 3,
    members: [member("me"), member("ann", { away: true }), member("bob")],
  });
  assert.equal(room.version, 11);
  assert.deepEqual(seen.changes, [
    { joined: [], updated: [], left: [{ userId: "ann", reason: "left", member: member("ann") }] },
  ]);
});

test("a snapshot that does not heal is followed by another one", async (t) => {
  const { room } = await enter(t);
  Socket.last.says(diff(8));
  const snapshot = (version) => ({
    type: "room:members", roomId: "lobby", epoch: "e", version, count: 2, members: [member("me"), member("ann")],
  });
  Socket.last.answers("room:members", snapshot(7));
  assert.equal(Socket.last.of("room:members").length, 2);
  Socket.last.answers("room:members", snapshot(9));
  assert.equal(room.version, 9);
  assert.equal(Socket.last.of("room:members").length, 2);
});

test("a fresh epoch comes out as the difference to what was known", async (t) => {
  const { seen } = await enter(t);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("me"), member("bob")] });
  assert.deepEqual(seen.changes.map(({ joined: came, left }) => [came.map((one) => one.userId), left.map((one) => one.userId)]), [
    [["bob"], ["ann"]],
  ]);
});

test("a room that grows too big is served as a count, and by name again when it shrinks", async (t) => {
  const { room, seen } = await enter(t);
  Socket.last.says({ type: "room:count", roomId: "lobby", epoch: "e", version: 6, count: 5000 });
  assert.equal(room.view, "count");
  assert.equal(room.count, 5000);
  assert.equal(room.members.size, 0);
  Socket.last.says({ type: "room:count", roomId: "lobby", epoch: "e", version: 7, count: 4999 });
  assert.deepEqual(seen.counts, [5000, 4999]);
  assert.equal(seen.syncs, 1);
  const members = [member("me"), member("zed")];
  Socket.last.says({ type: "room:members", roomId: "lobby", epoch: "e", version: 8, count: 2, members });
  assert.equal(room.view, "members");
  assert.equal(seen.syncs, 2);
  assert.deepEqual(seen.changes, [], "nobody came or went: they only became visible");
  Socket.last.says(diff(8, { joined: [member("new")], count: 3 }));
  assert.equal(seen.changes.length, 1);
});

test("a big room is served as a count from the start", async (t) => {
  const { room } = await enter(t, [], { members: undefined, view: "count", count: 5000 });
  assert.equal(room.count, 5000);
  assert.equal(room.view, "count");
  assert.equal(room.me, undefined);
});

test("force-leave hands over the message, and nothing comes back by itself", async (t) => {
  const { client, room, seen, tick } = await enter(t);
  Socket.last.says({ type: "room:force-leave", roomId: "lobby", message: "Too long.", reason: "inactivity_timeout", timestamp: 5 });
  Socket.last.ends(4003);
  assert.equal(room.status, "ended");
  assert.deepEqual(seen.ends.map(({ message, reason }) => [message, reason]), [["Too long.", "inactivity_timeout"]]);
  assert.equal(client.rooms.size, 0);
  tick(60_000);
  assert.equal(Socket.all.length, 1);
  assert.equal(client.status, "closed");
});

test("force-leave from one room leaves the other, and one may join again at once", async (t) => {
  const { client, room } = await enter(t);
  const second = client.join("den", { userId: "me" });
  Socket.last.answers("join_room", joined([member("me")], { roomId: "den" }));
  const den = await second;
  room.on("force-leave", () => client.join("lobby", { userId: "me" }));
  Socket.last.says({ type: "room:force-leave", roomId: "lobby", message: "Out.", reason: "kicked", timestamp: 5 });
  assert.equal(den.status, "joined");
  assert.equal(Socket.last.of("join_room").length, 3);
  // The server closed before it had read the last join.
  Socket.last.ends(4003, "kicked");
  assert.equal(Socket.all.length, 2);
  Socket.last.opens();
  assert.deepEqual(Socket.last.of("join_room").map(({ roomId }) => roomId), ["den", "lobby"]);
});

test("an end that would repeat itself is told, not retried", async (t) => {
  const { client, seen, tick } = await enter(t);
  Socket.last.ends(1008, "too many");
  assert.deepEqual(seen.refused.map(({ code, message }) => [code, message]), [
    ["closed", "the server closed the connection (1008: too many)"],
  ]);
  tick(60_000);
  assert.equal(client.status, "closed");
  assert.equal(Socket.all.length, 1);
});

test("a room that cannot be entered again is told", async (t) => {
  const { seen, tick } = await enter(t);
  Socket.last.ends(1006);
  tick(500);
  Socket.last.opens();
  Socket.last.answers("join_room", error("room_full"));
  assert.deepEqual(seen.refused.map(({ code }) => code), ["room_full"]);
});

test("leaving waits for the answer, and takes the socket along", async (t) => {
  const { client, room } = await enter(t);
  const leaving = room.leave();
  assert.equal(room.status, "joined");
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await leaving;
  assert.equal(room.status, "ended");
  assert.equal(client.status, "closed");
});

test("leaving while the socket is lost is done at once; the grace does the rest", async (t) => {
  const { client, room, tick } = await enter(t);
  Socket.last.ends(1006);
  await room.leave();
  tick(60_000);
  assert.equal(client.status, "closed");
  assert.equal(Socket.all.length, 1);
});

test("closing is for good", async (t) => {
  const { client, room, tick } = await enter(t);
  client.close();
  tick(10 * HEARTBEAT);
  assert.equal(room.status, "ended");
  assert.ok(Socket.last.closed);
  assert.equal(Socket.all.length, 1);
});

test("every message is shown, as it went over the wire", async (t) => {
  const { client } = await enter(t);
  const frames = [];
  client.on("frame", ({ direction, text }) => frames.push([direction, JSON.parse(text).type]));
  client.beat();
  Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
  assert.deepEqual(frames, [["sent", "room:heartbeat"], ["received", "room:heartbeat:ack"]]);
});

test("after a loss the snapshot counts, even one of a server that went back", async (t) => {
  const { room, tick } = await enter(t);
  Socket.last.ends(1006);
  tick(500);
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me")], { version: 2 }));
  assert.deepEqual([room.version, [...room.members.keys()]], [2, ["me"]]);
});

test("what was asked when the socket was lost is not waited for", async (t) => {
  const { client, room, tick } = await enter(t);
  client.beat();
  Socket.last.ends(1006);
  tick(500);
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me")]));
  tick(HEARTBEAT);
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
  const leaving = room.leave();
  Socket.last.ends(1006);
  await leaving;
  assert.equal(client.status, "closed");
});
