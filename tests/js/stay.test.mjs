// What one does in a room: changes, away and back, leaving, and how a stay ends.
import assert from "node:assert/strict";
import { test } from "node:test";
import { LEAVE_TIMEOUT } from "../../reactor/js/client.js";
import { Socket, begin, diff, enter, error, joined, member, settle } from "./fake.mjs";

test("joining again as the same user changes the given options; another user is rejected", async (t) => {
  const { room, client, tick } = await enter(t);
  const again = client.join("lobby", { userId: "me", data: 1, username: undefined });
  await settle();
  const { username, data } = Socket.last.of("join_room")[1];
  assert.deepEqual([username, data], ["me", 1], "the name as the server has it");
  Socket.last.answers("join_room", joined([member("me", { data: 1 }), member("ann")]));
  assert.equal(await again, room);
  await assert.rejects(client.join("lobby", { userId: "other" }), { code: "already_joined" });
  const refused = client.join("lobby", { data: "too much" });
  await settle();
  Socket.last.answers("join_room", error("data_too_big"));
  await assert.rejects(refused, { code: "data_too_big" });
  assert.equal(room.status, "connected");
  Socket.last.ends(1006);
  await Socket.again(tick);
  assert.equal(Socket.last.of("join_room")[0].data, 1, "what was refused is not said again");
});

test("joining again with another view that is not answered in time leaves the view that the application has", async (t) => {
  const { room, client, tick } = await enter(t, undefined, {}, { requestTimeout: 3000 });
  const again = client.join("lobby", { userId: "me", view: "none" });
  await settle();
  await tick(3000);
  await assert.rejects(again, { code: "timeout" });
  Socket.last.answers("join_room", joined([], { view: "none" }));
  assert.equal(room.view, "members");
  await tick(2000);
  assert.deepEqual(Socket.last.of("join_room").map(({ view }) => view), [undefined, "none", undefined], "the server may have executed it");
  Socket.last.answers("join_room", joined([member("me"), member("bob")]));
  assert.deepEqual([...room.members.keys()], ["me", "bob"]);
});

test("an away member is away again after a lost connection, with the join", async (t) => {
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
  await tick(2000);
  assert.equal(Socket.last.of("room:back").length, 1);
  assert.equal(Socket.last.of("room:away").length, 2, "who is back meanwhile is not away again");
});

test("a member that is away without having requested it sends back", async (t) => {
  await enter(t, [member("me", { away: true })], { resumed: true });
  assert.equal(Socket.last.of("room:back").length, 1);
});

test("a rejoin keeps the change of another device and does not repeat a refused one", async (t) => {
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

test("an unhandled rejection of a change does not end the program; a change in a closed room rejects", async (t) => {
  const { room } = await enter(t);
  room.update(1);
  room.leave();
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await settle();
  await assert.rejects(room.away(), { code: "not_joined" });
});

test("force-leave delivers the message, and the client does not rejoin", async (t) => {
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

test("force-leave from one room keeps the other, and joining again is possible at once", async (t) => {
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

test("a peer that closes with 4003 at once is not connected to without a pause", async (t) => {
  const { client, tick } = await enter(t);
  const { length } = Socket.all;
  for (let round = 0; round < 10; round += 1) {
    Socket.last.ends(4003);
    await tick(100);
    if (!Socket.last.closed && client.status === "reconnecting") Socket.last.onopen?.();
  }
  assert.ok(Socket.all.length - length < 5, `${Socket.all.length - length} connections in a second`);
});

test("a peer that answers each join and closes with 4003 is met with growing pauses", async (t) => {
  const { client, room } = await enter(t);
  const pauses = [];
  for (let round = 0; round < 4; round += 1) {
    Socket.last.ends(4003);
    pauses.push(client.retryAt - Date.now());
    client.tick();
    t.mock.timers.tick(pauses.at(-1));
    await settle();
    Socket.last.opens();
    Socket.last.answers("join_room", joined([member("me"), member("ann")]));
  }
  assert.deepEqual(pauses, [500, 1000, 2000, 4000]);
  assert.equal(room.status, "connected");
});

test("a rejected token ends the client; after any other close code it returns", async (t) => {
  const { client, room, seen, tick } = await enter(t);
  const errors = [];
  client.on("error", (error) => errors.push(error));
  for (const code of [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4000, 4008, 4029, 4499]) {
    Socket.last.ends(code);
    assert.equal(room.status, "reconnecting", String(code));
    await Socket.again(tick, 15_000);
    Socket.last.answers("join_room", joined([member("me"), member("ann")]));
  }
  assert.deepEqual(errors, []);
  const { length } = Socket.all;
  Socket.last.ends(4001, "unauthorized");
  assert.equal(seen.at(-1), "closed");
  assert.deepEqual([room.error.code, room.error.closeCode, client.status], ["closed", 4001, "closed"]);
  assert.deepEqual(errors, [room.error]);
  await tick(60_000);
  assert.equal(Socket.all.length, length);
});

test("a refused rejoin closes the room; a transient refusal does not", async (t) => {
  const { room, seen, tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", error("unavailable"));
  await tick(2000);
  Socket.last.answers("join_room", error("room_full"));
  assert.deepEqual(seen, ["reconnecting", "closed"]);
  assert.equal(room.error.code, "room_full");
});

test("leave waits for the reply, and closes the socket", async (t) => {
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

test("a repeated reply is ignored", async (t) => {
  const { room, tick } = await enter(t);
  room.leave();
  const refused = { ...error("unavailable"), id: Socket.last.of("leave_room")[0].id };
  Socket.last.says(refused);
  Socket.last.says(refused);
  await tick(2000);
  assert.equal(Socket.last.of("leave_room").length, 2);
});

test("a deferred request of a lost socket is not sent on the next one", async (t) => {
  const { tick } = await enter(t);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("join_room", error("unavailable"));
  Socket.last.ends(1006);
  await Socket.again(tick, 1000);
  await tick(2000);
  assert.equal(Socket.last.of("join_room").length, 1);
});

test("a closed room does not affect a new membership, and an abandoned join is not sent later", async (t) => {
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

for (const before of [true, false]) {
  test(`a leave ${before ? "without a socket" : "that the socket did not survive"} resolves at once, and is made with the next one`, async (t) => {
    const { client, room, tick } = await enter(t, undefined, { joinedAt: 1000 });
    if (before) Socket.last.ends(1006);
    const leaving = room.leave();
    if (!before) Socket.last.ends(1006);
    await leaving;
    assert.deepEqual([room.status, client.rooms.size], ["closed", 0]);
    await Socket.again(tick);
    const [join, leave] = Socket.last.sent;
    assert.deepEqual([join.type, join.view, join.resume.joinedAt, leave.type], ["join_room", "none", 1000, "leave_room"]);
    Socket.last.answers("join_room", joined([], { view: "none" }));
    assert.equal(client.status, "connected");
    Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
    assert.equal(client.status, "idle");
    assert.ok(Socket.last.closed);
  });
}

test("a leave without a socket is forgotten after a while, when the client is closed, and when the room is joined again", async (t) => {
  const offline = async () => {
    const all = await enter(t);
    Socket.last.ends(1006);
    await all.room.leave();
    return all;
  };
  let { client, tick } = await offline();
  await tick(LEAVE_TIMEOUT);
  assert.equal(client.status, "idle");
  t.mock.timers.reset();
  t.mock.restoreAll();
  ({ client, tick } = await offline());
  client.close();
  await tick(60_000);
  assert.deepEqual([client.status, Socket.all.length], ["idle", 1]);
  t.mock.timers.reset();
  t.mock.restoreAll();
  ({ client, tick } = await offline());
  client.join("lobby", { userId: "me" });
  await settle();
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me")]));
  await tick(60_000);
  assert.equal(Socket.last.of("leave_room").length, 0);
  assert.equal(client.rooms.size, 1);
});

test("a room that is left without a socket, and joined as another user, is left before", async (t) => {
  const { client, room, tick } = await enter(t);
  Socket.last.ends(1006);
  await room.leave();
  const other = client.join("lobby", { userId: "you" });
  await Socket.again(tick);
  assert.deepEqual(Socket.last.sent.map(({ type, userId, roomId }) => [type, userId, roomId]), [
    ["join_room", "me", "lobby"], ["leave_room", undefined, "lobby"], ["join_room", "you", "lobby"],
  ]);
  const [back, leave, join] = Socket.last.sent.map(({ id }) => id);
  Socket.last.says({ ...joined([member("me")], { view: "none" }), id: back });
  Socket.last.says({ type: "room:left", roomId: "lobby", id: leave });
  Socket.last.says({ ...joined([member("you")], { userId: "you" }), id: join });
  assert.deepEqual([(await other).userId, client.status, room.status], ["you", "connected", "closed"]);
});

test("a leave of one of two rooms without a socket is made when the other returns", async (t) => {
  const { client, room, tick } = await enter(t);
  const second = client.join("den", { userId: "me" });
  await settle();
  Socket.last.answers("join_room", joined([member("me")], { roomId: "den" }));
  const den = await second;
  Socket.last.ends(1006);
  await room.leave();
  await Socket.again(tick);
  assert.deepEqual(Socket.last.sent.map(({ type, roomId }) => [type, roomId]), [
    ["join_room", "den"], ["join_room", "lobby"], ["leave_room", "lobby"],
  ]);
  Socket.last.answers("leave_room", error("unavailable"));
  await tick(2000);
  assert.equal(Socket.last.of("leave_room").length, 2);
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await tick(60_000);
  assert.equal(den.closed, false);
});

test("a join during a leave waits for it", async (t) => {
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

test("a signal cancels a join or leaves the room, and its listener is removed", async (t) => {
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


test("a join with a signal that is none is refused, and does not happen", async (t) => {
  const { client } = await enter(t);
  for (const signal of [new AbortController(), { addEventListener: 1 }, "signal", 5]) {
    await assert.rejects(client.join("den", { userId: "me", signal }), { code: "bad_request", message: /^signal: / });
  }
  await settle();
  assert.deepEqual([[...client.rooms.keys()], Socket.last.of("join_room").length], [["lobby"], 1]);
});

test("one signal for many joins has one listener", async (t) => {
  const { client, room } = await enter(t);
  const control = new AbortController();
  const warnings = [];
  const warned = (warning) => warnings.push(warning.name);
  process.on("warning", warned);
  for (let time = 0; time < 30; time += 1) {
    const again = client.join("lobby", { view: time % 2 ? "members" : "count", signal: control.signal });
    await settle();
    Socket.last.answers("join_room", joined([member("me"), member("ann")]));
    await again;
  }
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", warned);
  assert.ok(!warnings.includes("MaxListenersExceededWarning"));
  control.abort();
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  assert.equal(room.status, "closed");
});

test("unknown reasons, messages and fields of a later server are accepted", async (t) => {
  const { client, room, seen } = await enter(t);
  const problems = t.mock.method(console, "error", () => {});
  Socket.last.says({ type: "room:typing", roomId: "lobby", userId: "ann" });
  Socket.last.says({ type: "people:diff", changed: [] });
  Socket.last.says({ ...diff(5, { joined: [member("bob", { status: "busy" })] }), priority: 1 });
  Socket.last.says(diff(6, { left: [{ userId: "bob", reason: "banned", by: "moderator" }] }));
  assert.deepEqual(seen, ["join bob", "leave bob banned"]);
  const update = room.update(1);
  Socket.last.answers("room:update", { type: "room:updated", roomId: "lobby", version: 8, etag: "x" });
  await update;
  Socket.last.says({ type: "room:force-leave", roomId: "lobby", message: "Banned.", reason: "banned", timestamp: 5, until: 9 });
  assert.equal(seen.at(-2), "force-leave banned: Banned.");
  assert.equal(room.error.reason, "banned");
  assert.equal(client.rooms.size, 0);
  assert.equal(problems.mock.callCount(), 0);
});
