// The client: joining, heartbeats by the clock, and a socket that comes back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ReactorClient, SILENCE } from "../../reactor/web/client.js";
import { BACKOFF } from "../../reactor/web/link.js";
import { HEARTBEAT, Socket, begin, diff, enter, error, joined, member } from "./fake.mjs";

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
