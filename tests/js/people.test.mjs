// Users whom a client watches whatever the rooms, against a fake server.
import assert from "node:assert/strict";
import { test } from "node:test";
import { ReactorError, Socket, begin, enter, error, joined, settle } from "./fake.mjs";

const { people } = await import(process.env.REACTOR_PEOPLE ?? "../../reactor/js/people.js");

const online = (userId, more = {}) => ({ userId, status: "online", ...more });
const offline = (userId, more = {}) => ({ userId, status: "offline", ...more });
const state = (...all) => ({ type: "people:state", people: all });
const diff = (...changed) => ({ type: "people:diff", changed });
const requests = () => Socket.last.sent.filter(({ type }) => type.startsWith("people:")).map(({ id, ...request }) => request);
const watch = (...userIds) => ({ type: "people:watch", userIds });
const unwatch = (...userIds) => ({ type: "people:unwatch", userIds });

/** Record all events of an object, in short form. */
function eventsOf(object) {
  const seen = [];
  object.on("change", (changed) => seen.push(["change", ...changed.map(({ userId, status }) => `${userId} ${status}`)].join(" ")));
  object.on("status", (status) => seen.push(status));
  object.on("error", ({ code, userIds }) => seen.push(["error", code, ...(userIds ?? [])].join(" ")));
  return seen;
}

async function watchPeople(t, ids) {
  const all = begin(t);
  const friends = people(all.client, ids);
  const seen = eventsOf(friends);
  await settle();
  Socket.last.opens();
  await settle();
  return { ...all, friends, seen };
}

test("people have their state, and follow the diffs", async (t) => {
  const { client, friends, seen } = await watchPeople(t, ["ann", 7]);
  assert.deepEqual(requests(), [watch("ann", "7")]);
  assert.deepEqual([friends.status, friends.get("ann"), [...friends.ids]], ["connecting", undefined, ["ann", "7"]]);
  Socket.last.answers("people:watch", state(online("ann", { rooms: ["lobby"] }), offline("7", { lastSeen: 5 })));
  assert.deepEqual([friends.get("ann"), friends.get(7)], [online("ann", { rooms: ["lobby"] }), offline("7", { lastSeen: 5 })]);
  Socket.last.says(diff({ userId: "ann", status: "away" }, online("unknown")));
  assert.deepEqual(seen, ["change ann online 7 offline", "connected", "change ann away"]);
  friends.close();
  await settle();
  assert.deepEqual([friends.status, friends.error, client.status, Socket.last.closed], ["closed", null, "idle", true]);
  assert.equal(friends.get("ann").status, "away");
});

test("users are added and removed, with one request for all of a turn", async (t) => {
  const { client, friends, seen } = await watchPeople(t, ["ann"]);
  Socket.last.answers("people:watch", state(online("ann")));
  friends.add(["bob", "ann"]);
  friends.add(["cy", "dee"]);
  friends.remove(["dee"]);
  await settle();
  assert.deepEqual(requests(), [watch("ann"), watch("bob", "cy")]);
  friends.remove(["ann", "bob"]);
  await settle();
  assert.equal(requests().length, 2, "one request is under way at a time");
  Socket.last.answers("people:watch", state(offline("bob"), online("cy")));
  assert.deepEqual(requests().slice(2), [unwatch("ann", "bob")]);
  assert.deepEqual([friends.get("ann"), friends.get("bob"), friends.get("cy")], [undefined, undefined, online("cy")]);
  Socket.last.says(diff(offline("ann")));
  Socket.last.answers("people:unwatch", { type: "people:unwatched" });
  assert.deepEqual(seen, ["change ann online", "connected", "change", "change cy online"]);
  friends.remove(["cy"]);
  assert.deepEqual([friends.status, client.status], ["idle", "idle"]);
  friends.add(["cy"]);
  assert.deepEqual([friends.status, client.status], ["connecting", "connecting"]);
});

test("after a lost connection people are watched again, and only differences are changes", async (t) => {
  const { tick, friends, seen } = await watchPeople(t, ["ann", "bob"]);
  Socket.last.answers("people:watch", state(online("ann"), online("bob")));
  const [ann] = friends.getSnapshot().people;
  seen.length = 0;
  Socket.last.ends(1006);
  await settle();
  assert.deepEqual([friends.status, friends.get("bob").status], ["reconnecting", "online"]);
  await Socket.again(tick);
  assert.deepEqual(requests(), [watch("ann", "bob")]);
  Socket.last.answers("people:watch", state(online("ann"), offline("bob", { lastSeen: 9 })));
  assert.deepEqual(seen, ["reconnecting", "change bob offline", "connected"]);
  assert.equal(friends.get("ann"), ann);
});

test("a request names as many users as the server accepts", async (t) => {
  const ids = Array.from({ length: 1001 }, (_, index) => `u${index}`);
  const { friends } = await watchPeople(t, ids);
  assert.deepEqual(requests(), [watch(...ids.slice(0, 1000))]);
  Socket.last.answers("people:watch", state(...ids.slice(0, 1000).map((id) => offline(id))));
  assert.deepEqual(requests().slice(1), [watch("u1000")]);
  assert.equal(friends.status, "connecting");
  Socket.last.answers("people:watch", state(offline("u1000")));
  assert.equal(friends.status, "connected");
});

test("a request is smaller than a message may be", async (t) => {
  const { client } = await enter(t, undefined, { limits: { message: 400, data: 100, id: 128 } });
  people(client, ["a", "b", "c"].map((letter) => letter.repeat(90)));
  await settle();
  assert.deepEqual(requests().map(({ userIds }) => userIds.map(([letter]) => letter)), [["a", "b"]]);
  Socket.last.answers("people:watch", state());
  assert.deepEqual(requests()[1].userIds.map(([letter]) => letter), ["c"]);
});

test("those who are refused are removed with an error, the others are watched", async (t) => {
  const { friends, seen } = await watchPeople(t, ["ann"]);
  Socket.last.answers("people:watch", state(online("ann")));
  friends.add(["bob", "cy"]);
  await settle();
  Socket.last.answers("people:watch", error("too_many_people"));
  await settle();
  assert.deepEqual(seen.slice(2), ["error too_many_people bob cy"]);
  assert.ok(friends.error instanceof ReactorError);
  assert.deepEqual([[...friends.ids], friends.status], [["ann"], "connected"]);
  assert.equal(requests().length, 2, "nothing has to be unwatched");
  assert.equal(friends.getSnapshot().error.code, "too_many_people");
});

test("a refusal of the users of one object does not concern another one", async (t) => {
  const { client, friends, seen } = await watchPeople(t, ["ann"]);
  Socket.last.answers("people:watch", state(online("ann")));
  friends.add(["bob", "cy"]);
  const other = people(client, ["dee"]);
  const seenByOther = eventsOf(other);
  await settle();
  Socket.last.answers("people:watch", error("too_many_people"));
  assert.deepEqual(requests().slice(1), [watch("bob", "cy", "dee"), watch("bob", "cy")]);
  Socket.last.answers("people:watch", error("too_many_people"));
  assert.deepEqual(requests().slice(3), [watch("dee")]);
  Socket.last.answers("people:watch", state(online("dee")));
  assert.deepEqual(seen.slice(2), ["error too_many_people bob cy"]);
  assert.deepEqual(seenByOther, ["change dee online", "connected"]);
});

test("objects of one client share what is watched", async (t) => {
  const { client, friends } = await watchPeople(t, ["ann", "bob"]);
  Socket.last.answers("people:watch", state(online("ann"), online("bob")));
  const other = people(client, ["ann"]);
  await settle();
  assert.equal(requests().length, 1);
  assert.deepEqual([other.status, other.get("ann")], ["connected", friends.get("ann")]);
  friends.close();
  await settle();
  assert.deepEqual(requests().slice(1), [unwatch("bob")]);
  Socket.last.says(diff(offline("ann")));
  assert.equal(other.get("ann").status, "offline");
});

test("while Redis is away watching waits, and is repeated", async (t) => {
  const { client, tick, friends } = await watchPeople(t, ["ann"]);
  Socket.last.answers("people:watch", error("unavailable"));
  friends.add(["bob"]);
  await settle();
  assert.deepEqual([client.status, friends.status, requests().length], ["degraded", "connecting", 1]);
  await tick(2000);
  assert.deepEqual(requests().slice(1), [watch("ann", "bob")]);
  Socket.last.answers("people:watch", state(online("ann"), online("bob")));
  assert.deepEqual([client.status, friends.status], ["connected", "connected"]);
});

test("people are a store: the same snapshot until something changes", async (t) => {
  const { friends } = await watchPeople(t, ["bob", "ann"]);
  const snapshots = [];
  const stop = friends.subscribe((snapshot) => snapshots.push(snapshot));
  Socket.last.answers("people:watch", state(online("bob"), online("ann")));
  Socket.last.says(diff(online("ann")));
  assert.equal(friends.getSnapshot(), snapshots.at(-1));
  assert.deepEqual(snapshots.map(({ status, people: all }) => [status, ...all.map(({ userId }) => userId)]), [
    ["connecting"], ["connecting", "bob", "ann"], ["connected", "bob", "ann"],
  ]);
  stop();
  Socket.last.says(diff(offline("ann")));
  assert.equal(snapshots.length, 3);
});

test("a client that only watches people sends heartbeats", async (t) => {
  const { tick } = await watchPeople(t, ["ann"]);
  Socket.last.answers("people:watch", state(online("ann")));
  for (let passed = 0; passed < 26_000; passed += 1000) await tick(1000);
  assert.equal(Socket.last.of("room:heartbeat").length, 1);
});

test("closing the client ends what it watches", async (t) => {
  const { client, friends } = await watchPeople(t, ["ann"]);
  Socket.last.answers("people:watch", state(online("ann")));
  client.close();
  assert.deepEqual([friends.status, friends.error, client.status], ["closed", null, "idle"]);
  assert.throws(() => friends.add(["bob"]), { code: "closed" });
  friends.remove(["ann"]);
  friends.close();
});

test("a wrong argument is refused at once", (t) => {
  const { client } = begin(t);
  assert.throws(() => people(client, "ann"), { code: "bad_request", message: /a list of ids/ });
  assert.throws(() => people(client, ["ann", {}]), { code: "bad_request", message: /^userIds\[1\]/ });
  assert.equal(people(client).status, "idle");
  assert.equal(Socket.all.length, 0);
});

test("to be online without a room is to join the user's own, and leaving it ends that", async (t) => {
  const { client } = begin(t);
  const coming = client.online({ userId: 7 });
  await settle();
  Socket.last.opens();
  const [{ id, ...request }] = Socket.last.of("join_room");
  assert.deepEqual(request, { type: "join_room", roomId: "@7", userId: "7", view: "none" });
  Socket.last.answers("join_room", { ...joined([], { roomId: "@7", userId: "7", view: "none", count: 1 }), members: undefined });
  const room = await coming;
  assert.deepEqual([room.status, room.view, room.id], ["connected", "none", "@7"]);
  const leaving = room.leave();
  Socket.last.answers("leave_room", { type: "room:left", roomId: "@7" });
  await leaving;
  assert.equal(client.status, "idle");
});

test("who is online is the token's user, once that is known, or has to be named", async (t) => {
  const { client } = begin(t, { token: "t" });
  await assert.rejects(client.online(), { code: "bad_request", message: /^userId: the user is not known: pass it/ });
  client.join("lobby");
  await settle();
  Socket.last.opens();
  Socket.last.answers("auth", { type: "auth:ok", userId: "me" });
  client.online();
  await settle();
  assert.deepEqual(Socket.last.of("join_room").map(({ roomId }) => roomId), ["lobby", "@me"]);
});
