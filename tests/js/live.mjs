// Shared by the tests against a real server: its address, WebSocket for Node.js, and waiting for conditions.
import { WebSocket } from "ws";
import { ReactorClient } from "reactor-presence";

export const URL = process.env.REACTOR_URL;

/** A client that is closed with the test. */
export function client(t, options = {}) {
  // Node.js has its own WebSocket behind a flag.
  const made = new ReactorClient(URL, { WebSocket: globalThis.WebSocket ?? WebSocket, ...options });
  t.after(() => made.close());
  return made;
}

/** A growing list of all events of a room, in short form. */
export function eventsOf(room) {
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
