// The client on a socket and a clock of the test's own: what a browser cannot show in a short time.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { ReactorClient, SILENCE } from "../../reactor/web/client.js";
import { BACKOFF } from "../../reactor/web/link.js";

const HEARTBEAT = 25_000;
const TTL = 21_600_000;

class Socket {
  static all = [];
  static get last() {
    return Socket.all[Socket.all.length - 1];
  }

  constructor(url, protocols) {
    Object.assign(this, { url, protocols, sent: [], closed: false });
    Socket.all.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  opens() {
    this.onopen();
  }

  says(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  ends(code, reason = "") {
    this.onclose?.({ code, reason });
  }

  of(type) {
    return this.sent.filter((message) => message.type === type);
  }

  answers(type, reply) {
    const { id } = this.of(type).at(-1);
    this.says({ ...reply, id });
  }
}

const member = (userId, more = {}) => ({
  userId, username: userId, joinedAt: 1000, lastActiveAt: 1000, away: false, connections: 1, ...more,
});
const joined = (members, more = {}) => ({
  type: "room:joined", roomId: "lobby", userId: "me", socketId: "n.1", ttl: TTL, heartbeatInterval: HEARTBEAT,
  resumed: false, epoch: "e", version: 5, count: members.length, view: "members", members, ...more,
});
const diff = (from, more = {}) => ({
  type: "room:diff", roomId: "lobby", epoch: "e", from, version: from + 1, count: 2, joined: [], updated: [], left: [],
  ...more,
});
const error = (code) => ({ type: "error", code, message: `because of ${code}` });


beforeEach(() => {
  Socket.all = [];
});

function begin(t, options = {}) {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  const client = new ReactorClient("ws://here/ws", { WebSocket: Socket, random: () => 1, ...options });
  const seen = { changes: [], ends: [], refused: [], syncs: 0, counts: [] };
  return { client, seen, tick: (ms) => t.mock.timers.tick(ms) };
}

function watch(room, seen) {
  room.on("change", (change) => seen.changes.push(change));
  room.on("force-leave", (end) => seen.ends.push(end));
  room.on("refused", (why) => seen.refused.push(why));
  room.on("sync", () => (seen.syncs += 1));
  room.on("count", (count) => seen.counts.push(count));
}

async function enter(t, members = [member("me"), member("ann")], more = {}) {
  const all = begin(t);
  const coming = all.client.join("lobby", { userId: "me", username: "Me" });
  Socket.last.opens();
  Socket.last.answers("join_room", joined(members, more));
  const room = await coming;
  watch(room, all.seen);
  return { ...all, room };
}

test("joins over one socket, and gives the room", async (t) => {
  const { room, client } = await enter(t);
  assert.equal(Socket.last.url, "ws://here/ws");
  assert.deepEqual(Socket.last.protocols, ["reactor.json"]);
  const [request] = Socket.last.of("join_room");
  assert.deepEqual({ ...request, id: 0 }, { type: "join_room", roomId: "lobby", userId: "me", username: "Me", view: "members", id: 0 });
  assert.deepEqual([...room.members.keys()], ["me", "ann"]);
  assert.equal(room.me.userId, "me");
  assert.equal(room.count, 2);
  assert.equal(client.status, "open");
  await assert.rejects(client.join("lobby", { userId: "me" }), { code: "already_joined" });
});

test("a platform without WebSocket gets one clear line", () => {
  assert.throws(() => new ReactorClient("ws://here/ws", { WebSocket: null }), /no WebSocket here: pass one/);
});

test("a refused join rejects with the code, and lets the socket go", async (t) => {
  const { client } = begin(t);
  const coming = client.join("lobby", { userId: "me" });
  Socket.last.opens();
  Socket.last.answers("join_room", error("room_full"));
  await assert.rejects(coming, { code: "room_full", message: "because of room_full" });
  assert.equal(client.status, "closed");
  assert.ok(Socket.last.closed);
});

test("a join that Redis could not take is asked again", async (t) => {
  const { client, tick } = begin(t);
  const coming = client.join("lobby", { userId: "me" });
  Socket.last.opens();
  Socket.last.answers("join_room", error("unavailable"));
  assert.equal(client.degraded, true);
  tick(2000);
  assert.equal(Socket.last.of("join_room").length, 2);
  Socket.last.answers("join_room", error("unavailable"));
  Socket.last.says({ type: "service:restored", reason: "" });
  assert.equal(Socket.last.of("join_room").length, 3);
  tick(10_000);
  assert.equal(Socket.last.of("join_room").length, 3, "asked once, by whichever came first");
  Socket.last.answers("join_room", joined([member("me")]));
  await coming;
  assert.equal(client.degraded, false);
});

test("heartbeats go by the clock, and each acknowledgement starts the TTL anew", async (t) => {
  const { room, client, tick } = await enter(t);
  const trips = [];
  client.on("heartbeat", ({ roundTrip }) => trips.push(roundTrip));
  tick(HEARTBEAT - 1);
  assert.equal(Socket.last.of("room:heartbeat").length, 0);
  tick(1);
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
  tick(7);
  assert.equal(room.refreshedAt, 1_000_000);
  Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
  assert.equal(room.refreshedAt, 1_000_000 + HEARTBEAT + 7);
  assert.equal(trips.length, 1);
  tick(HEARTBEAT);
  assert.equal(Socket.last.of("room:heartbeat").length, 2);
});

test("a room with a short TTL is beaten for three times in it", async (t) => {
  const { tick } = await enter(t, [member("me")], { ttl: 9000 });
  tick(2999);
  assert.equal(Socket.last.of("room:heartbeat").length, 0);
  tick(1);
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

test("after a sleep in which no timer ran, waking sends what is due", async (t) => {
  const { client } = await enter(t);
  t.mock.timers.setTime(1_000_000 + 3 * HEARTBEAT);
  client.wake();
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

test("silent on purpose: no heartbeat, until told otherwise", async (t) => {
  const { client, tick } = await enter(t);
  client.setHeartbeats(false);
  tick(10 * HEARTBEAT);
  client.wake({ network: true });
  assert.equal(Socket.last.of("room:heartbeat").length, 0);
  client.setHeartbeats(true);
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

test("no acknowledgement and no word is a lost network: another socket, by itself", async (t) => {
  const { client, room, tick } = await enter(t);
  tick(HEARTBEAT);
  tick(SILENCE - 1);
  assert.equal(client.status, "open");
  tick(1);
  assert.equal(client.status, "waiting");
  assert.equal(room.status, "interrupted");
  assert.ok(Socket.last.closed);
  tick(BACKOFF.first);
  assert.equal(Socket.all.length, 2);
});

test("a server that speaks is alive, and one without Redis is waited for", async (t) => {
  const { client, tick } = await enter(t);
  tick(HEARTBEAT);
  tick(SILENCE - 1);
  Socket.last.says(diff(5));
  tick(SILENCE - 1);
  assert.equal(client.status, "open");
  Socket.last.says({ type: "service:degraded", reason: "" });
  tick(10 * SILENCE);
  assert.equal(client.status, "open");
  assert.equal(client.degraded, true);
  Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
  assert.equal(client.degraded, false);
});

test("the pauses between attempts grow to a limit, with chance in them", async (t) => {
  const { client, tick } = await enter(t);
  const pauses = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    Socket.last.ends(1006);
    pauses.push(client.retryAt - Date.now());
    tick(pauses.at(-1));
    assert.equal(Socket.all.length, attempt + 2);
  }
  assert.deepEqual(pauses, [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
  const other = new ReactorClient("ws://here/ws", { WebSocket: Socket, random: () => 0 });
  other.join("lobby", { userId: "me" });
  Socket.last.ends(1006);
  assert.equal(other.retryAt - Date.now(), 250);
});

test("only a connection that held makes the pauses short again", async (t) => {
  const { client, tick } = await enter(t);
  for (const expected of [500, 1000, 2000]) {
    Socket.last.ends(1012);
    assert.equal(client.retryAt - Date.now(), expected);
    tick(expected);
    Socket.last.opens();
  }
  tick(BACKOFF.steadyAfter);
  Socket.last.ends(1012);
  assert.equal(client.retryAt - Date.now(), 500);
});

test("an attempt that opens nothing is given up", async (t) => {
  const { client, tick } = await enter(t);
  Socket.last.ends(1006);
  tick(500);
  const stuck = Socket.last;
  tick(BACKOFF.connectTimeout);
  assert.ok(stuck.closed);
  assert.equal(client.status, "waiting");
  stuck.onopen?.();
  assert.equal(client.status, "waiting");
});

test("news of the network cuts the pause short, unless one stays away on purpose", async (t) => {
  const { client } = await enter(t);
  Socket.last.ends(1006);
  client.wake({ network: true });
  assert.equal(Socket.all.length, 2);
  client.drop(Infinity);
  client.wake({ network: true });
  assert.equal(Socket.all.length, 2);
  client.reconnect();
  assert.equal(Socket.all.length, 3);
});

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
