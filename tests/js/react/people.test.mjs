// The hooks for people on a real server: React renders, and other clients join and leave rooms.
import assert from "node:assert/strict";
import { test } from "node:test";
import { url } from "./dom.mjs";
import { newRoom, until } from "./members.mjs";
import { StrictMode, createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { ReactorClient } from "reactor-presence";
import { ReactorProvider, usePeople, useStatus } from "reactor-presence/react";

/** Render, in strict mode and on a client of the test's own. */
function show(t, element) {
  const sent = [];
  class Socket extends WebSocket {
    send(text) {
      sent.push(JSON.parse(text));
      super.send(text);
    }
  }
  const client = new ReactorClient(url, { WebSocket: Socket });
  const container = document.createElement("div");
  const root = createRoot(container);
  const render = (child) => root.render(h(StrictMode, null, h(ReactorProvider, { client }, child)));
  t.after(() => {
    root.unmount();
    client.close();
  });
  render(element);
  return {
    client,
    render,
    /** The users of each request of a type. */
    sent: (type) => sent.filter((request) => request.type === type).map(({ userIds }) => userIds),
    text: () => container.textContent,
    reads: (text) => until(() => container.textContent === text, () => `"${text}", not "${container.textContent}"`),
  };
}

async function online(t, userId) {
  const client = new ReactorClient(url);
  t.after(() => client.close());
  return client.online({ userId });
}

const Status = ({ userId }) => `${userId} ${useStatus(userId)} `;
const Friends = ({ ids }) => {
  const { people, status, error } = usePeople(ids);
  return [status, error?.code, ...people.map(({ userId, status: each }) => `${userId} ${each}`)].filter(Boolean).join(", ");
};

test("components that show users share one request, and follow their states", async (t) => {
  const [ann, bob] = [newRoom("ann"), newRoom("bob")];
  const screen = show(t, [ann, bob, ann].map((userId, key) => h(Status, { key, userId })));
  await screen.reads(`${ann} offline ${bob} offline ${ann} offline `);
  assert.deepEqual(screen.sent("people:watch"), [[ann, bob]]);
  const room = await online(t, ann);
  await screen.reads(`${ann} online ${bob} offline ${ann} online `);
  await room.leave();
  await screen.reads(`${ann} offline ${bob} offline ${ann} offline `);
  screen.render("another screen");
  await until(() => screen.client.status === "idle");
});

test("a list that changes asks only for what is new, and keeps what is known", async (t) => {
  const [ann, bob] = [newRoom("ann"), newRoom("bob")];
  await online(t, ann);
  const screen = show(t, h(Friends, { ids: [ann, null] }));
  await screen.reads(`connected, ${ann} online`);
  screen.render(h(Friends, { ids: [ann, bob] }));
  await screen.reads(`connected, ${ann} online, ${bob} offline`);
  screen.render(h(Friends, { ids: [bob] }));
  await screen.reads(`connected, ${bob} offline`);
  await until(() => screen.sent("people:unwatch").length);
  assert.deepEqual(screen.sent("people:watch"), [[ann], [bob]]);
  assert.deepEqual(screen.sent("people:unwatch"), [[ann]]);
});

test("a refusal is shown, and those before are watched", async (t) => {
  const ids = Array.from({ length: 1000 }, (_, index) => `u${index}`);
  const Count = ({ more }) => {
    const { people, error } = usePeople([...ids, ...more]);
    return `${people.length} ${error?.code ?? ""}`;
  };
  const screen = show(t, h(Count, { more: [] }));
  await screen.reads("1000 ");
  screen.render(h(Count, { more: ["v"] }));
  await screen.reads("1000 too_many_people");
});

test("users who are not known yet are none", async (t) => {
  const screen = show(t, [h(Status, { key: 1, userId: undefined }), h(Friends, { key: 2, ids: undefined })]);
  await screen.reads("undefined undefined idle");
  assert.equal(screen.client.status, "idle");
});
