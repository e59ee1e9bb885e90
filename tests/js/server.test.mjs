// The client on a real server: the settings are ttl 1 s in rooms "brief-*", grace 5 s.
import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode } from "@msgpack/msgpack";
import { people } from "../../reactor/js/people.js";
import { client, eventsOf, until } from "./live.mjs";

test("two members see each other join, update, step away and leave", async (t) => {
  const ann = await client(t).join("lobby", { userId: 1, username: "Ann", data: { mood: "blue" } });
  const seen = eventsOf(ann);
  const bob = await client(t).join("lobby", { userId: "2", username: "Bob" });
  assert.deepEqual([...bob.members.keys()].sort(), ["1", "2"]);
  assert.deepEqual(bob.others[0].data, { mood: "blue" });
  await bob.update({ mood: "red" }, { username: "Bobby" });
  await until(() => seen.length === 2);
  assert.deepEqual(ann.members.get("2").data, { mood: "red" });
  await bob.away();
  await until(() => ann.members.get("2").away);
  await bob.back();
  await until(() => !ann.members.get("2").away);
  await bob.leave();
  await until(() => ann.count === 1);
  assert.deepEqual(seen, ["join Bob", "update Bobby", "update Bobby", "update Bobby", "leave Bobby left"]);
});

test("a lost connection resumes within the grace, with one room and with many", async (t) => {
  const ann = await client(t).join("den", { userId: "ann" });
  const seen = eventsOf(ann);
  const two = client(t, { backoff: { first: 10 } });
  const rooms = await Promise.all(["den", "attic", "cellar"].map((id) => two.join(id, { userId: "bob", data: id })));
  await until(() => ann.count === 2);
  rooms[0].away();
  await until(() => ann.members.get("bob").away);
  two.drop(20);
  await until(() => two.status === "reconnecting");
  await until(() => rooms.every(({ status }) => status === "connected"));
  assert.deepEqual(rooms.map(({ resumed, me }) => [resumed, me.data, me.away]), [
    [true, "den", true],
    [true, "attic", false],
    [true, "cellar", false],
  ]);
  await rooms[0].update("here");
  await until(() => seen.length === 3);
  assert.deepEqual(seen, ["join bob", "update bob", "update bob"]);
});

test("two connections of a user change different fields, and a message reaches the others", async (t) => {
  const [tab, phone, bob] = await Promise.all(["ann", "ann", "bob"].map((userId) => client(t).join("parts", { userId })));
  await tab.update({ mood: "blue", typing: true });
  await Promise.all([tab.patch({ mood: "red" }), phone.patch({ typing: null, place: { x: 1 } })]);
  await until(() => bob.members.get("ann").data?.place);
  await until(() => bob.members.get("ann").data.mood === "red");
  assert.deepEqual(bob.members.get("ann").data, { mood: "red", place: { x: 1 } });
  const heard = [];
  for (const [name, room] of Object.entries({ tab, phone, bob })) {
    room.on("message", ({ userId, data }) => heard.push(`${name}: ${data} of ${userId}`));
  }
  await tab.send("all");
  await bob.send("ann", { to: ["ann"] });
  await until(() => heard.length === 3);
  assert.deepEqual(heard.sort(), ["bob: all of ann", "phone: ann of bob", "tab: ann of bob"]);
  assert.deepEqual(bob.getSnapshot().members.map(({ userId }) => userId).sort(), ["ann", "bob"]);
});

test("what another device changed while the connection was lost is kept", async (t) => {
  const mine = client(t, { backoff: { first: 10 } });
  const tab = await mine.join("kept", { userId: "ann", data: 1 });
  const phone = await client(t).join("kept", { userId: "ann", view: "count" });
  const bob = await client(t).join("kept", { userId: "bob" });
  mine.drop(Infinity);
  await phone.update(2);
  const own = tab.update(undefined, { username: "Ann" });
  mine.wake();
  await own;
  await until(() => bob.members.get("ann").username === "Ann");
  assert.equal(bob.members.get("ann").data, 2);
  assert.equal(tab.resumed, true);
});

test("a leave while the connection is lost is carried out at the return", async (t) => {
  const mine = client(t);
  const tab = await mine.join("left", { userId: "ann" });
  const bob = await client(t).join("left", { userId: "bob" });
  const seen = eventsOf(bob);
  mine.drop(50);
  await tab.leave();
  await until(() => bob.count === 1);
  assert.deepEqual(seen, ["leave ann left"]);
  await until(() => mine.status === "idle");
});

test("a page that is reloaded while away is present again", async (t) => {
  const first = client(t);
  const room = await first.join("hall", { userId: "ann" });
  await room.away();
  first.close({ leave: false });
  const back = await client(t).join("hall", { userId: "ann" });
  await until(() => back.me.away === false);
  assert.equal(back.resumed, true);
});

test("MessagePack with a library", async (t) => {
  const codec = {
    subprotocol: "reactor.msgpack",
    encode: (message) => encode(message, { ignoreUndefined: true }),
    decode,
  };
  const ann = await client(t, { codec }).join("pack", { userId: "ann", data: { deep: [1, null, "ü"] } });
  const bob = await client(t).join("pack", { userId: "bob" });
  assert.deepEqual(bob.members.get("ann").data, { deep: [1, null, "ü"] });
  await until(() => ann.count === 2);
});

test("counts, requests and refusals", async (t) => {
  const asking = client(t);
  const room = await client(t).join("quiet", { userId: "ann", view: "count" });
  assert.deepEqual([room.view, room.count, room.members.size], ["count", 1, 0]);
  const seen = eventsOf(room);
  const bob = await client(t).join("quiet", { userId: "bob" });
  await until(() => seen.length === 1);
  assert.deepEqual(seen, ["sync 2"]);
  assert.equal((await asking.request({ type: "room:count", roomId: "quiet" })).count, 2);
  assert.equal((await asking.request({ type: "room:members", roomId: "quiet" })).members.length, 2);
  assert.equal((await asking.request({ type: "room:is_present", roomId: "quiet", userId: "bob" })).present, true);
  assert.equal(asking.status, "idle");
  await assert.rejects(asking.join("", { userId: "x" }), { code: "bad_id" });
  await assert.rejects(bob.update("x".repeat(5000)), { code: "too_big" });
  const first = client(t);
  await assert.rejects(first.join("quiet", { userId: "ann", data: "x".repeat(200_000) }), { code: "too_big" });
  assert.equal(first.status, "idle");
});

test("a silent member expires and receives the reason; one with heartbeats stays", async (t) => {
  const silent = client(t);
  const out = await silent.join("brief-1", { userId: "silent" });
  silent.silent = true;
  silent.tick();
  const staying = await client(t).join("brief-1", { userId: "staying" });
  const [seen, others] = [eventsOf(out), eventsOf(staying)];
  await until(() => out.status === "closed");
  assert.deepEqual(seen.filter((line) => line.startsWith("force")), ["force-leave: Too long."]);
  assert.equal(out.error.reason, "inactivity_timeout");
  await until(() => others.length === 1);
  assert.deepEqual(others, ["leave silent inactivity_timeout"]);
  assert.equal(staying.status, "connected");
});

test("an aborted signal leaves the room", async (t) => {
  const ann = await client(t).join("signals", { userId: "ann" });
  const seen = eventsOf(ann);
  const control = new AbortController();
  await client(t).join("signals", { userId: "bob", signal: control.signal });
  await until(() => ann.count === 2);
  control.abort();
  await until(() => ann.count === 1);
  assert.deepEqual(seen, ["join bob", "leave bob left"]);
});

test("people are watched whatever the rooms, also after a lost connection", async (t) => {
  const watching = client(t);
  const friends = people(watching, ["pat", "nobody"]);
  await until(() => friends.status === "connected");
  assert.deepEqual(friends.getSnapshot().people.map(({ status }) => status), ["offline", "offline"]);
  const pat = await client(t).join("anywhere", { userId: "pat" });
  await until(() => friends.get("pat").status === "online");
  await pat.away();
  await until(() => friends.get("pat").status === "away");
  watching.drop(Infinity);
  await pat.leave();
  watching.wake();
  await until(() => friends.get("pat").status === "offline");
  assert.ok(friends.get("pat").lastSeen > 0);
  friends.add(["quinn"]);
  await client(t).join("elsewhere", { userId: "quinn" });
  await until(() => friends.get("quinn")?.status === "online");
  friends.close();
  await until(() => watching.status === "idle");
});
