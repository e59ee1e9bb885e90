// A room over time: its events, resumed, healed, served as a count, and ended.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SETTLE } from "../../reactor/js/room.js";
import { Socket, begin, diff, enter, error, joined, member, settle } from "./fake.mjs";

const snapshot = (version, members, more = {}) => ({
  type: "room:members", roomId: "lobby", epoch: "e", version, count: members.length, members, ...more,
});

test("resuming tells what really changed, once", async (t) => {
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

test("resuming to the same room tells nothing", async (t) => {
  const { seen, tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me"), member("ann")], { resumed: true, epoch: "other", version: 1 }));
  assert.deepEqual(seen, ["reconnecting", "connected"]);
});

test("all events of one message come together, too, when the members are right", async (t) => {
  const { room } = await enter(t);
  const { members } = room;
  const batches = [];
  room.on("join", () => batches.push(room.count));
  room.on("change", (events) => batches.push(events.map(({ kind, count }) => `${kind} ${count}`)));
  Socket.last.says(diff(5, { joined: [member("bob"), member("cy")], left: [{ userId: "ann", reason: "left" }], count: 3 }));
  assert.deepEqual(batches, [3, 3, ["leave 3", "join 3", "join 3"]]);
  assert.equal(room.members, members);
});

test("a diff that is told twice, and one about whom nobody saw, are no news", async (t) => {
  const { seen } = await enter(t);
  const came = diff(5, { joined: [member("bob")], count: 3 });
  Socket.last.says(came);
  Socket.last.says(came);
  Socket.last.says(diff(6, { left: [{ userId: "nobody", reason: "left" }], count: 3 }));
  assert.deepEqual(seen, ["join bob"]);
});

test("a listener that fails keeps nobody else from hearing", async (t) => {
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

test("a gap asks for the members once, and is healed into what differs", async (t) => {
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

test("a snapshot that does not heal is followed by another one; one that is refused is asked for later", async (t) => {
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

test("a gap is asked about on the next socket, too", async (t) => {
  const { tick } = await enter(t);
  Socket.last.says(diff(8));
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me"), member("ann")], { version: 9 }));
  assert.equal(Socket.last.of("room:members").length, 0);
  Socket.last.says(diff(12));
  assert.equal(Socket.last.of("room:members").length, 1);
});

test("a reason counts once", async (t) => {
  const { seen, tick } = await enter(t);
  Socket.last.says(diff(5, { left: [{ userId: "ann", reason: "kicked" }], count: 1 }));
  Socket.last.says(diff(6, { joined: [member("ann", { joinedAt: 2000 })] }));
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me")], { version: 9 }));
  assert.deepEqual(seen, ["leave ann kicked", "join ann", "reconnecting", "leave ann disconnected", "connected"]);
});

test("who is missing from a new epoch has time to be entered again", async (t) => {
  const { seen, room, tick } = await enter(t, [member("me"), member("ann"), member("bob")]);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("me", { joinedAt: 3000 })], count: 1 });
  Socket.last.says({ ...diff(1), epoch: "f", joined: [member("ann", { joinedAt: 3001 }), member("cy")], count: 3 });
  assert.deepEqual(seen, ["join cy"]);
  assert.equal(room.count, 4);
  await tick(SETTLE);
  assert.deepEqual(seen, ["join cy", "leave bob disconnected"]);
  assert.equal(room.count, 3);
  assert.equal(room.members.get("ann").joinedAt, 3001);
});

test("who leaves meanwhile is told nothing more", async (t) => {
  const { seen, room, tick } = await enter(t);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("me")], count: 1 });
  room.leave();
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await tick(SETTLE);
  assert.deepEqual(seen, ["closed"]);
});

test("what was held back is not told in a room that is told as its count meanwhile", async (t) => {
  const { seen, tick } = await enter(t);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("me")], count: 1 });
  Socket.last.says({ type: "room:count", roomId: "lobby", epoch: "f", version: 2, count: 5000 });
  await tick(SETTLE);
  assert.deepEqual(seen, ["sync 5000"]);
});

test("a list without oneself is not believed at once", async (t) => {
  const { seen, room, tick } = await enter(t);
  Socket.last.says({ ...diff(0), epoch: "f", joined: [member("bob")], count: 1 });
  assert.deepEqual([seen, room.count], [[], 2]);
  await tick(SETTLE);
  assert.deepEqual(seen, ["leave me disconnected", "leave ann disconnected", "join bob"]);
});

test("a room that grows too big is served as a count, and by name again when it shrinks", async (t) => {
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

test("what was only asked changes nothing of how the room is served", async (t) => {
  const { client, room, seen } = await enter(t, [], { members: undefined, view: "count", count: 2 });
  const asked = client.request({ type: "room:members", roomId: "lobby" });
  Socket.last.answers("room:members", snapshot(6, [member("me"), member("ann")]));
  assert.equal((await asked).members.length, 2);
  const counted = client.request({ type: "room:count", roomId: "lobby" });
  Socket.last.answers("room:count", { type: "room:count", roomId: "lobby", epoch: "e", version: 6, count: 3 });
  assert.equal((await counted).count, 3);
  assert.deepEqual([room.view, room.count, seen], ["count", 2, []]);
});

test("who was away is away again after a loss, in the same breath", async (t) => {
  const { room, tick } = await enter(t);
  const away = room.away();
  Socket.last.answers("room:away", { type: "room:away:ok", roomId: "lobby" });
  await away;
  Socket.last.ends(1006);
  await Socket.again(tick);
  assert.deepEqual(Socket.last.sent.map(({ type }) => type), ["join_room", "room:away"]);
  Socket.last.answers("room:away", error("too_many_pending"));
  Socket.last.answers("join_room", joined([member("me"), member("ann")], { resumed: true }));
  await tick(2000);
  assert.equal(Socket.last.of("room:away").length, 2);
  Socket.last.answers("room:away", error("too_many_pending"));
  room.back();
  assert.equal(Socket.last.of("room:back").length, 1);
  await tick(2000);
  assert.equal(Socket.last.of("room:away").length, 2, "who is back meanwhile is not away again");
});

test("who is away without having said so says that one is back", async (t) => {
  await enter(t, [member("me", { away: true })], { resumed: true });
  assert.equal(Socket.last.of("room:back").length, 1);
});

test("a change on its way outlives what others say, and is said once on a socket", async (t) => {
  const { room, client, tick } = await enter(t);
  room.update(7);
  Socket.last.says(diff(5, { joined: [member("bob")], count: 3 }));
  const again = client.join("lobby", { username: "Me" });
  await settle();
  Socket.last.answers("join_room", joined([member("me", { username: "Me" }), member("ann"), member("bob")], { version: 6 }));
  await again;
  assert.equal(Socket.last.of("room:update").length, 1);
  Socket.last.ends(1006);
  await Socket.again(tick);
  assert.equal(Socket.last.of("join_room")[0].data, 7);
});

test("a change waits for the return, and the return says it too", async (t) => {
  const { room, tick } = await enter(t);
  Socket.last.ends(1006);
  const update = room.update({ mood: "blue" }, { username: "New" });
  await Socket.again(tick);
  const [join] = Socket.last.of("join_room");
  assert.deepEqual([join.username, join.data], ["New", { mood: "blue" }]);
  assert.equal(Socket.last.of("room:update").length, 0);
  Socket.last.answers("join_room", joined([member("me", { username: "New", data: { mood: "blue" } }), member("ann")]));
  const [said] = Socket.last.of("room:update");
  assert.deepEqual([said.username, said.data, said.roomId], ["New", { mood: "blue" }, "lobby"]);
  Socket.last.answers("room:update", { type: "room:updated", roomId: "lobby", version: 6 });
  await update;
});

test("a change that comes while the room is joined again waits for the answer", async (t) => {
  const { room, tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  room.update(1);
  assert.equal(Socket.last.of("room:update").length, 0);
  Socket.last.answers("join_room", joined([member("me"), member("ann")]));
  assert.equal(Socket.last.of("room:update").length, 1);
});

test("what another device changed is kept at the return, what was refused is not said again", async (t) => {
  const { room, tick } = await enter(t);
  const update = room.update("too much");
  Socket.last.answers("room:update", error("data_too_big"));
  await assert.rejects(update, { code: "data_too_big" });
  Socket.last.says(diff(5, { updated: [member("me", { username: "Phone", data: 7 })] }));
  Socket.last.ends(1006);
  await Socket.again(tick);
  const [join] = Socket.last.of("join_room");
  assert.deepEqual([join.username, join.data], ["Phone", 7]);
});

test("a change that nobody waits for ends no program; one of a room that is over rejects", async (t) => {
  const { room } = await enter(t);
  room.update(1);
  room.leave();
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await settle();
  await assert.rejects(room.away(), { code: "not_joined" });
});

test("force-leave hands over the message, and nothing comes back by itself", async (t) => {
  const { client, room, seen, tick } = await enter(t);
  const update = room.update(1);
  Socket.last.says({ type: "room:force-leave", roomId: "lobby", message: "Too long.", reason: "inactivity_timeout", timestamp: 5 });
  Socket.last.ends(4003);
  assert.deepEqual(seen, ["force-leave inactivity_timeout: Too long.", "closed"]);
  assert.equal(room.error.timestamp, 5);
  await assert.rejects(update, { code: "force-leave" });
  assert.equal(client.rooms.size, 0);
  await tick(60_000);
  assert.equal(Socket.all.length, 1);
  assert.equal(client.status, "idle");
});

test("force-leave from one room leaves the other, and one may join again at once", async (t) => {
  const { client, room } = await enter(t);
  const second = client.join("den", { userId: "me" });
  await settle();
  Socket.last.answers("join_room", joined([member("me")], { roomId: "den" }));
  const den = await second;
  room.on("force-leave", () => client.join("lobby", { userId: "me" }));
  Socket.last.says({ type: "room:force-leave", roomId: "lobby", message: "Out.", reason: "kicked", timestamp: 5 });
  await settle();
  assert.equal(den.status, "connected");
  assert.equal(Socket.last.of("join_room").length, 3);
  // The server closed before it had read the last join.
  Socket.last.ends(4003, "kicked");
  await settle();
  assert.equal(Socket.all.length, 2);
  Socket.last.opens();
  assert.deepEqual(Socket.last.of("join_room").map(({ roomId }) => roomId), ["den", "lobby"]);
});

test("an end that would repeat itself is told, not retried", async (t) => {
  const { client, room, seen, tick } = await enter(t);
  Socket.last.ends(1008, "too many");
  assert.deepEqual(seen, ["closed"]);
  assert.deepEqual([room.error.code, room.error.closeCode, client.status], ["closed", 1008, "closed"]);
  await tick(60_000);
  assert.equal(Socket.all.length, 1);
});

test("a room that cannot be entered again is over; a refusal that passes is not", async (t) => {
  const { room, seen, tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", error("unavailable"));
  await tick(2000);
  Socket.last.answers("join_room", error("room_full"));
  assert.deepEqual(seen, ["reconnecting", "closed"]);
  assert.equal(room.error.code, "room_full");
});

test("leaving waits for the answer, and takes the socket along", async (t) => {
  const { client, room, tick } = await enter(t);
  const leaving = room.leave();
  assert.equal(room.status, "connected");
  assert.equal(room.leave(), leaving);
  Socket.last.answers("leave_room", error("unavailable"));
  await tick(2000);
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await leaving;
  assert.deepEqual([room.status, room.error, client.status], ["closed", null, "idle"]);
  assert.ok(Socket.last.closed);
});

test("an answer that comes twice is one", async (t) => {
  const { room, tick } = await enter(t);
  room.leave();
  const refused = { ...error("unavailable"), id: Socket.last.of("leave_room")[0].id };
  Socket.last.says(refused);
  Socket.last.says(refused);
  await tick(2000);
  assert.equal(Socket.last.of("leave_room").length, 2);
});

test("what was to be said again on a socket that is lost since is not said on the next one", async (t) => {
  const { tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", error("unavailable"));
  Socket.last.ends(1006);
  await Socket.again(tick, 1000);
  await tick(2000);
  assert.equal(Socket.last.of("join_room").length, 1);
});

test("a room that is over leaves alone who is there anew, and one that was let go is not joined later", async (t) => {
  const { client, room, tick } = await enter(t);
  const expelled = { type: "room:force-leave", roomId: "lobby", message: "Out.", reason: "kicked", timestamp: 5 };
  client.request({ type: "room:count", roomId: "den" }); // which keeps the socket
  const rejoin = async () => {
    const coming = client.join("lobby", { userId: "me" });
    await settle();
    return { coming };
  };
  const leaving = room.leave();
  Socket.last.answers("leave_room", error("unavailable"));
  Socket.last.says(expelled);
  await leaving;
  const { coming } = await rejoin();
  Socket.last.answers("join_room", joined([member("me")]));
  await coming;
  await tick(2000);
  assert.equal(Socket.last.of("leave_room").length, 1, "a leave that was put off is not for the next stay");
  Socket.last.says(expelled);
  await (await coming).leave();
  assert.equal(Socket.last.of("leave_room").length, 1, "nor is one that comes too late");

  const { coming: third } = await rejoin();
  Socket.last.answers("join_room", error("unavailable"));
  client.rooms.get("lobby").leave();
  await tick(2000);
  assert.equal(Socket.last.of("join_room").length, 3, "who is about to leave is not entered");
  Socket.last.answers("leave_room", error("not_joined"));
  await assert.rejects(third, { code: "not_joined" });
});

test("leaving while the socket is lost, or is lost meanwhile, is done at once; the grace does the rest", async (t) => {
  for (const before of [true, false]) {
    const { client, room, tick } = await enter(t);
    if (before) Socket.last.ends(1006);
    const leaving = room.leave();
    if (!before) Socket.last.ends(1006);
    await leaving;
    await tick(60_000);
    assert.equal(client.status, "idle");
    assert.equal(Socket.all.length, 1);
    t.mock.timers.reset();
  }
});

test("joining again while leaving waits for the end of it", async (t) => {
  const { client, room } = await enter(t);
  room.leave();
  const again = client.join("lobby", { userId: "me" });
  await settle();
  assert.equal(Socket.last.of("join_room").length, 1);
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await settle();
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me")]));
  assert.notEqual(await again, room);
});

test("a signal gives up a join, or ends the stay, and is let go after it", async (t) => {
  const { client, tick } = begin(t);
  const early = client.join("lobby", { userId: "me", signal: AbortSignal.abort() });
  await assert.rejects(early, { code: "aborted" });
  assert.deepEqual([client.status, client.rooms.size, Socket.all.length], ["idle", 0, 0]);

  const giving = new AbortController();
  const given = client.join("lobby", { userId: "me", signal: giving.signal });
  await settle();
  giving.abort();
  await assert.rejects(given, { code: "aborted" });
  assert.equal(client.status, "idle");

  t.mock.timers.reset();
  const present = await enter(t);
  await assert.rejects(present.client.join("lobby", { userId: "me", signal: AbortSignal.abort() }), { code: "aborted" });
  assert.equal(present.room.status, "connected", "who is there already stays");
  t.mock.timers.reset();
  const { client: other } = begin(t);

  const staying = new AbortController();
  let ears = 0;
  for (const [how, change] of [["addEventListener", 1], ["removeEventListener", -1]]) {
    const real = staying.signal[how].bind(staying.signal);
    staying.signal[how] = (...all) => ((ears += change), real(...all));
  }
  const coming = other.join("lobby", { userId: "me", signal: staying.signal });
  await settle();
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me")]));
  const room = await coming;
  assert.equal(ears, 1);
  staying.abort();
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  assert.deepEqual([room.status, ears], ["closed", 0]);
  await tick(60_000);
});

test("after a loss the snapshot counts, even one of a server that went back", async (t) => {
  const { room, tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me")], { version: 2 }));
  assert.deepEqual([room.version, [...room.members.keys()]], [2, ["me"]]);
});
