// What the tests against a real server share: its address, sockets of Node.js, and waiting for what is to come.
import { WebSocket } from "ws";
import { ReactorClient } from "reactor-presence";

export const URL = process.env.REACTOR_URL;

/** A client that is closed with the test. */
export function client(t, options = {}) {
  // Node.js has one of its own where it is asked for it.
  const made = new ReactorClient(URL, { WebSocket: globalThis.WebSocket ?? WebSocket, ...options });
  t.after(() => made.close());
  return made;
}

/** All that a room tells, in short, as it grows. */
export function heard(room) {
  const seen = [];
  for (const kind of ["join", "leave", "update"]) {
    room.on(kind, ({ member, reason }) => seen.push([kind, member.username, ...(reason ? [reason] : [])].join(" ")));
  }
  room.on("sync", ({ count }) => seen.push(`sync ${count}`));
  room.on("force-leave", ({ message }) => seen.push(`force-leave: ${message}`));
  return seen;
}

export async function until(ready, what = String(ready)) {
  const end = Date.now() + 10_000;
  while (!ready()) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
