// Where the server asks who one is: the provider's token, and the newest one at each connecting.
import assert from "node:assert/strict";
import { test } from "node:test";
import { url } from "./dom.mjs";
import { newRoom, until } from "./members.mjs";
import { StrictMode, createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { ReactorProvider, useRoomCount, useRoomHeartbeat } from "reactor-presence/react";

const { GOOD_TOKEN: good, BAD_TOKEN: bad, LIMITED_TOKEN: limited } = process.env;

function show(t, roomId) {
  function Chat() {
    const { status, error } = useRoomHeartbeat(roomId, "ann");
    return `${status} ${useRoomCount(roomId)} ${error?.closeCode ?? error?.code}`;
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

test("without a token the error says where to pass it, and the room is joined as soon as it is there", async (t) => {
  const roomId = newRoom();
  const Chat = () => {
    const { status, error } = useRoomHeartbeat(roomId, "ann");
    return error?.message ?? status;
  };
  const container = document.createElement("div");
  const root = createRoot(container);
  t.after(() => root.unmount());
  const reads = (text) => until(() => container.textContent === text, () => container.textContent);
  root.render(h(ReactorProvider, { url }, h(Chat)));
  await reads("the server requires a token: pass `token` to ReactorProvider, or with the options of the hook");
  root.render(h(ReactorProvider, { url, token: good }, h(Chat)));
  await reads("connected");
});

test("a token of another user, or of other rooms, is named as the reason", async (t) => {
  for (const [token, userId, roomId, reason] of [
    [good, "bob", newRoom(), "the token is for another user: pass the id of its user as `userId`"],
    [limited, "ann", newRoom(), "the token does not allow this room: add it to the claim rooms"],
    [limited, "ann", "lobby", "connected"],
  ]) {
    const Chat = () => {
      const { status, error } = useRoomHeartbeat(roomId, userId);
      return error?.message ?? status;
    };
    const container = document.createElement("div");
    const root = createRoot(container);
    root.render(h(ReactorProvider, { url, token }, h(Chat)));
    await until(() => container.textContent === reason, () => container.textContent);
    root.unmount();
  }
});

test("the newest token function is used", async (t) => {
  const screen = show(t, newRoom());
  screen.render(() => Promise.reject(new Error("not yet")));
  await screen.reads("connecting 0 undefined");
  screen.render(() => good);
  await screen.reads("connected 1 undefined");
});
