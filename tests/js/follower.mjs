// Follows a room by its events alone and says what it holds when it is asked; any event that cannot be true ends it.
import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { ReactorClient } from "reactor-presence";

const client = new ReactorClient(process.argv[2], { WebSocket, backoff: { first: 30, most: 200 } });
const room = await client.join("lobby", { userId: "me" });
const held = new Map(room.members);
let told = 0;

room.on("join", ({ member }) => {
  assert.ok(!held.has(member.userId), `${member.userId} is here already`);
  held.set(member.userId, member);
});
room.on("leave", ({ member }) => assert.ok(held.delete(member.userId), `${member.userId} is not here`));
room.on("update", ({ member }) => {
  const { username, away, connections, data } = member;
  const known = held.get(member.userId);
  assert.ok(known, `${member.userId} is not here`);
  assert.notDeepEqual(known, { ...known, username, away, connections, data }, "nothing has changed");
  held.set(member.userId, member);
});
room.on("sync", () => assert.fail("nothing of this room is told as a count"));
room.on("change", (events) => {
  told += events.length;
  assert.deepEqual([...held.keys()].sort(), [...room.members.keys()].sort());
});

// An exception of a listener is only logged.
const { error } = console;
console.error = (problem) => {
  error(problem);
  process.exit(1);
};

console.log("ready");
for await (const _ of createInterface({ input: process.stdin })) {
  const members = [...held.values()].map(({ userId, away, data }) => ({ userId, away, data })).sort((a, b) => (a.userId < b.userId ? -1 : 1));
  console.log(JSON.stringify({ members, told, status: room.status }));
}
client.close();
