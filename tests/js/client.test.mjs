// The client: joining, heartbeats by the clock, and a socket that comes back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { REQUEST_TIMEOUT } from "../../reactor/js/client.js";
import { BACKOFF } from "../../reactor/js/connection.js";
import { HEARTBEAT, ReactorClient, Socket, begin, diff, enter, error, joined, member, settle } from "./fake.mjs";

test("a join opens one socket and resolves to the room", async (t) => {
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

test("without WebSocket the error says to pass one", () => {
  assert.throws(() => new ReactorClient("ws://here/ws", { WebSocket: null }), /no WebSocket: pass one/);
});

test("a time that is no number is refused, so that it cannot make a client reconnect without a pause", () => {
  for (const options of [{ requestTimeout: NaN }, { requestTimeout: "10" }, { backoff: { first: NaN } }, { backoff: { most: -1 } }]) {
    assert.throws(() => new ReactorClient("ws://here/ws", { WebSocket: Socket, ...options }), { code: "bad_request", message: /: milliseconds are needed, not/ });
  }
});

test("an invalid address rejects the join", async (t) => {
  class Picky {
    constructor() {
      throw new SyntaxError("The URL is invalid");
    }
  }
  const { client } = begin(t, { WebSocket: Picky });
  await assert.rejects(client.join("lobby", { userId: "me" }), { code: "closed", message: /The URL is invalid/ });
  assert.equal(client.status, "closed");
});

test("a refused join rejects with the code and closes the socket", async (t) => {
  const { client } = begin(t);
  const coming = client.join("lobby", { userId: "me" });
  await settle();
  Socket.last.opens();
  Socket.last.answers("join_room", error("room_full"));
  await assert.rejects(coming, { name: "ReactorError", code: "room_full", message: "because of room_full" });
  assert.equal(client.status, "idle");
  assert.ok(Socket.last.closed);
});

test("a join that fails while Redis is away is repeated", async (t) => {
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

test("heartbeats follow the clock", async (t) => {
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

test("after a sleep without timers, any message triggers what is due", async (t) => {
  const { client } = await enter(t);
  t.mock.timers.setTime(1_000_000 + 3 * HEARTBEAT);
  Socket.last.says(diff(5));
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
  Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
  t.mock.timers.setTime(1_000_000 + 5 * HEARTBEAT);
  client.tick();
  assert.equal(Socket.last.of("room:heartbeat").length, 2);
});

for (const minutes of [-10, 10]) {
  test(`a wall clock that is set by ${minutes} minutes hides no dead connection, and ends none that works`, async (t) => {
    const { client, clock, tick } = await enter(t);
    clock.set(minutes * 60_000);
    await tick(HEARTBEAT);
    assert.equal(Socket.last.of("room:heartbeat").length, 1);
    assert.equal(client.status, "connected");
    clock.set(minutes * 60_000);
    await tick(REQUEST_TIMEOUT - 1);
    assert.equal(client.status, "connected");
    await tick(1);
    assert.equal(client.status, "reconnecting");
    const wait = client.retryAt - Date.now();
    assert.ok(wait > 0 && wait <= BACKOFF.first, "the time of the next attempt is given by the present wall clock");
  });
}

test("after a sleep in which timers and the monotonic clock stopped, the connection is tested at the next timer", async (t) => {
  const { clock, tick } = await enter(t, undefined, { heartbeatInterval: 3_600_000 });
  clock.set(600_000);
  await tick(5000);
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

for (const name of ["visibilitychange", "online", "pageshow"]) {
  test(`${name}: a heartbeat at once, and no listener remains after close`, async (t) => {
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
    assert.equal(ears.size, 6);
    client.close();
    assert.equal(ears.size, 0);
  });
}

test("with silent set no heartbeat is sent", async (t) => {
  const { client, tick } = await enter(t);
  client.silent = true;
  await tick(10 * HEARTBEAT);
  client.wake();
  assert.equal(Socket.last.of("room:heartbeat").length, 0);
  client.silent = false;
  client.wake();
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

test("without an acknowledgement or any message the client reconnects", async (t) => {
  const { client, room, tick } = await enter(t);
  await tick(HEARTBEAT);
  await tick(REQUEST_TIMEOUT - 1);
  assert.equal(client.status, "connected");
  await tick(1);
  assert.equal(client.status, "reconnecting");
  assert.equal(room.status, "reconnecting");
  assert.ok(Socket.last.closed);
  await tick(BACKOFF.first);
  assert.equal(Socket.all.length, 2);
});

test("any message keeps the connection, and a server without Redis is waited for", async (t) => {
  const { client, room, tick } = await enter(t);
  await tick(HEARTBEAT);
  await tick(REQUEST_TIMEOUT - 1);
  Socket.last.says(diff(5));
  await tick(REQUEST_TIMEOUT - 1);
  assert.equal(client.status, "connected");
  const heartbeat = Socket.last.of("room:heartbeat").at(-1);
  Socket.last.says({ type: "service:degraded", reason: "" });
  await tick(REQUEST_TIMEOUT);
  for (let time = 1; time < 10; time += 1) {
    assert.equal(Socket.last.of("room:count").length, time);
    Socket.last.answers("room:count", error("unavailable"));
    await tick(HEARTBEAT);
    assert.deepEqual([client.status, room.status], ["degraded", "degraded"]);
  }
  Socket.last.says({ type: "room:heartbeat:ack", timestamp: 1, id: heartbeat.id });
  Socket.last.says({ type: "service:restored", reason: "" });
  assert.deepEqual([client.status, room.status], ["connected", "connected"]);
  Socket.last.says({ type: "service:degraded", reason: "" });
  Socket.last.answers("room:count", error("unavailable"));
  await tick(HEARTBEAT);
  await tick(REQUEST_TIMEOUT);
  assert.equal(client.status, "reconnecting", "one that does not answer is lost, with or without Redis");
});

test("the reconnect delay grows to a limit, with jitter", async (t) => {
  const { client, tick } = await enter(t);
  const pauses = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    Socket.last.ends(1006);
    pauses.push(client.retryAt - Date.now());
    await tick(pauses.at(-1));
    assert.equal(Socket.all.length, attempt + 2);
  }
  assert.deepEqual(pauses, [500, 1000, 2000, 4000, 5000, 5000, 5000, 5000]);
  const other = new ReactorClient("ws://here/ws", { WebSocket: Socket, random: () => 0, backoff: { first: 100 } });
  other.join("lobby", { userId: "me" });
  await settle();
  Socket.last.ends(1006);
  assert.equal(other.retryAt - Date.now(), 50);
});

test("only a stable connection resets the reconnect delay", async (t) => {
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

test("an attempt that does not open times out", async (t) => {
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

test("times of more than a timer takes, Infinity among them, are not over at once", async (t) => {
  const { client, tick } = await enter(t, undefined, {}, { backoff: { first: 2 ** 40, most: Infinity, timeout: Infinity } });
  Socket.last.ends(1006);
  await tick(86_400_000);
  assert.deepEqual([Socket.all.length, client.status], [1, "reconnecting"]);
  client.wake();
  await tick(86_400_000);
  assert.deepEqual([Socket.all.length, Socket.last.closed], [2, false]);
  Socket.last.opens();
  client.drop(2 ** 31);
  await tick(86_400_000);
  assert.equal(client.status, "reconnecting");
});

test("options that are none are refused by each method", async (t) => {
  const { client } = await enter(t);
  for (const options of [null, "ann", 7]) {
    await assert.rejects(client.join("lobby", options), { code: "bad_request" });
    await assert.rejects(client.online(options), { code: "bad_request" });
    assert.throws(() => client.watch("lobby", options), { code: "bad_request" });
  }
});

test("an answer of the server resets the reconnect delay, unless it closes because of what the client did", async (t) => {
  const { client, tick } = await enter(t);
  const back = async (delay) => {
    await Socket.again(tick, delay);
    Socket.last.answers("join_room", joined([member("me"), member("ann")]));
  };
  for (let time = 0; time < 3; time += 1) {
    Socket.last.ends(1012);
    assert.equal(client.retryAt - Date.now(), 500);
    await back(500);
  }
  for (const [code, delay] of [[4029, 1000], [4008, 2000], [1009, 4000], [1003, 5000], [1006, 500]]) {
    Socket.last.ends(code);
    assert.equal(client.retryAt - Date.now(), delay, String(code));
    await back(delay);
  }
});

test("a loss within a second of a wake starts the reconnect delay anew", async (t) => {
  const { client, tick } = await enter(t);
  for (const delay of [500, 1000, 2000]) {
    Socket.last.ends(1006);
    await tick(delay);
  }
  client.wake();
  await tick(900);
  Socket.last.ends(1006);
  assert.equal(client.retryAt - Date.now(), 500);
  await tick(500);
  Socket.last.ends(1006);
  assert.equal(client.retryAt - Date.now(), 1000);
});

test("an unknown event is an error that names the known ones", async (t) => {
  const { client, room } = await enter(t);
  assert.throws(() => room.on("joined", () => {}), /no event "joined": there are join, leave, /);
  assert.throws(() => client.on("state", () => {}), /there are status, error, connection-error/);
});

test("the server may ask for a heartbeat", async (t) => {
  await enter(t);
  Socket.last.says({ type: "room:heartbeat:due" });
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

// Pages.

function page(t) {
  const target = new EventTarget();
  globalThis.addEventListener = target.addEventListener.bind(target);
  globalThis.removeEventListener = target.removeEventListener.bind(target);
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });
  return (name, more) => target.dispatchEvent(Object.assign(new Event(name), more));
}

test("a page that is closed says so and closes its socket", async (t) => {
  const happens = page(t);
  await enter(t);
  happens("pagehide", { persisted: false });
  assert.deepEqual(Socket.last.sent.at(-1), { type: "closing" });
  assert.ok(Socket.last.closed);
});

test("a page that goes to the back/forward cache closes its socket, and is back as soon as it is shown", async (t) => {
  const happens = page(t);
  const { room } = await enter(t);
  happens("pagehide", { persisted: true });
  assert.equal(Socket.last.of("closing").length, 0);
  assert.ok(Socket.last.closed);
  assert.equal(room.status, "reconnecting");
  happens("visibilitychange");
  await settle();
  assert.equal(Socket.all.length, 1);
  happens("pageshow", { persisted: true });
  await settle();
  assert.equal(Socket.all.length, 2);
  Socket.last.opens();
  Socket.last.answers("join_room", joined([member("me"), member("ann")], { resumed: true }));
  assert.equal(room.status, "connected");
});

test("a page that was left and lives on reconnects by itself", async (t) => {
  const happens = page(t);
  const { tick } = await enter(t);
  happens("pagehide", { persisted: false });
  await tick(60_000);
  assert.equal(Socket.all.length, 2);
});

// Connections that fail.

test("an invalid message is ignored and logged", async (t) => {
  const { room } = await enter(t);
  const { mock } = t.mock.method(console, "error", () => {});
  Socket.last.onmessage({ data: "{" });
  assert.equal(mock.callCount(), 1);
  Socket.last.says(diff(5, { joined: [member("bob")] }));
  assert.equal(room.count, 3);
});

/** Let `fetch` answer with these statuses, one after the other; null: it fails. */
function answering(t, ...statuses) {
  const { mock } = t.mock.method(globalThis, "fetch", async () => {
    const status = statuses.shift();
    if (!status) throw new TypeError("failed");
    return { status };
  });
  return mock;
}

test("a connection that fails is reported, with the HTTP status of one request to its address", async (t) => {
  const { client, tick } = begin(t);
  const fetched = answering(t, 403, 404);
  const errors = [];
  client.on("connection-error", (error) => errors.push(error));
  client.join("lobby", { userId: "me" }).catch(() => {});
  await settle();
  Socket.last.ends(1006);
  await settle();
  assert.equal(errors[0].status, 403);
  assert.match(errors[0].message, /origin not allowed/);
  assert.equal(client.error, errors[0]);
  assert.equal(fetched.calls[0].arguments[0], "http://here/ws");
  await tick(500);
  Socket.last.ends(1006);
  await settle();
  assert.deepEqual([errors.length, errors[1].status, fetched.callCount()], [2, 403, 1]);
  await Socket.again(tick, 1000);
  assert.equal(client.error, null);
  Socket.last.ends(1006);
  await tick(2000);
  Socket.last.ends(1006);
  await settle();
  assert.equal(errors.at(-1).status, 404, "after a connection that opened it is asked again");
  assert.match(errors.at(-1).message, /its path is \/ws/);
});

test("a server that cannot be reached is reported without a status", async (t) => {
  const { client } = begin(t);
  client.join("lobby", { userId: "me" }).catch(() => {});
  await settle();
  Socket.last.ends(1006);
  await settle();
  assert.equal(client.error.code, "closed");
  assert.equal(client.error.status, undefined);
  assert.match(client.error.message, /cannot connect to ws:\/\/here\/ws/);
});

test("an error event without a close event, as where a policy forbids the connection, is a failure", async (t) => {
  const { client, tick } = begin(t);
  client.join("lobby", { userId: "me" }).catch(() => {});
  await settle();
  Socket.last.readyState = 3;
  Socket.last.onerror({});
  await tick(1);
  await settle();
  assert.match(client.error.message, /Content-Security-Policy/);
  await tick(500);
  assert.equal(Socket.all.length, 2);
});

test("close resets the reconnect delay", async (t) => {
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

test("requests without a room are repeated on new sockets, and the last reply closes the socket", async (t) => {
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

test("a request that is not answered in time is rejected, and the connection tested", async (t) => {
  const { client, room, tick } = await enter(t, undefined, {}, { requestTimeout: 3000 });
  const asked = client.request({ type: "room:count", roomId: "den" });
  const update = room.update(1);
  await tick(2999);
  Socket.last.says(diff(5));
  await tick(1);
  await assert.rejects(asked, { code: "timeout", message: /room:count/ });
  await assert.rejects(update, { code: "timeout" });
  assert.equal(Socket.last.of("room:heartbeat").length, 1, "as something was received meanwhile");
  Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
  const second = room.update(2);
  Socket.last.answers("room:update", { type: "room:updated", roomId: "lobby", version: 7 });
  await second;
});

test("a first join that is not answered in time is rejected, and taken back", async (t) => {
  const { client, tick } = begin(t);
  const coming = client.join("lobby", { userId: "me" });
  await settle();
  Socket.last.opens();
  await tick(REQUEST_TIMEOUT);
  await assert.rejects(coming, { code: "timeout" });
  assert.equal(Socket.last.of("leave_room").length, 1);
});

test("an error without an id answers the oldest open request, of its room if it names one", async (t) => {
  const { client, room } = await enter(t);
  const [first, second] = [client.request({ type: "room:count", roomId: "a" }), client.request({ type: "room:count", roomId: "b" })];
  const update = room.update(1);
  Socket.last.says({ ...error("forbidden"), roomId: "lobby" });
  Socket.last.says(error("bad_json"));
  await assert.rejects(update, { code: "forbidden" });
  await assert.rejects(first, { code: "bad_json" });
  Socket.last.says(error("bad_json"));
  await assert.rejects(second, { code: "bad_json" });
});

test("close leaves the rooms, and no timer, socket or request remains", async (t) => {
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

test("what a listener begins while the client closes, or is ended, gets a connection of its own", async (t) => {
  for (const end of ["close", "4001"]) {
    const { client, room, tick } = await enter(t);
    const watched = client.watch("den");
    await settle();
    let again;
    watched.on("status", (status) => {
      if (status === "closed") again = client.watch("hall");
    });
    if (end === "close") client.close();
    else Socket.last.ends(4001);
    await settle();
    assert.deepEqual([room.status, watched.status, again.status, Socket.all.length], ["closed", "closed", "connecting", 2], end);
    Socket.last.opens();
    assert.deepEqual(Socket.last.sent.map(({ type, roomId }) => [type, roomId]), [["room:watch", "hall"]]);
    Socket.last.ends(1006);
    assert.equal(client.status, "reconnecting");
    client.close();
    await tick(60_000);
    assert.deepEqual([again.status, client.status, Socket.all.length], ["closed", "idle", 2]);
    t.mock.timers.reset();
    t.mock.reset();
  }
});

test("another codec is negotiated by its subprotocol", async (t) => {
  const codec = { subprotocol: "reactor.up", encode: (m) => JSON.stringify(m), decode: (data) => JSON.parse(data) };
  const { room } = await enter(t, undefined, {}, { codec });
  assert.deepEqual(Socket.last.protocols, ["reactor.up"]);
  assert.equal(room.count, 2);
});
