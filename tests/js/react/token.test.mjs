// Where the server asks who one is: the provider's token, and the newest one at each connecting.
import assert from "node:assert/strict";
import { test } from "node:test";
import { url } from "./dom.mjs";
import { newRoom, until } from "./members.mjs";
import { StrictMode, createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { ReactorProvider, useRoomCount, useRoomHeartbeat } from "reactor-presence/react";

const { GOOD_TOKEN: good, BAD_TOKEN: bad } = process.env;

function show(t, roomId) {
  function Chat() {
    const { status, error } = useRoomHeartbeat(roomId, "ann");
    return `${status} ${useRoomCount(roomId)} ${error?.closeCode}`;
  }
  const container = document.createElement("div");
  const root = createRoot(container);
  t.after(() => root.unmount());
  return {
    render: (token) => root.render(h(StrictMode, null, h(ReactorProvider, { url, token }, h(Chat)))),
    reads: (text) => until(() => container.textContent === text, () => container.textContent),
  };
}

test("a token is a string or a function", async (t) => {
  let asked = 0;
  for (const token of [good, async () => ((asked += 1), good)]) {
    const screen = show(t, newRoom());
    screen.render(token);
    await screen.reads("connected 1 undefined");
  }
  assert.equal(asked, 1);
});

test("a rejected token is reported, and not retried forever", async (t) => {
  const screen = show(t, newRoom());
  screen.render(bad);
  await screen.reads("closed 0 4001");
});

test("the newest token function is used", async (t) => {
  const screen = show(t, newRoom());
  screen.render(() => Promise.reject(new Error("not yet")));
  await screen.reads("connecting 0 undefined");
  screen.render(() => good);
  await screen.reads("connected 1 undefined");
});
