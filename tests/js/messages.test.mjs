// Changes of a part of the data, messages to the room, and the room as a store.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { applyPatch, joinPatches } from "../../reactor/js/patch.js";
import { Socket, diff, enter, error, joined, member, settle } from "./fake.mjs";

const updated = (version) => ({ type: "room:updated", roomId: "lobby", version });
const cases = JSON.parse(readFileSync(new URL("../cases/patch.json", import.meta.url)));

for (const { value, patch, result } of cases.patches) {
  test(`${JSON.stringify(value)} with ${JSON.stringify(patch)}`, () => {
    const before = JSON.stringify(value);
    assert.equal(JSON.stringify(applyPatch(value, patch)), JSON.stringify(result));
    assert.equal(JSON.stringify(value), before);
  });
}

test("one patch has the effect of two, or there is none", () => {
  let joined = 0;
  const parts = [null, 1, [2], {}, { x: 1 }, { x: null }, { x: { y: 1 } }, { x: { y: null } }, { x: [1], z: 2 }];
  for (const value of [{}, { a: 1 }, { a: { x: 9, y: 9 }, b: 1 }, { a: { x: { y: 9, w: 9 } } }]) {
    for (const first of parts) {
      for (const second of parts) {
        const [one, two] = [{ a: first, b: 2 }, { a: second, c: 3 }];
        const patch = joinPatches(one, two);
        if (patch === undefined) continue;
        joined += 1;
        assert.deepEqual(applyPatch(value, patch), applyPatch(applyPatch(value, one), two), JSON.stringify([value, one, two]));
      }
    }
  }
  assert.ok(joined > 200);
});

test("a patch is sent as such, and kept for a return until it is acknowledged", async (t) => {
  const { room, tick } = await enter(t, [member("me", { data: { a: 1, b: 2 } })], { joinedAt: 1000 });
  const first = room.patch({ b: null });
  assert.deepEqual(Socket.last.of("room:update")[0].patch, { b: null });
  const waiting = [room.patch({ c: { d: 1 } }), room.patch({ c: { e: 2 } }), room.patch({ typing: true }, { username: "Me" })];
  Socket.last.ends(1006);
  await Socket.again(tick);
  const [request] = Socket.last.of("room:update");
  assert.deepEqual([request.patch, request.username, request.data], [{ b: null, c: { d: 1, e: 2 }, typing: true }, "Me", undefined]);
  Socket.last.answers("join_room", joined([member("me", { data: { a: 1, b: 2 } })], { resumed: true, joinedAt: 1000 }));
  Socket.last.answers("room:update", updated(7));
  await Promise.all([first, ...waiting]);
});

test("a patch after an update is part of it, an update after a patch replaces it", async (t) => {
  const { room, tick } = await enter(t);
  Socket.last.ends(1006);
  room.update({ a: 1 });
  room.patch({ b: 2 });
  await Socket.again(tick);
  assert.deepEqual(Socket.last.of("room:update")[0].data, { a: 1, b: 2 });
  Socket.last.ends(1006);
  room.update({ c: 3 });
  await Socket.again(tick, 1000);
  const [request] = Socket.last.of("room:update");
  assert.deepEqual([request.data, request.patch], [{ c: 3 }, undefined]);
});

test("where no members are served, an acknowledged patch is part of what a return presents", async (t) => {
  const { client, room, tick } = await enter(t, [], { members: undefined, view: "count", count: 1, joinedAt: 1000 });
  for (const change of [room.update({ a: 1 }), room.patch({ b: 2 })]) {
    await settle();
    Socket.last.answers("room:update", updated(6));
    await change;
  }
  Socket.last.ends(1006);
  await Socket.again(tick);
  assert.deepEqual(Socket.last.sent[0].data, { a: 1, b: 2 });
  client.close();
});

test("a patch of data that is not known is presented as what it makes of none", async (t) => {
  const { client, room, tick } = await enter(t, [], { members: undefined, view: "count", count: 1, joinedAt: 1000 });
  const change = room.patch({ a: 1, b: null });
  Socket.last.answers("room:update", updated(6));
  await change;
  Socket.last.ends(1006);
  await Socket.again(tick);
  assert.deepEqual([Socket.last.sent[0].data, Socket.last.sent[0].patch], [{ a: 1 }, undefined]);
  client.close();
});

test("a patch is an object", async (t) => {
  const { room } = await enter(t);
  for (const patch of [undefined, null, 5, "a", []]) await assert.rejects(room.patch(patch), { code: "bad_request", message: "patch: an object is needed" });
  await assert.rejects(room.patch({ a: { b: undefined } }), { code: "bad_request", message: /^patch\.a\.b: undefined/ });
});

test("a message is sent to all or to some, and resolves when it was sent on", async (t) => {
  const { room } = await enter(t);
  const sent = room.send({ typing: true });
  const some = room.send(1, { to: ["ann", 7] });
  const [first, second] = Socket.last.of("room:send");
  assert.deepEqual([first.data, first.to, second.data, second.to, first.roomId], [{ typing: true }, undefined, 1, ["ann", "7"], "lobby"]);
  Socket.last.says({ type: "room:sent", roomId: "lobby", id: second.id });
  Socket.last.says({ type: "room:sent", roomId: "lobby", id: first.id });
  await Promise.all([sent, some]);
});

test("a message is neither kept for later nor repeated", async (t) => {
  const { room, tick } = await enter(t, undefined, { limits: { message: 5000, data: 20, id: 20 } });
  const refused = room.send(1);
  Socket.last.answers("room:send", error("too_many_requests"));
  await assert.rejects(refused, { code: "too_many_requests" });
  await assert.rejects(room.send("x".repeat(20)), { code: "too_big", message: /^data/ });
  await assert.rejects(room.send(() => {}), { code: "bad_request", message: /^data/ });
  await assert.rejects(room.send(1, { to: ["a", {}] }), { code: "bad_request", message: /^to\[1\]/ });
  const lost = room.send(2);
  Socket.last.ends(1006);
  await assert.rejects(lost, { code: "unavailable", message: "the connection was lost" });
  await assert.rejects(room.send(3), { code: "unavailable", message: /^not connected/ });
  await Socket.again(tick);
  Socket.last.answers("join_room", joined([member("me")]));
  await tick(5000);
  assert.equal(Socket.last.of("room:send").length, 0);
  room.leave();
  Socket.last.answers("leave_room", { type: "room:left", roomId: "lobby" });
  await assert.rejects(room.send(4), { code: "not_joined" });
});

test("messages of members and of the application are events", async (t) => {
  const { room } = await enter(t);
  const seen = [];
  room.on("message", ({ userId, data }) => seen.push([userId, data]));
  Socket.last.says({ type: "room:message", roomId: "lobby", userId: "ann", socketId: "s", data: { typing: true }, timestamp: 1 });
  Socket.last.says({ type: "room:message", roomId: "lobby", data: 5, timestamp: 2 });
  assert.deepEqual(seen, [["ann", { typing: true }], [undefined, 5]]);
});

test("a room is a store: a snapshot at once, and a new one with each change", async (t) => {
  const { room } = await enter(t);
  const seen = [];
  const { subscribe, getSnapshot } = room;
  const stop = subscribe(({ status, count, members }) => seen.push([status, count, members.map(({ userId }) => userId)]));
  assert.deepEqual(seen, [["connected", 2, ["me", "ann"]]]);
  assert.equal(getSnapshot(), getSnapshot());
  const former = getSnapshot();
  Socket.last.says(diff(5, { left: [{ userId: "ann", reason: "left" }], count: 1 }));
  assert.deepEqual(seen[1], ["connected", 1, ["me"]]);
  assert.deepEqual([former.count, getSnapshot().count, getSnapshot().me.userId], [2, 1, "me"]);
  assert.throws(() => former.members.push(1), TypeError);
  Socket.last.ends(1006);
  assert.deepEqual([seen.length, seen[2][0]], [3, "reconnecting"]);
  stop();
  room.leave();
  assert.equal(seen.length, 3);
});
