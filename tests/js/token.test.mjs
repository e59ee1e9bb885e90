// Tokens: said first, asked for again, and renewed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Socket, begin, enter, error, joined, member, settle } from "./fake.mjs";

const ok = (expiresAt) => ({ type: "auth:ok", userId: "me", expiresAt });

test("the token is sent first; requests do not wait for its reply", async (t) => {
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

test("a server without authentication ignores the token", async (t) => {
  const { client } = await enter(t, undefined, {}, { token: "abc" });
  Socket.last.answers("auth", error("auth_disabled"));
  assert.equal(client.status, "connected");
});

test("a rejected token closes the client if it is not a function", async (t) => {
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

test("a token function is called at each connect and after 4001, and the client closes when a new token is rejected too", async (t) => {
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

test("a token function is called again before the token expires", async (t) => {
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

test("a token function that fails is called again, and the error is reported", async (t) => {
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

test("the time to renew is the server's, whatever the wall clock says", async (t) => {
  for (const hours of [-1, 1]) {
    let number = 0;
    const { clock, tick } = await enter(t, undefined, { heartbeatInterval: 1e9, ttl: 1e10 }, { token: () => `token ${(number += 1)}` });
    clock.set(hours * 3_600_000);
    Socket.last.answers("auth", { ...ok(1_600_000), expiresIn: 600_000 });
    await tick(5000);
    if (hours > 0) Socket.last.answers("room:heartbeat", { type: "room:heartbeat:ack", timestamp: 1 });
    await tick(534_999);
    assert.equal(number, 1);
    await tick(1);
    assert.equal(number, 2);
    t.mock.timers.reset();
    t.mock.restoreAll();
  }
});

test("a clock that is ahead by nearly a token's life does not ask for tokens without end", async (t) => {
  let number = 0;
  const { tick } = await enter(t, undefined, {}, { token: () => `token ${(number += 1)}` });
  for (let second = 0; second < 60; second += 1) {
    for (const { id } of Socket.last.of("auth")) Socket.last.says({ ...ok(Date.now() + 1500), id });
    Socket.last.says({ type: "error", code: "token_expired", message: "" });
    await tick(1000);
  }
  assert.ok(number <= 14, `${number} tokens in a minute`);
});

test("a token function can end the client: by an error that says permanent, or by null", async (t) => {
  const permanent = Object.assign(new Error("signed out"), { permanent: true });
  for (const token of [() => null, async () => null, () => { throw permanent; }, () => Promise.reject(permanent)]) {
    const { client, tick } = begin(t, { token });
    const errors = [];
    client.on("error", (error) => errors.push(error));
    const coming = client.join("lobby");
    await assert.rejects(coming, { name: "ReactorError", code: "closed", message: /signed out|returned null/ });
    await tick(60_000);
    assert.deepEqual([client.status, errors.length, Socket.all.length], ["closed", 1, 0]);
    assert.equal(client.error, errors[0]);
    t.mock.timers.reset();
    t.mock.restoreAll();
  }
});

test("a token function that ends the client at a renewal closes its rooms", async (t) => {
  let token = "abc";
  const { client, room, tick } = await enter(t, undefined, {}, { token: () => token });
  Socket.last.answers("auth", { ...ok(0), expiresIn: 20_000 });
  token = null;
  await tick(10_000);
  assert.deepEqual([client.status, room.status, room.error.message], ["closed", "closed", "the token function returned null"]);
});

test("each failure of the token function is an error event", async (t) => {
  const { client, tick } = begin(t, { token: () => Promise.reject(new Error("no session")) });
  const errors = [];
  client.on("error", ({ message }) => errors.push(message));
  client.join("lobby").catch(() => {});
  await settle();
  await tick(500);
  assert.deepEqual(errors, ["no session", "no session"]);
});

test("a token function that fails while connected is called again, and the error is shown until it succeeds", async (t) => {
  const tokens = ["one", null, "two"];
  const token = () => tokens.shift() ?? Promise.reject(new Error("no session"));
  const { client, tick } = await enter(t, undefined, {}, { token });
  Socket.last.answers("auth", { ...ok(0), expiresIn: 40_000 });
  await tick(20_000);
  assert.deepEqual([client.error.message, client.status], ["no session", "connected"]);
  await tick(10_000);
  Socket.last.answers("auth", { ...ok(0), expiresIn: 40_000 });
  assert.equal(client.error, null);
});

test("what a token function returns or throws that is no token is an error with a sentence, and it is called again", async (t) => {
  const cases = [
    [() => 0, "the token function returned number, not a token"],
    [() => false, "the token function returned boolean, not a token"],
    [() => ({ token: "abc" }), "the token function returned object, not a token"],
    [() => Symbol("x"), "the token function returned symbol, not a token"],
    [() => { throw "no session"; }, "the token function failed: no session"],
    [() => { throw null; }, "the token function failed: null"],
    [() => { throw { message: "no session" }; }, "the token function failed: no session"],
    [() => Promise.reject(), "the token function failed: undefined"],
    [() => Promise.reject(Object.create(null)), "the token function failed: an object"],
  ];
  for (const [fails, message] of cases) {
    let calls = 0;
    const { client, tick } = begin(t, { token: () => (calls++ ? "abc" : fails()) });
    const errors = [];
    client.on("error", (error) => errors.push(error.message));
    client.join("lobby").catch(() => {});
    await settle();
    assert.deepEqual([errors, client.error.message, Socket.all.length], [[message], message, 0]);
    await Socket.again(tick);
    assert.deepEqual([Socket.last.of("auth")[0].token, client.error], ["abc", null]);
    t.mock.timers.reset();
    t.mock.restoreAll();
  }
});

test("whatever is thrown can say that it is permanent", async (t) => {
  const { client } = begin(t, { token: () => Promise.reject({ permanent: true, message: "signed out" }) });
  await assert.rejects(client.join("lobby"), { code: "closed", permanent: true, message: "the token function failed: signed out" });
  assert.equal(client.status, "closed");
});

test("a token function that does not return is an error that says so, and is called again", async (t) => {
  const late = [];
  const { client, tick } = begin(t, { token: () => new Promise((resolve) => late.push(resolve)) });
  const errors = [];
  client.on("error", (error) => errors.push(error.message));
  client.on("connection-error", (error) => errors.push(error.message));
  client.join("lobby").catch(() => {});
  await settle();
  await tick(10_000);
  assert.deepEqual(errors, ["the token function has not returned within 10000 ms"]);
  await tick(500);
  late[0]("old");
  late[1]("new");
  await settle();
  Socket.last.opens();
  assert.deepEqual([Socket.all.length, Socket.last.of("auth")[0].token], [1, "new"]);
});

test("a token function that does not return at a renewal is an error that says so, and is called again", async (t) => {
  const late = [];
  let number = 0;
  const token = () => (number++ ? new Promise((resolve) => late.push(resolve)) : "first");
  const { client, tick } = await enter(t, undefined, { heartbeatInterval: 1e9, ttl: 1e10 }, { token });
  const errors = [];
  client.on("error", (error) => errors.push(error.message));
  Socket.last.answers("auth", { ...ok(), expiresIn: 600_000 });
  await tick(540_000);
  assert.deepEqual([late.length, errors.length], [1, 0]);
  await tick(10_000);
  assert.deepEqual(errors, ["the token function has not returned within 10000 ms"]);
  assert.equal(client.error.code, "timeout");
  await tick(10_000);
  late[0]("too late");
  late[1]("renewed");
  await settle();
  assert.deepEqual(Socket.last.of("auth").map(({ token: sent }) => sent), ["first", "renewed"]);
  Socket.last.answers("auth", { ...ok(), expiresIn: 600_000 });
  assert.deepEqual([client.error, client.status, Socket.all.length], [null, "connected", 1]);
  await tick(60_000);
  assert.equal(errors.length, 1);
});

test("the token and the socket share the time of an attempt", async (t) => {
  let give;
  const { client, tick } = begin(t, { token: () => new Promise((resolve) => (give = resolve)) });
  client.join("lobby").catch(() => {});
  await settle();
  await tick(9000);
  give("abc");
  await settle();
  assert.equal(Socket.all.length, 1);
  await tick(1000);
  assert.ok(Socket.last.closed);
  assert.equal(client.status, "connecting");
  assert.ok(client.retryAt > Date.now());
});

test("a token that is not ASCII is refused where it is given", async (t) => {
  assert.throws(() => begin(t, { token: "half \ud83d" }), { code: "bad_request", message: /^token: a token is needed, not text that is not ASCII/ });
  t.mock.reset();
  t.mock.timers.reset();
  const { client } = begin(t, { token: () => "\ud83d" });
  const errors = [];
  client.on("error", ({ code, message }) => errors.push([code, message]));
  client.join("lobby").catch(() => {});
  await settle();
  assert.deepEqual(errors, [["bad_request", "the token function returned text that is not ASCII, not a token"]]);
  assert.equal(Socket.all.length, 0);
});

test("a token that arrives after close opens no socket", async (t) => {
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
