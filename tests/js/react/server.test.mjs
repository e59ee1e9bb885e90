// Rendering on a server, where there is no page, and taking over in the browser what was rendered there.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createElement as h } from "react";
import { renderToString } from "react-dom/server";
import {
  ReactorProvider, useMember, useOthers, useRoomCount, useRoomHeartbeat, useRoomMembers, useSelf,
} from "reactor-presence/react";

const { REACTOR_URL: url } = process.env;

function Chat({ roomId }) {
  const { status } = useRoomHeartbeat(roomId, "ann", () => {});
  const people = [useRoomMembers(roomId), useOthers(roomId)].map(({ length }) => length);
  return h("p", null, [status, ...people, useRoomCount(roomId), typeof useSelf(roomId), typeof useMember(roomId, "bob")].join(" "));
}

test("server rendering connects to nothing, and every room is empty", () => {
  assert.equal(globalThis.document, undefined);
  const expected = "<p>idle 0 0 0 undefined undefined</p>";
  assert.equal(renderToString(h(ReactorProvider, { url }, h(Chat, { roomId: "lobby" }))), expected);
  assert.equal(renderToString(h(Chat, { roomId: "lobby" })), expected);
  // A socket would keep this process from ending.
  assert.deepEqual(process.getActiveResourcesInfo().filter((name) => /TCP|Timeout/.test(name)), []);
});

test("a browser hydrates what a server rendered", async (t) => {
  const roomId = `hydrated-${process.pid}`;
  const element = h(ReactorProvider, { url }, h(Chat, { roomId }));
  const markup = renderToString(element);
  await import("./dom.mjs");
  const { until } = await import("./members.mjs");
  const { hydrateRoot } = await import("react-dom/client");
  const container = document.createElement("div");
  container.innerHTML = markup;
  const paragraph = container.firstChild;
  const complaints = [];
  const root = hydrateRoot(container, element, { onRecoverableError: (error) => complaints.push(error) });
  t.after(() => root.unmount());
  await until(() => container.textContent === "connected 1 0 1 object undefined");
  assert.equal(container.firstChild, paragraph);
  assert.deepEqual(complaints, []);
});
