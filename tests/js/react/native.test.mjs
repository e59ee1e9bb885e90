// The React Native module, on a stub of the platform: the app goes to the background and comes back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { url } from "./dom.mjs";
import { newRoom, until, watcher } from "./members.mjs";
import { StrictMode, createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { appBecomes, watchers } from "react-native";
import { ReactorClient } from "reactor-presence";
import * as native from "reactor-presence/react-native";
import * as react from "reactor-presence/react";

const { GRACE } = process.env;

test("in the background the member is away and sends heartbeats; inactive changes nothing", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const client = new ReactorClient(url);
  let woken = 0;
  t.mock.method(client, "wake", () => (woken += 1));
  function Chat() {
    native.useRoomHeartbeat(roomId, "ann", () => {});
    return native.useRoomMembers(roomId).length;
  }
  const container = document.createElement("div");
  const root = createRoot(container);
  root.render(h(StrictMode, null, h(native.ReactorProvider, { client }, h(Chat))));
  await until(() => container.textContent === "2");
  assert.equal(watchers(), 1);
  assert.equal(woken, 0);
  appBecomes("inactive");
  appBecomes("active");
  assert.deepEqual(await bob.all(), ["join ann"]);
  appBecomes("inactive");
  appBecomes("background");
  await bob.sees("join ann", "update ann away");
  appBecomes("active");
  await bob.sees("join ann", "update ann away", "update ann here");
  assert.equal(woken, 2);
  root.unmount();
  await until(() => bob.seen.includes("leave ann left"));
  assert.equal(watchers(), 0);
});

test("an app that starts in the background is away at once", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  appBecomes("background");
  t.after(() => appBecomes("active"));
  const root = createRoot(document.createElement("div"));
  t.after(() => root.unmount());
  function Chat() {
    native.useRoomHeartbeat(roomId, "ann", undefined, { url });
    return null;
  }
  root.render(h(Chat));
  await until(() => bob.room.members.get("ann")?.away);
});

test("an app that the system suspends for longer than the grace is away, and stays in the room", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const client = new ReactorClient(url);
  t.after(() => client.close());
  const statuses = [];
  function Chat() {
    const { status } = native.useRoomHeartbeat(roomId, "ann");
    statuses.push(status);
    return null;
  }
  const root = createRoot(document.createElement("div"));
  t.after(() => root.unmount());
  root.render(h(native.ReactorProvider, { client }, h(Chat)));
  await bob.sees("join ann");
  appBecomes("background");
  await bob.sees("join ann", "update ann away");
  // It runs no timers any more, and its socket is closed.
  client.drop(Infinity);
  await new Promise((resolve) => setTimeout(resolve, 1000 * Number(GRACE) + 2000));
  assert.deepEqual(await bob.all(), ["join ann", "update ann away"]);
  appBecomes("active");
  await bob.sees("join ann", "update ann away", "update ann here");
  assert.equal(client.rooms.get(roomId).resumed, true);
  assert.equal(statuses.at(-1), "connected");
});

test("it exports everything that the React hooks export", () => {
  assert.deepEqual(Object.keys(native).filter((name) => !(name in react)), ["watchApp"]);
  assert.deepEqual(Object.keys(react).filter((name) => !(name in native)), []);
});
