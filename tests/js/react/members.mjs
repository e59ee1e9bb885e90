// Other members of the room, with their own sockets, and waiting for their events.
import { setTimeout as pause } from "node:timers/promises";
import { ReactorClient } from "reactor-presence";
import { WebSocket } from "ws";

const PATIENCE = 15_000;
let rooms = 0;

/** A room that no other test uses. */
export const newRoom = (kind = "room") => `${kind}-${process.pid}-${(rooms += 1)}`;

/** Wait until `read` returns a value. */
export async function until(read, what = read) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const got = read();
    if (got) return got;
    if (Date.now() > end) throw new Error(`in vain: ${what === read ? read : what()}`);
    await pause(5);
  }
}

/** A member that records the events of the other members: ["join bob", "leave bob left"]. */
export async function watcher(t, url, roomId, userId = "watcher") {
  const client = new ReactorClient(url, { WebSocket });
  t.after(() => client.close());
  const room = await client.join(roomId, { userId });
  const seen = [];
  room.on("change", (events) => {
    for (const { kind, member, reason } of events) {
      if (kind !== "sync" && member.userId !== userId) {
        seen.push([kind, member.userId, reason, kind === "update" && (member.away ? "away" : "here")].filter(Boolean).join(" "));
      }
    }
  });
  let marks = 0;
  return {
    client,
    room,
    seen,
    /** Wait until this number of events was recorded. */
    sees: (...lines) => until(() => seen.length >= lines.length, () => seen).then(() => seen),
    /** All events until now: those sent before have arrived when this client's own update comes back. */
    async all() {
      marks += 1;
      await room.update({ marks });
      await until(() => room.me?.data?.marks === marks);
      return seen;
    },
  };
}
