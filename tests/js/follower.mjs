// Applies the events of a room and prints the members on request; an event that cannot be true ends it.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { ReactorClient } from "reactor-presence";

const client = new ReactorClient(process.argv[2], { WebSocket, backoff: { first: 30, most: 200 } });
const room = await client.join("lobby", { userId: "me" });
const applied = new Map(room.members);
let received = 0;

room.on("join", ({ member }) => {
  assert.ok(!applied.has(member.userId), `${member.userId} is here already`);
  applied.set(member.userId, member);
});
room.on("leave", ({ member }) => assert.ok(applied.delete(member.userId), `${member.userId} is not here`));
room.on("update", ({ member }) => {
  const { username, away, connections, data } = member;
  const known = applied.get(member.userId);
  assert.ok(known, `${member.userId} is not here`);
  assert.notDeepEqual(known, { ...known, username, away, connections, data }, "nothing has changed");
  applied.set(member.userId, member);
});
room.on("sync", () => assert.fail("this room is never served as a count"));
room.on("change", (events) => {
  received += events.length;
  assert.deepEqual([...applied.keys()].sort(), [...room.members.keys()].sort());
});

// An exception of a listener is only logged.
const { error } = console;
console.error = (problem) => {
  error(problem);
  process.exit(1);
};

console.log("ready");
for await (const _ of createInterface({ input: process.stdin })) {
  const members = [...applied.values()].map(({ userId, away, data }) => ({ userId, away, data })).sort((a, b) => (a.userId < b.userId ? -1 : 1));
  console.log(JSON.stringify({ members, received, status: room.status }));
}
client.close();
