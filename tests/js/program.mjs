// A program that uses the client and obeys commands, one line of JSON each: for the transcripts.
import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { ReactorClient } from "reactor-presence";
import { people } from "reactor-presence/people";

const [url, options] = process.argv.slice(2);
const { token, tokens } = JSON.parse(options);
const client = new ReactorClient(url, {
  WebSocket,
  token: tokens ? async () => tokens.shift() : token,
  backoff: { first: 20, most: 200 },
});
let room;
let watched;

const say = (line) => console.log(JSON.stringify(line));

function listenToMembers(followed) {
  for (const kind of ["join", "leave", "update"]) {
    followed.on(kind, ({ member, reason }) => say({ event: [kind, member.userId, ...(reason ? [reason] : [])].join(" ") }));
  }
  followed.on("sync", ({ count }) => say({ event: `sync ${count}` }));
  followed.on("status", (status) => say({ event: `status ${status}` }));
}

/** Wait until what is watched is known, or refused. */
const known = (object) =>
  new Promise((resolve, reject) => {
    object.on("status", (status) => status === "connected" && resolve());
    object.on("error", reject);
  });

const short = ({ userId, status, lastSeen }) => [userId, status, ...(lastSeen ? ["seen"] : [])].join(" ");

function listen() {
  listenToMembers(room);
  room.on("message", ({ data }) => say({ event: `message ${JSON.stringify(data)}` }));
  room.on("force-leave", ({ reason, message }) => say({ event: `force-leave ${reason}: ${message}` }));
}

const deeds = {
  async join(who) {
    const joined = await client.join("lobby", who);
    if (joined !== room) {
      room = joined;
      listen();
    }
  },
  async online(who) {
    room = await client.online(who);
    listen();
  },
  async watch(options) {
    watched = client.watch("lobby", options);
    await known(watched);
    listenToMembers(watched);
  },
  async people(userIds) {
    watched = people(client, userIds);
    await known(watched);
    watched.on("change", (changed) => changed[0] && say({ event: changed.map(short).join(", ") }));
    watched.on("status", (status) => say({ event: `status ${status}` }));
    return watched.getSnapshot().people.map(short);
  },
  remove: async (userIds) => watched.remove(userIds),
  update: ({ data, username }) => room.update(data, { username }),
  patch: (patch) => room.patch(patch),
  send: (data, to) => room.send(data, { to }),
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
    const shown = room ?? watched;
    const { count, view, status, me } = shown ?? {};
    const names = shown?.members && { members: ids(shown.members.values()), others: ids(shown.others ?? []) };
    say({ looked: { ...names, count, view, status, me: me?.username ?? null } });
  } else {
    deeds[deed](...given).then(
      (result) => say({ done: deed, with: ["count", "members", "isPresent", "people"].includes(deed) ? result : null }),
      ({ code, message }) => say({ refused: deed, code, message }),
    );
  }
}
client.close();
