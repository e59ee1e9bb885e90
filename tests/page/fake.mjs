// A socket and a clock that the test moves, and a client on both.
import { ReactorClient } from "../../reactor/web/client.js";

export const HEARTBEAT = 25_000;
export const TTL = 21_600_000;

export class Socket {
  static all = [];
  static get last() {
    return Socket.all[Socket.all.length - 1];
  }

  constructor(url, protocols) {
    Object.assign(this, { url, protocols, sent: [], closed: false });
    Socket.all.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  opens() {
    this.onopen();
  }

  says(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  ends(code, reason = "") {
    this.onclose?.({ code, reason });
  }

  of(type) {
    return this.sent.filter((message) => message.type === type);
  }

  answers(type, reply) {
    const { id } = this.of(type).at(-1);
    this.says({ ...reply, id });
  }
}

export const member = (userId, more = {}) => ({
  userId, username: userId, joinedAt: 1000, lastActiveAt: 1000, away: false, connections: 1, ...more,
});
export const joined = (members, more = {}) => ({
  type: "room:joined", roomId: "lobby", userId: "me", socketId: "n.1", ttl: TTL, heartbeatInterval: HEARTBEAT,
  resumed: false, epoch: "e", version: 5, count: members.length, view: "members", members, ...more,
});
export const diff = (from, more = {}) => ({
  type: "room:diff", roomId: "lobby", epoch: "e", from, version: from + 1, count: 2, joined: [], updated: [], left: [],
  ...more,
});
export const error = (code) => ({ type: "error", code, message: `because of ${code}` });


export function begin(t, options = {}) {
  Socket.all = [];
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  const client = new ReactorClient("ws://here/ws", { WebSocket: Socket, random: () => 1, ...options });
  const seen = { changes: [], ends: [], refused: [], syncs: 0, counts: [] };
  return { client, seen, tick: (ms) => t.mock.timers.tick(ms) };
}

function watch(room, seen) {
  room.on("change", (change) => seen.changes.push(change));
  room.on("force-leave", (end) => seen.ends.push(end));
  room.on("refused", (why) => seen.refused.push(why));
  room.on("sync", () => (seen.syncs += 1));
  room.on("count", (count) => seen.counts.push(count));
}

export async function enter(t, members = [member("me"), member("ann")], more = {}) {
  const all = begin(t);
  const coming = all.client.join("lobby", { userId: "me", username: "Me" });
  Socket.last.opens();
  Socket.last.answers("join_room", joined(members, more));
  const room = await coming;
  watch(room, all.seen);
  return { ...all, room };
}
