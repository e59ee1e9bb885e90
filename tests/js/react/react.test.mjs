// The hooks on a real server: React renders, and another member observes the room.
import assert from "node:assert/strict";
import { test } from "node:test";
import { page, setHidden, url } from "./dom.mjs";
import { newRoom, until, watcher } from "./members.mjs";
import { StrictMode, createElement as h, memo, useState } from "react";
import { flushSync } from "react-dom";
import { createRoot } from "react-dom/client";
import { ReactorClient } from "reactor-presence";
import {
  ReactorProvider, useMember, useOthers, useRoomCount, useRoomEvent, useRoomHeartbeat, useRoomMembers, useRoomView, useSelf,
} from "reactor-presence/react";
import { Rooms } from "../../../reactor/js/shared-rooms.js";

/** Render, in strict mode and on a client of the test's own. */
function show(t, element, { strict = true } = {}) {
  const heard = [];
  class Socket extends WebSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", ({ data }) => heard.push(JSON.parse(data).type));
    }
  }
  const client = new ReactorClient(url, { WebSocket: Socket });
  const container = document.createElement("div");
  const root = createRoot(container);
  const render = (child) => {
    const provided = h(ReactorProvider, { client }, child);
    root.render(strict ? h(StrictMode, null, provided) : provided);
  };
  t.after(() => {
    root.unmount();
    client.close();
  });
  render(element);
  return {
    client,
    heard,
    render,
    unmount: () => root.unmount(),
    text: () => container.textContent,
    reads: (text) => until(() => container.textContent === text, () => `"${text}", not "${container.textContent}"`),
  };
}

function Stay({ roomId, userId = "ann", onForceLeave, options, children }) {
  useRoomHeartbeat(roomId, userId, onForceLeave, options);
  return children ?? null;
}

function Names({ roomId }) {
  return useRoomMembers(roomId).map(({ userId }) => userId).join(" ");
}

test("the first component joins once, and the last one leaves", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const screen = show(t, h(Stay, { roomId }, h(Names, { roomId })));
  await screen.reads("bob ann");
  assert.deepEqual(await bob.all(), ["join ann"]);
  assert.equal(bob.room.members.get("ann").connections, 1);
  screen.unmount();
  await bob.sees("join ann", "leave ann left");
  assert.deepEqual(await bob.all(), ["join ann", "leave ann left"]);
  await until(() => screen.client.status === "idle");
});

test("moving from one screen of a room to another does not leave it", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const screen = show(t, h(Stay, { key: 1, roomId }, h(Names, { roomId })));
  await screen.reads("bob ann");
  for (const key of [2, 3]) {
    screen.render("between two screens");
    await screen.reads("between two screens");
    screen.render(h(Stay, { key, roomId, options: { username: "ann" } }, `screen ${key}`));
    await screen.reads(`screen ${key}`);
  }
  assert.deepEqual(await bob.all(), ["join ann"]);
});

test("several components share one membership", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const all = (...keys) => [...keys.map((key) => h(Stay, { key, roomId, options: { linger: 0 } })), h(Names, { key: "names", roomId })];
  const screen = show(t, all("a", "b", "c"));
  await screen.reads("bob ann");
  screen.render(all("c"));
  screen.render(all("c", "d"));
  screen.render(all("d"));
  assert.deepEqual(await bob.all(), ["join ann"]);
  screen.render(all());
  await bob.sees("join ann", "leave ann left");
  await screen.reads("bob");
});

test("a room is left when another room is rendered", async (t) => {
  const [one, two] = [newRoom(), newRoom()];
  const [bob, cleo] = [await watcher(t, url, one, "bob"), await watcher(t, url, two, "cleo")];
  const screen = show(t, h(Stay, { roomId: one }, h(Names, { roomId: one })));
  await screen.reads("bob ann");
  screen.render(h(Stay, { roomId: two }, h(Names, { roomId: two })));
  await screen.reads("cleo ann");
  await bob.sees("join ann", "leave ann left");
  assert.deepEqual(await cleo.all(), ["join ann"]);
});

test("nothing happens until the user is known; another user replaces the first", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const seen = [];
  function Chat({ userId }) {
    const { status } = useRoomHeartbeat(roomId, userId);
    const me = useSelf(roomId);
    seen.push(status);
    return `${status} ${me?.userId}`;
  }
  const screen = show(t, h(Chat));
  await screen.reads("idle undefined");
  assert.equal(screen.client.status, "idle");
  screen.render(h(Chat, { userId: 7 }));
  await screen.reads("connected 7");
  assert.deepEqual([...new Set(seen)], ["idle", "connecting", "connected"]);
  screen.render(h(Chat, { userId: "8" }));
  await screen.reads("connected 8");
  assert.deepEqual(await bob.all(), ["join 7", "leave 7 left", "join 8"]);
});

test("members, count, others and the own member", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  function Facts() {
    const others = useOthers(roomId).map(({ userId }) => userId);
    const [me, him, her] = [useSelf(roomId), useMember(roomId, "bob"), useMember(roomId, "cleo")];
    return [useRoomCount(roomId), others, me?.username, him?.data?.mood, her?.userId].join(",");
  }
  const screen = show(t, h(Stay, { roomId, options: { username: "Ann" } }, h(Facts)));
  await screen.reads("2,bob,Ann,,");
  await bob.room.update({ mood: "fine" });
  await screen.reads("2,bob,Ann,fine,");
  const cleo = await watcher(t, url, roomId, "cleo");
  await screen.reads("3,bob,cleo,Ann,fine,cleo");
  await cleo.room.leave();
  await screen.reads("2,bob,Ann,fine,");
});

test("data is sent when its value changes, not when only the object does", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const chat = (text, options) => h(Stay, { roomId, options }, text);
  const screen = show(t, chat("one", { username: "Ann", data: { typing: false } }));
  await bob.sees("join ann");
  screen.render(chat("two", { username: "Ann", data: { typing: false } }));
  await screen.reads("two");
  assert.deepEqual(await bob.all(), ["join ann"]);
  screen.render(chat("three", { username: "Anna", data: { typing: true } }));
  await bob.sees("join ann", "update ann here");
  assert.deepEqual(await bob.all(), ["join ann", "update ann here"]);
  const { username, data } = bob.room.members.get("ann");
  assert.deepEqual({ username, data }, { username: "Anna", data: { typing: true } });
});

test("of several changes during a request only the last is sent", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const cursor = (x) => h(Stay, { roomId, options: { data: { x } } }, String(x));
  const screen = show(t, cursor(0));
  await bob.sees("join ann");
  for (let x = 1; x <= 100; x += 1) flushSync(() => screen.render(cursor(x)));
  await until(() => bob.room.members.get("ann").data.x === 100);
  assert.deepEqual(await bob.all(), ["join ann", "update ann here"]);
});

test("data that changes a hundred times a second is sent at the rate of `throttle`, and its last value always", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const cursor = (x) => h(Stay, { roomId, options: { data: { x }, throttle: 400 } }, String(x));
  const screen = show(t, cursor(0));
  await bob.sees("join ann");
  const begun = Date.now();
  for (let x = 1; x <= 100; x += 1) {
    screen.render(cursor(x));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await until(() => bob.room.members.get("ann").data.x === 100);
  const updates = (await bob.all()).filter((event) => event.startsWith("update")).length;
  assert.ok(updates >= 2 && updates <= 2 + (Date.now() - begun) / 400, `${updates} updates`);
});

test("data that JSON cannot hold is an error, and does not end the render or the membership", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  function Chat({ data }) {
    const { status, error } = useRoomHeartbeat(roomId, "ann", undefined, { data });
    return `${status} ${error ? "refused" : "fine"}`;
  }
  const screen = show(t, h(Chat, { data: { n: 1 } }));
  await screen.reads("connected fine");
  const cycle = {};
  cycle.self = cycle;
  for (const data of [{ n: 1n }, cycle]) {
    screen.render(h(Chat, { data }));
    await screen.reads("connected refused");
    screen.render(h(Chat, { data: { n: 2 } }));
    await screen.reads("connected fine");
  }
  await until(() => bob.room.members.get("ann").data.n === 2);
});

test("a member whose first data cannot be sent joins without it, and gets it as soon as it can", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  function Chat({ data }) {
    const { status, error } = useRoomHeartbeat(roomId, "ann", undefined, { data });
    return `${status} ${error?.message}`;
  }
  const screen = show(t, h(Chat, { data: { n: 1n } }));
  await screen.reads("connected data.n: a bigint cannot be sent");
  await until(() => bob.room.members.get("ann"));
  assert.equal(bob.room.members.get("ann").data, undefined);
  screen.render(h(Chat, { data: { n: 1 } }));
  await screen.reads("connected undefined");
  await until(() => bob.room.members.get("ann").data?.n === 1);
});

test("data that cannot be sent does not keep the view from changing", async (t) => {
  const roomId = newRoom();
  function Chat({ data, view }) {
    const { room, error } = useRoomHeartbeat(roomId, "ann", undefined, { data, view });
    return `${room?.view} ${room?.members.size} ${error?.message}`;
  }
  const screen = show(t, h(Chat, { data: 1, view: "members" }));
  await screen.reads("members 1 undefined");
  screen.render(h(Chat, { data: 1n, view: "count" }));
  await screen.reads("count 0 data: a bigint cannot be sent");
  screen.render(h(Chat, { data: 2, view: "members" }));
  await screen.reads("members 1 undefined");
});

test("`linger` and `awayAfter` may be Infinity: the room stays joined, and the member is never away", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const options = { linger: Infinity, awayAfter: Infinity };
  const screen = show(t, h(Stay, { roomId, options }, h(Names, { roomId })));
  t.after(() => setHidden(false));
  await screen.reads("bob ann");
  // A timer that is given more than it takes is over after a millisecond, and so before this one.
  const afterTimers = () => new Promise((resolve) => setTimeout(resolve, 20));
  setHidden(true);
  await afterTimers();
  assert.equal(screen.client.rooms.get(roomId).isAway, false);
  screen.render(null);
  await until(() => screen.text() === "");
  await afterTimers();
  assert.equal(screen.client.rooms.get(roomId).status, "connected");
  assert.deepEqual(await bob.all(), ["join ann"]);
});

test("the reason why there is no connection is in `error`, until there is one", async (t) => {
  const roomId = newRoom();
  function Chat({ address }) {
    const { status, error } = useRoomHeartbeat(roomId, "ann", undefined, { url: address });
    return `${status}: ${error?.message}`;
  }
  const container = document.createElement("div");
  const root = createRoot(container);
  t.after(() => root.unmount());
  root.render(h(Chat, { address: url.replace(/ws$/, "wrong") }));
  await until(() => /connecting: cannot connect to .* its path is \/ws/.test(container.textContent), () => container.textContent);
  root.render(h(Chat, { address: `${url}?right` }));
  await until(() => container.textContent === "connected: undefined", () => container.textContent);
});

test("the view of a room says whether its members are shown or only their count", async (t) => {
  const roomId = newRoom();
  function Facts() {
    return `${useRoomView(roomId)} ${useRoomMembers(roomId).length} of ${useRoomCount(roomId)}`;
  }
  function Chat({ view, children }) {
    const presence = useRoomHeartbeat(roomId, "ann", undefined, { view });
    return [`${presence.view}: `, children];
  }
  const screen = show(t, h(Facts));
  await screen.reads("members 0 of 0"); // no component is in the room, so it is watched
  screen.render(h(Chat, { view: "count" }, h(Facts, { key: "facts" })));
  await screen.reads("count: count 0 of 1");
  screen.render(h(Chat, { view: "members" }, h(Facts, { key: "facts" })));
  await screen.reads("members: members 1 of 1");
});

test("changes of the view leave no listeners behind", async (t) => {
  const roomId = newRoom();
  const warnings = [];
  const onWarning = (warning) => warnings.push(warning.message);
  process.on("warning", onWarning);
  t.after(() => process.off("warning", onWarning));
  const chat = (view, text) => h(Stay, { roomId, options: { view, throttle: 0 } }, text);
  const screen = show(t, chat("members", "0"));
  await until(() => screen.client.status === "connected");
  for (let turn = 1; turn <= 30; turn += 1) {
    screen.render(chat(turn % 2 ? "count" : "members", String(turn)));
    await until(() => screen.client.rooms.get(roomId).view === (turn % 2 ? "count" : "members"));
  }
  assert.deepEqual(warnings, []);
});

test("a refused update is shown as an error, and the membership continues", async (t) => {
  const roomId = newRoom();
  function Chat({ data }) {
    const { status, error } = useRoomHeartbeat(roomId, "ann", undefined, { data });
    return `${status} ${error?.code}`;
  }
  const screen = show(t, h(Chat, { data: "short" }));
  await screen.reads("connected undefined");
  screen.render(h(Chat, { data: "x".repeat(5000) }));
  await screen.reads("connected too_big");
  screen.render(h(Chat, { data: "shorter" }));
  await screen.reads("connected undefined");
});

test("events reach the newest listener, once in strict mode too, and after a reconnect", async (t) => {
  const roomId = newRoom();
  const received = [];
  function Log({ name }) {
    useRoomEvent(roomId, "join", ({ member }) => received.push(`${name}: ${member.userId} joined`));
    useRoomEvent(roomId, "leave", ({ member, reason }) => received.push(`${name}: ${member.userId} ${reason}`));
    return `${name} ${useRoomCount(roomId)}`;
  }
  const screen = show(t, h(Stay, { roomId }, h(Log, { name: "one" })));
  await screen.reads("one 1");
  const bob = await watcher(t, url, roomId, "bob");
  await until(() => received.length === 1);
  screen.render(h(Stay, { roomId }, h(Log, { name: "two" })));
  await screen.reads("two 2");
  screen.client.drop(300);
  await until(() => screen.client.status === "reconnecting");
  await bob.room.leave();
  await until(() => received.length === 2);
  assert.deepEqual(received, ["one: bob joined", "two: bob disconnected"]);
});

test("nothing is rendered without a change, and only the changed member with one", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const rendered = { list: 0, stay: 0, ann: 0, bob: 0, cleo: 0 };
  const lists = [];
  const Row = memo(({ member }) => {
    rendered[member.userId] += 1;
    return member.userId;
  });
  function List() {
    rendered.list += 1;
    const members = useRoomMembers(roomId);
    lists.push(members);
    return members.map((member) => h(Row, { key: member.userId, member }));
  }
  function Chat({ children }) {
    rendered.stay += 1;
    useRoomHeartbeat(roomId, "ann", () => {});
    return children;
  }
  const screen = show(t, h(Chat, null, h(List)), { strict: false });
  await screen.reads("bobann");
  const before = { ...rendered };
  const cleo = await watcher(t, url, roomId, "cleo");
  await screen.reads("bobanncleo");
  assert.deepEqual(rendered, { ...before, list: before.list + 1, cleo: 1 });

  screen.client.beat();
  await until(() => screen.heard.includes("room:heartbeat:ack"));
  screen.client.drop(300); // ms: the server has seen the old socket close by then, so no member has two connections
  await until(() => screen.client.status === "reconnecting");
  await until(() => screen.client.rooms.get(roomId).status === "connected");
  assert.equal(screen.client.rooms.get(roomId).resumed, true);
  await cleo.room.update("new");
  await until(() => rendered.cleo === 2);
  assert.deepEqual({ ...rendered, stay: 0 }, { ...before, stay: 0, list: before.list + 2, cleo: 2 });
  assert.equal(new Set(lists.slice(before.list)).size, 2);
  assert.ok(Object.isFrozen(lists.at(-1)));
  assert.deepEqual(await bob.all(), ["join ann", "join cleo", "update cleo here"]);
});

test("a burst of events is one render", async (t) => {
  const roomId = newRoom();
  let renders = 0;
  function Count() {
    renders += 1;
    return String(useRoomMembers(roomId).length);
  }
  const screen = show(t, h(Stay, { roomId }, h(Count)), { strict: false });
  await screen.reads("1");
  const before = renders;
  await Promise.all(Array.from({ length: 40 }, (_, number) => watcher(t, url, roomId, `user-${number}`)));
  await screen.reads("41");
  assert.ok(renders - before < 20, `${renders - before} renders`);
});

test("a component that wants members gets them where another wants the count", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const count = h(Stay, { key: 1, roomId, options: { view: "count" } });
  function Facts() {
    return `${useRoomCount(roomId)} ${useRoomMembers(roomId).length}`;
  }
  const screen = show(t, [count, h(Facts, { key: 2 })]);
  await screen.reads("2 0");
  screen.render([count, h(Facts, { key: 2 }), h(Stay, { key: 3, roomId })]);
  await screen.reads("2 2");
  assert.deepEqual(await bob.all(), ["join ann"]);
});

test("onForceLeave gets the message and the event, once, and rejoin works", async (t) => {
  const roomId = newRoom("brief");
  const received = [];
  let rejoin;
  function Chat() {
    const presence = useRoomHeartbeat(roomId, "ann", (...args) => received.push(args));
    rejoin = presence.rejoin;
    return `${presence.status} ${presence.error?.code} ${useRoomMembers(roomId).length}`;
  }
  const screen = show(t, h(Chat));
  await screen.reads("connected undefined 1");
  screen.client.silent = true;
  await screen.reads("closed force-leave 0");
  assert.equal(received.length, 1);
  const [message, event] = received[0];
  assert.equal(message, "You were away too long.");
  assert.equal(event.reason, "inactivity_timeout");
  assert.equal(event.roomId, roomId);
  assert.ok(Math.abs(event.timestamp - Date.now()) < 60_000);
  screen.client.silent = false;
  rejoin();
  await screen.reads("connected undefined 1");
});

test("the newest callback is called without another join", async (t) => {
  const roomId = newRoom("brief");
  const received = [];
  let next;
  function Chat() {
    const [turn, setTurn] = useState(1);
    next = () => setTurn(turn + 1);
    useRoomHeartbeat(roomId, "ann", (message) => received.push(`${turn}: ${message}`));
    return `turn ${turn}`;
  }
  const screen = show(t, h(Chat));
  await screen.reads("turn 1");
  next();
  await screen.reads("turn 2");
  await until(() => screen.client.status === "connected");
  screen.client.silent = true;
  await until(() => received.length);
  assert.deepEqual(received, ["2: You were away too long."]);
});

test("a hidden page is away, one hidden for a moment is not", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const screen = show(t, h(Stay, { roomId }, h(Names, { roomId })));
  t.after(() => setHidden(false));
  await screen.reads("bob ann");
  setHidden(true);
  setHidden(false);
  setHidden(true);
  await bob.sees("join ann", "update ann away");
  setHidden(false);
  await bob.sees("join ann", "update ann away", "update ann here");
});

test("`awayAfter` says how long a page is hidden before its member is away; a page that is left is not", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const stay = (awayAfter) => h(Stay, { key: awayAfter, roomId, options: { awayAfter } }, h(Names, { roomId }));
  const screen = show(t, stay(30_000));
  t.after(() => setHidden(false));
  await screen.reads("bob ann");
  setHidden(true);
  assert.deepEqual(await bob.all(), ["join ann"]);
  for (const persisted of [false, true]) {
    page.dispatchEvent(Object.assign(new page.Event("pagehide"), { persisted }));
    document.dispatchEvent(new page.Event("freeze"));
    assert.equal(screen.client.rooms.get(roomId).isAway, false);
    page.dispatchEvent(new page.Event("pageshow"));
  }
  assert.deepEqual((await bob.all()).filter((event) => event.endsWith("away")), []);
  setHidden(false);
  screen.unmount();
  await until(() => bob.seen.at(-1) === "leave ann left");
  await show(t, stay(0)).reads("bob ann");
  setHidden(true);
  await until(() => bob.room.members.get("ann")?.away);
});

test("an away state set by the application is kept", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  let room;
  function Chat() {
    ({ room } = useRoomHeartbeat(roomId, "ann"));
    return String(room?.isAway);
  }
  const screen = show(t, h(Chat));
  await screen.reads("false");
  await room.away();
  setHidden(true);
  document.dispatchEvent(new page.Event("freeze"));
  setHidden(false);
  assert.deepEqual(await bob.all(), ["join ann", "update ann away"]);
  await room.back();
  await bob.sees("join ann", "update ann away", "update ann here");
});

test("without a provider the page's own server is used, or the given one", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const root = createRoot(document.createElement("div"));
  root.render([h(Stay, { key: 1, roomId }), h(Stay, { key: 2, roomId, userId: "cleo", options: { url } })]);
  await bob.sees("join ann", "join cleo");
  root.unmount();
  await until(() => bob.seen.length === 4);
  assert.deepEqual([...bob.seen].sort(), ["join ann", "join cleo", "leave ann left", "leave cleo left"]);
});

test("an unused room is removed", async (t) => {
  const client = new ReactorClient(url);
  t.after(() => client.close());
  const rooms = new Rooms(() => client, "");
  const roomId = newRoom();
  const unfollow = rooms.get(roomId).subscribe(() => {});
  const release = rooms.get(roomId).acquire({ userId: "ann", linger: 0 });
  await until(() => rooms.peek(roomId).presence.status === "connected");
  unfollow();
  assert.ok(rooms.peek(roomId));
  release();
  await until(() => !rooms.peek(roomId));
  await until(() => client.status === "idle");
  rooms.get(roomId).subscribe(() => {})();
  assert.equal(rooms.peek(roomId), undefined);
});

function RoomCount({ roomId }) {
  return String(useRoomCount(roomId));
}

test("the hooks watch a room that no component is in", async (t) => {
  const [first, second] = [newRoom(), newRoom()];
  const ann = await watcher(t, url, first, "ann");
  const screen = show(t, [
    h(RoomCount, { roomId: first, key: 1 }), "|", h(RoomCount, { roomId: second, key: 2 }), "|", h(Names, { roomId: first, key: 3 }),
  ]);
  await screen.reads("1|0|ann");
  const bob = await watcher(t, url, second, "bob");
  await watcher(t, url, first, "cy");
  await screen.reads("2|1|ann cy");
  assert.equal(screen.client.rooms.size, 0);
  assert.deepEqual([...(await ann.all()), ...(await bob.all())], ["join cy"]);
  screen.render("nothing");
  await until(() => screen.client.status === "idle", () => "the connection is closed when nothing is read");
});

test("a room that is watched and then joined shows its members all the time", async (t) => {
  const roomId = newRoom();
  await watcher(t, url, roomId, "bob");
  const seen = [];
  function Recorded() {
    const names = Names({ roomId });
    seen.push(names);
    return names;
  }
  const screen = show(t, h(Recorded));
  await screen.reads("bob");
  screen.render(h(Stay, { roomId }, h(Recorded)));
  await screen.reads("bob ann");
  assert.equal(screen.heard.filter((type) => type === "room:watching").length, 1);
  screen.render(h(Recorded));
  await screen.reads("bob");
  const first = seen.indexOf("bob");
  assert.ok(!seen.slice(first).includes(""), `${seen}`);
  assert.deepEqual([...new Set(seen)], ["", "bob", "bob ann"]);
});

test("a component that joins a room in the same render as others read it is the only one that asks for it", async (t) => {
  const roomId = newRoom();
  const screen = show(t, h(Stay, { roomId }, h(Names, { roomId })));
  await screen.reads("ann");
  assert.ok(!screen.heard.includes("room:watching"));
});
