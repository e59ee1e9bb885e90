// The client: joining, heartbeats by the clock, tokens, and a socket that comes back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { SILENCE } from "../../reactor/js/client.js";
import { BACKOFF } from "../../reactor/js/link.js";
import { HEARTBEAT, ReactorClient, Socket, begin, diff, enter, error, joined, member, settle } from "./fake.mjs";

test("joins over one socket, and gives the room", async (t) => {
  const { room, client } = await enter(t);
  assert.equal(Socket.last.url, "ws://here/ws");
  assert.deepEqual(Socket.last.protocols, ["reactor.json"]);
  const [request] = Socket.last.sent;
  assert.deepEqual({ ...request, id: 0 }, { type: "join_room", roomId: "lobby", userId: "me", username: "Me", id: 0 });
  assert.deepEqual([...room.members.keys()], ["me", "ann"]);
  assert.equal(room.me.userId, "me");
  assert.deepEqual(room.others, [member("ann")]);
  assert.equal(room.count, 2);
  assert.equal(client.status, "connected");
  const den = client.join(7, { userId: 1 });
  await settle();
  assert.equal(Socket.all.length, 1);
  Socket.last.answers("join_room", joined([member("1")], { roomId: "7", userId: "1" }));
  assert.equal((await den).id, "7");
  assert.equal((await den).userId, "1");
});

test("joining again as the same user changes what is given; another user needs another client", async (t) => {
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

test("a platform without WebSocket gets one clear line", () => {
  assert.throws(() => new ReactorClient("ws://here/ws", { WebSocket: null }), /no WebSocket: pass one/);
});

test("an address that is none ends the join", async (t) => {
  class Picky {
    constructor() {
      throw new SyntaxError("The URL is invalid");
    }
  }
  const { client } = begin(t, { WebSocket: Picky });
  await assert.rejects(client.join("lobby", { userId: "me" }), { code: "closed", message: /The URL is invalid/ });
  assert.equal(client.status, "closed");
});

test("a refused join rejects with the code, and lets the socket go", async (t) => {
  const { client } = begin(t);
  const coming = client.join("lobby", { userId: "me" });
  await settle();
  Socket.last.opens();
  Socket.last.answers("join_room", error("room_full"));
  await assert.rejects(coming, { name: "ReactorError", code: "room_full", message: "because of room_full" });
  assert.equal(client.status, "idle");
  assert.ok(Socket.last.closed);
});

test("a join that Redis could not take is asked again", async (t) => {
  const { client, tick } = begin(t);
  const coming = client.join("lobby", { userId: "me" });
  await settle();
  Socket.last.opens();
  Socket.last.answers("join_room", error("unavailable"));
  assert.equal(client.status, "degraded");
  await tick(2000);
  assert.equal(Socket.last.of("join_room").length, 2);
  Socket.last.answers("join_room", error("unavailable"));
  Socket.last.says({ type: "service:restored", reason: "" });
  assert.equal(Socket.last.of("join_room").length, 3);
  await tick(9000);
  assert.equal(Socket.last.of("join_room").length, 3, "asked once, by whichever came first");
  Socket.last.answers("join_room", joined([member("me")]));
  await coming;
  assert.equal(client.status, "connected");
});

test("heartbeats go by the clock", async (t) => {
  const { tick } = await enter(t);
  await tick(HEARTBEAT - 1);
  assert.equal(Socket.last.of("room:heartbeat").length, 0);
  await tick(1);
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
  await tick(7);
  Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
  await tick(HEARTBEAT);
  assert.equal(Socket.last.of("room:heartbeat").length, 2);
  Socket.last.answers("room:heartbeat", error("too_many_requests"));
  await tick(HEARTBEAT);
  assert.equal(Socket.last.of("room:heartbeat").length, 3, "a refused one is no end of them");
});

test("after a sleep in which no timer ran, whatever comes sends what is due", async (t) => {
  const { client } = await enter(t);
  t.mock.timers.setTime(1_000_000 + 3 * HEARTBEAT);
  Socket.last.says(diff(5));
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
  Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
  t.mock.timers.setTime(1_000_000 + 5 * HEARTBEAT);
  client.tick();
  assert.equal(Socket.last.of("room:heartbeat").length, 2);
});

test("a clock that was set back silences nobody", async (t) => {
  const { client } = await enter(t);
  t.mock.timers.setTime(1);
  client.tick();
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

for (const name of ["visibilitychange", "online", "pageshow"]) {
  test(`${name}: a heartbeat at once, and no ear is left behind`, async (t) => {
    const page = new EventTarget();
    const ears = new Set();
    globalThis.addEventListener = (...given) => (ears.add(String(given)), page.addEventListener(...given));
    globalThis.removeEventListener = (...given) => (ears.delete(String(given)), page.removeEventListener(...given));
    t.after(() => {
      delete globalThis.addEventListener;
      delete globalThis.removeEventListener;
    });
    const { client, tick } = await enter(t);
    page.dispatchEvent(new Event(name));
    assert.equal(Socket.last.of("room:heartbeat").length, 1);
    Socket.last.ends(1006);
    assert.equal(client.status, "reconnecting");
    page.dispatchEvent(new Event(name));
    await settle();
    assert.equal(Socket.all.length, 2, "and a lost socket comes back at once");
    client.drop(Infinity);
    page.dispatchEvent(new Event(name));
    await settle();
    await tick(1_000_000);
    assert.equal(Socket.all.length, 2, "unless one stays away on purpose");
    client.wake();
    await settle();
    assert.equal(Socket.all.length, 3);
    assert.equal(ears.size, 4);
    client.close();
    assert.equal(ears.size, 0);
  });
}

test("silent on purpose: no heartbeat, until told otherwise", async (t) => {
  const { client, tick } = await enter(t);
  client.silent = true;
  await tick(10 * HEARTBEAT);
  client.wake();
  assert.equal(Socket.last.of("room:heartbeat").length, 0);
  client.silent = false;
  client.wake();
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

test("no acknowledgement and no word is a lost network: another socket, by itself", async (t) => {
  const { client, room, tick } = await enter(t);
  await tick(HEARTBEAT);
  await tick(SILENCE - 1);
  assert.equal(client.status, "connected");
  await tick(1);
  assert.equal(client.status, "reconnecting");
  assert.equal(room.status, "reconnecting");
  assert.ok(Socket.last.closed);
  await tick(BACKOFF.first);
  assert.equal(Socket.all.length, 2);
});

test("a server that speaks is alive, and one without Redis is waited for", async (t) => {
  const { client, room, tick } = await enter(t);
  await tick(HEARTBEAT);
  await tick(SILENCE - 1);
  Socket.last.says(diff(5));
  await tick(SILENCE - 1);
  assert.equal(client.status, "connected");
  Socket.last.says({ type: "service:degraded", reason: "" });
  await tick(10 * SILENCE);
  assert.deepEqual([client.status, room.status], ["degraded", "degraded"]);
  Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
  assert.deepEqual([client.status, room.status], ["connected", "connected"]);
});

test("the pauses between attempts grow to a limit, with chance in them", async (t) => {
  const { client, tick } = await enter(t);
  const pauses = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    Socket.last.ends(1006);
    pauses.push(client.retryAt - Date.now());
    await tick(pauses.at(-1));
    assert.equal(Socket.all.length, attempt + 2);
  }
  assert.deepEqual(pauses, [500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000]);
  const other = new ReactorClient("ws://here/ws", { WebSocket: Socket, random: () => 0, backoff: { first: 100 } });
  other.join("lobby", { userId: "me" });
  await settle();
  Socket.last.ends(1006);
  assert.equal(other.retryAt - Date.now(), 50);
});

test("only a connection that held makes the pauses short again", async (t) => {
  const { client, tick } = await enter(t);
  for (const expected of [500, 1000, 2000]) {
    Socket.last.ends(1012);
    assert.equal(client.retryAt - Date.now(), expected);
    await Socket.again(tick, expected);
  }
  await tick(BACKOFF.steady);
  Socket.last.ends(1012);
  assert.equal(client.retryAt - Date.now(), 500);
});

test("an attempt that opens nothing is given up", async (t) => {
  const { client, tick } = await enter(t);
  Socket.last.ends(1006);
  await tick(500);
  const stuck = Socket.last;
  await tick(BACKOFF.timeout);
  assert.ok(stuck.closed);
  assert.equal(client.status, "reconnecting");
  stuck.onopen?.();
  assert.equal(client.status, "reconnecting");
});

test("a message that is none is passed over, and reported", async (t) => {
  const { room } = await enter(t);
  const { mock } = t.mock.method(console, "error", () => {});
  Socket.last.onmessage({ data: "{" });
  assert.equal(mock.callCount(), 1);
  Socket.last.says(diff(5, { joined: [member("bob")] }));
  assert.equal(room.count, 3);
});

// Tokens.

const ok = (expiresAt) => ({ type: "auth:ok", userId: "me", expiresAt });

test("the token goes first; what follows does not wait for the answer", async (t) => {
  const { client } = begin(t, { token: "abc" });
  const coming = client.join("lobby");
  await settle();
  Socket.last.opens();
  assert.deepEqual(Socket.last.sent.map(({ type, token, userId }) => [type, token, userId]), [
    ["auth", "abc", undefined],
    ["join_room", undefined, undefined],
  ]);
  Socket.last.answers("auth", ok(2_000_000));
  Socket.last.answers("join_room", joined([member("me")]));
  assert.equal((await coming).me.userId, "me");
  assert.equal(client.userId, "me");
});

test("a server that asks for no token says so, and nothing is wrong", async (t) => {
  const { client } = await enter(t, undefined, {}, { token: "abc" });
  Socket.last.answers("auth", error("auth_disabled"));
  assert.equal(client.status, "connected");
});

test("a token that is not taken ends it, where no other can be had", async (t) => {
  const { client, tick } = begin(t, { token: "abc" });
  const coming = client.join("lobby");
  await settle();
  Socket.last.opens();
  Socket.last.answers("auth", error("unauthorized"));
  Socket.last.ends(4001, "unauthorized");
  await assert.rejects(coming, { code: "closed", closeCode: 4001 });
  assert.equal(client.status, "closed");
  await tick(60_000);
  assert.equal(Socket.all.length, 1);
});

test("a getter is asked at each connecting, again on 4001, and gives up when a fresh one is refused, too", async (t) => {
  let number = 0;
  const { client, tick } = begin(t, { token: async () => `token ${(number += 1)}` });
  const coming = client.join("lobby", { userId: "me" });
  coming.catch(() => {});
  await settle();
  Socket.last.opens();
  Socket.last.ends(4001);
  await Socket.again(tick);
  assert.equal(Socket.last.of("auth")[0].token, "token 2");
  Socket.last.answers("auth", ok(0));
  Socket.last.answers("join_room", joined([member("me")]));
  await coming;
  Socket.last.ends(4001);
  await Socket.again(tick, 1000);
  assert.equal(Socket.last.of("auth")[0].token, "token 3");
  Socket.last.ends(4001);
  assert.equal(client.status, "closed");
  assert.equal(client.error.closeCode, 4001);
});

test("a getter is asked again before the token runs out", async (t) => {
  let number = 0;
  const { tick } = await enter(t, undefined, { heartbeatInterval: 1e9, ttl: 1e10 }, { token: () => `token ${(number += 1)}` });
  Socket.last.answers("auth", ok(Date.now() + 600_000));
  await tick(539_999);
  assert.equal(Socket.last.of("auth").length, 1);
  await tick(1);
  assert.deepEqual(Socket.last.of("auth").map(({ token }) => token), ["token 1", "token 2"]);
  Socket.last.answers("auth", ok(Date.now() + 20_000));
  await tick(10_000);
  assert.equal(Socket.last.of("auth").length, 3);
  Socket.last.answers("auth", ok(1));
  await tick(600_000);
  assert.equal(Socket.last.of("auth").length, 3, "by a wrong clock no token is asked for again and again");
  Socket.last.says({ type: "error", code: "token_expired", message: "" });
  await settle();
  assert.equal(Socket.last.of("auth").length, 4, "the server says when it is time");
});

test("a getter that fails is asked again, and the reason is told", async (t) => {
  let fails = 1;
  const token = () => (fails-- > 0 ? Promise.reject(new Error("no session")) : "abc");
  const { client, tick } = begin(t, { token });
  client.join("lobby");
  await settle();
  assert.equal(client.error.message, "no session");
  assert.equal(client.status, "connecting");
  await Socket.again(tick);
  assert.equal(Socket.last.of("auth")[0].token, "abc");
  assert.equal(client.error, null);
});

test("a token that comes when nobody waits for it any more opens nothing", async (t) => {
  for (const outcome of [(take) => take("abc"), (_, fail) => fail(new Error("no session"))]) {
    let settleToken;
    const token = () => new Promise((take, fail) => (settleToken = () => outcome(take, fail)));
    const { client, tick } = begin(t, { token });
    client.join("lobby").catch(() => {});
    await settle();
    client.close();
    settleToken();
    await tick(60_000);
    assert.deepEqual([Socket.all.length, client.status], [0, "idle"]);
    t.mock.timers.reset();
  }
});

test("after a close the pauses begin anew", async (t) => {
  const { client, tick } = await enter(t);
  Socket.last.ends(1006);
  await tick(500);
  Socket.last.ends(1006);
  client.close();
  client.join("lobby", { userId: "me" });
  await settle();
  Socket.last.ends(1006);
  assert.equal(client.retryAt - Date.now(), 500);
});

// Requests, and the end.

test("questions are asked without a room, over however many sockets, and the socket goes with the last answer", async (t) => {
  const { client, tick } = begin(t);
  const asked = client.request({ type: "room:count", roomId: "den" });
  await settle();
  Socket.last.opens();
  assert.equal(Socket.last.of("room:count").length, 1);
  Socket.last.ends(1006);
  await Socket.again(tick);
  Socket.last.answers("room:count", error("unavailable"));
  await tick(2000);
  Socket.last.answers("room:count", { type: "room:count", roomId: "den", epoch: "e", version: 3, count: 9 });
  assert.equal((await asked).count, 9);
  assert.equal(client.status, "idle");
  const refused = client.request({ type: "room:count", roomId: "" });
  await settle();
  Socket.last.opens();
  Socket.last.answers("room:count", error("bad_id"));
  await assert.rejects(refused, { code: "bad_id" });
});

test("closing leaves, and then nothing is left: no timer, no socket, no wish", async (t) => {
  const { client, room, seen, tick } = await enter(t);
  const asked = client.request({ type: "room:count", roomId: "den" });
  client.close();
  assert.equal(Socket.last.sent.at(-1).type, "leave_room");
  await assert.rejects(asked, { code: "closed" });
  await tick(10 * HEARTBEAT);
  assert.deepEqual(seen, ["closed"]);
  assert.equal(room.error, null);
  assert.ok(Socket.last.closed);
  assert.equal(Socket.all.length, 1);
  const coming = client.join("lobby", { userId: "me" });
  await settle();
  assert.equal(client.status, "connecting");
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me")]));
  assert.notEqual(await coming, room, "but one may join anew");
  client.close({ leave: false });
  assert.equal(Socket.last.of("leave_room").length, 0);
});

test("another encoding goes by its subprotocol", async (t) => {
  const codec = { subprotocol: "reactor.up", encode: (m) => JSON.stringify(m), decode: (data) => JSON.parse(data) };
  const { room } = await enter(t, undefined, {}, { codec });
  assert.deepEqual(Socket.last.protocols, ["reactor.up"]);
  assert.equal(room.count, 2);
});
