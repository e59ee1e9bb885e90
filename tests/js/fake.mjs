// A fake socket and clock that the test controls, and a client on both.
// Under test is the package, or the one file that was made of it.
const { ReactorClient, ReactorError } = await import(process.env.REACTOR_CLIENT ?? "../../reactor/js/index.js");
export { ReactorClient, ReactorError };

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

  /** Advance to the reconnect, and open the new socket. */
  static async again(tick, ms = 500) {
    await tick(ms);
    Socket.last.opens();
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

/** Let pending promises settle. */
export async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await null;
}

/** The monotonic clock, which goes with the timers, and the wall clock, which may be set. */
export class Clock {
  #set = 0;

  constructor(t) {
    const timers = Date.now.bind(Date);
    t.mock.method(performance, "now", timers);
    t.mock.method(Date, "now", () => timers() + this.#set);
  }

  /** Set the wall clock forward or back; timers do not notice, as in a machine that sleeps. */
  set(ms) {
    this.#set += ms;
  }
}

export function begin(t, options = {}) {
  Socket.all = [];
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  const clock = new Clock(t);
  t.mock.method(globalThis, "fetch", () => Promise.reject(new TypeError("no network")));
  const client = new ReactorClient("ws://here/ws", { WebSocket: Socket, random: () => 1, ...options });
  const tick = async (ms) => {
    t.mock.timers.tick(ms);
    await settle();
  };
  return { client, clock, seen: [], tick };
}

/** Record all events of a room, in short form. */
export function watch(room, seen) {
  for (const kind of ["join", "update", "leave", "sync"]) {
    room.on(kind, ({ kind: said, member: who, reason, count }) => {
      seen.push([said, who?.userId ?? count, ...(reason ? [reason] : [])].join(" "));
    });
  }
  room.on("force-leave", ({ message, reason }) => seen.push(`force-leave ${reason}: ${message}`));
  room.on("status", (status) => seen.push(status));
}

export async function enter(t, members = [member("me"), member("ann")], more = {}, options = {}) {
  const all = begin(t, options);
  const coming = all.client.join("lobby", { userId: "me", username: "Me" });
  await settle();
  Socket.last.opens();
  Socket.last.answers("join_room", joined(members, more));
  const room = await coming;
  watch(room, all.seen);
  return { ...all, room };
}
