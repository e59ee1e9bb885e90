// The likely mistakes in a component, and the sentence that each of them gets.
import assert from "node:assert/strict";
import { test } from "node:test";
import { url } from "./dom.mjs";
import { newRoom, until } from "./members.mjs";
import { Component, createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { ReactorClient } from "reactor-presence";
import { ReactorProvider, useOthers, useRoomEvent, useRoomHeartbeat, useRoomMembers } from "reactor-presence/react";

class Boundary extends Component {
  state = {};
  static getDerivedStateFromError = (error) => ({ error });
  render() {
    return this.state.error?.message ?? this.props.children;
  }
}

/** Render an element, and return what is shown once `ready` holds. */
async function shown(t, element, ready = (text) => text) {
  t.mock.method(console, "error", () => {});
  const container = document.createElement("div");
  const root = createRoot(container);
  t.after(() => root.unmount());
  root.render(h(Boundary, null, element));
  await until(() => ready(container.textContent), () => container.textContent);
  return container.textContent;
}

/** A component that calls a hook. */
const using = (hook) => h(() => (hook(), null));
const provided = (props) => h(ReactorProvider, props, "rendered");
const heartbeat = (options) => using(() => useRoomHeartbeat("lobby", "ann", undefined, options));
const client = new ReactorClient(url);

for (const [element, sentence] of [
  [provided({ url: 8765 }), "ReactorProvider: `url` takes an address, as in wss://example.org/ws; it is 8765."],
  [provided({ client: url }), `ReactorProvider: \`client\` takes a ReactorClient; an address is \`url\`; it is "${url}".`],
  [provided({ token: Promise.resolve("x") }), "ReactorProvider: `token` takes a token, or a function that returns one: pass the function itself, without calling it; it is a promise."],
  [provided({ client, url }), "ReactorProvider: `client` has its own address and token; pass `url` and `token` where it is created."],
  [provided({ client, token: "x" }), "ReactorProvider: `client` has its own address and token; pass `url` and `token` where it is created."],
  [using(() => useRoomHeartbeat({ id: "lobby" }, "ann")), "useRoomHeartbeat: `roomId` takes text or a whole number; it is an object."],
  [using(() => useRoomHeartbeat("lobby", { id: "ann" })), "useRoomHeartbeat: `userId` takes text or a whole number; it is an object."],
  [using(() => useRoomHeartbeat("lobby", NaN)), "useRoomHeartbeat: `userId` takes text or a whole number; it is NaN."],
  [using(() => useRoomHeartbeat("lobby", "ann", { username: "Ann" })), "useRoomHeartbeat: `onForceLeave` takes a function; the options come after it; it is an object."],
  [using(() => useRoomHeartbeat("lobby", "ann", undefined, url)), `useRoomHeartbeat: options are an object, as in { url }; they are "${url}".`],
  [heartbeat({ username: 7 }), "useRoomHeartbeat: `username` takes a name, as text; it is 7."],
  [heartbeat({ username: "  " }), 'useRoomHeartbeat: `username` takes a name, as text; it is "  ".'],
  [heartbeat({ view: "all" }), 'useRoomHeartbeat: `view` takes "members" or "count" or "none"; it is "all".'],
  [heartbeat({ throttle: "1s" }), 'useRoomHeartbeat: `throttle` takes a number of milliseconds; it is "1s".'],
  [heartbeat({ awayAfter: -1 }), "useRoomHeartbeat: `awayAfter` takes a number of milliseconds; it is -1."],
  [heartbeat({ linger: "5" }), 'useRoomHeartbeat: `linger` takes a number of milliseconds; it is "5".'],
  [heartbeat({ watch: true }), "useRoomHeartbeat: `watch` takes a function, or null; it is true."],
  [using(() => useRoomMembers("lobby", url)), `useRoomMembers: options are an object, as in { url }; they are "${url}".`],
  [using(() => useOthers(["lobby"])), "useOthers: `roomId` takes text or a whole number; it is an object."],
  [using(() => useRoomEvent("lobby", "join")), "useRoomEvent: `listener` takes a function; it is missing."],
]) {
  test(sentence, async (t) => {
    assert.equal(await shown(t, element), sentence);
  });
}

test("what is not known yet is no mistake", async (t) => {
  const element = h(() => {
    const { status } = useRoomHeartbeat(null, undefined, null, { url: undefined, token: undefined, username: undefined });
    return `${status} ${useRoomMembers(undefined).length}`;
  });
  assert.equal(await shown(t, element), "idle 0");
});

test("without a server the sentence names ReactorProvider", async (t) => {
  const { location } = globalThis;
  globalThis.location = undefined;
  t.after(() => (globalThis.location = location));
  const element = h(ReactorProvider, null, h(Boundary, null, heartbeat()));
  assert.equal(
    await shown(t, element),
    "no server is known: pass `url`, as in wss://example.org/ws, to ReactorProvider, or with the options of the hook",
  );
});

test("data that is too big is named in `error`, and the member joins without it", async (t) => {
  const roomId = newRoom();
  const element = h(() => {
    const { status, error } = useRoomHeartbeat(roomId, "ann", undefined, { url, data: "x".repeat(5000) });
    return `${status} ${error?.code}`;
  });
  assert.equal(await shown(t, element, (text) => text.startsWith("connected")), "connected data_too_big");
});
