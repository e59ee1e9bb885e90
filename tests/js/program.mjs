// A program that uses the client and obeys commands, one line of JSON each: for the transcripts.
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { ReactorClient } from "reactor-presence";

const [url, options] = process.argv.slice(2);
const { token, tokens } = JSON.parse(options);
const client = new ReactorClient(url, {
  WebSocket,
  token: tokens ? async () => tokens.shift() : token,
  backoff: { first: 20 },
});
let room;

const say = (line) => console.log(JSON.stringify(line));

function listen() {
  for (const kind of ["join", "leave", "update"]) {
    room.on(kind, ({ member, reason }) => say({ event: [kind, member.userId, ...(reason ? [reason] : [])].join(" ") }));
  }
  room.on("sync", ({ count }) => say({ event: `sync ${count}` }));
  room.on("message", ({ data }) => say({ event: `message ${JSON.stringify(data)}` }));
  room.on("force-leave", ({ reason, message }) => say({ event: `force-leave ${reason}: ${message}` }));
  room.on("status", (status) => say({ event: `status ${status}` }));
}

const deeds = {
  async join(who) {
    const joined = await client.join("lobby", who);
    if (joined !== room) {
      room = joined;
      listen();
    }
  },
  update: ({ data, username }) => room.update(data, { username }),
  away: () => room.away(),
  back: () => room.back(),
  leave: () => room.leave(),
  count: async (roomId) => (await client.request({ type: "room:count", roomId })).count,
  members: async (roomId) =>
    (await client.request({ type: "room:members", roomId })).members.map(({ userId }) => userId).sort(),
  isPresent: async (roomId, userId) => (await client.request({ type: "room:is_present", roomId, userId })).present,
};

const ids = (members) => [...members].map(({ userId }) => userId).sort();

for await (const line of createInterface({ input: process.stdin })) {
  const [deed, ...given] = JSON.parse(line);
  if (deed === "look") {
    const { count, view, status, me } = room ?? {};
    const names = room && { members: ids(room.members.values()), others: ids(room.others) };
    say({ looked: { ...names, count, view, status, me: me?.username ?? null } });
  } else {
    deeds[deed](...given).then(
      (result) => say({ done: deed, with: ["count", "members", "isPresent"].includes(deed) ? result : null }),
      ({ code, message }) => say({ refused: deed, code, message }),
    );
  }
}
client.close();
