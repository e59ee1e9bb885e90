// A server of the wire with several clients on it, in memory and under a clock that the test moves: sockets that deliver
// when the test says so, or never. What it has applied is recorded, so that histories can be judged.
import assert from "node:assert/strict";
import { HEARTBEAT, TTL } from "./fake.mjs";

/** Times in milliseconds, as those of a real server by default. */
export const GRACE = 15_000;
export const PING = 45_000;
export const LIMITS = { message: 4000, data: 1000, id: 100 };

export class ModelServer {
  #rooms = new Map();
  #sockets = new Set();
  #ended = new Map();
  #banned = new Map();
  /** Everything written to a member: {device, room, user, data, by: "join" | "update"}. */
  writes = [];
  /** How many returns were answered by diffs. */
  returns = 0;
  /** The chance that a request is refused for now. */
  trouble = 0;

  constructor(random) {
    this.random = random;
  }

  get now() {
    return performance.now();
  }

  room(id) {
    if (!this.#rooms.has(id)) this.#rooms.set(id, { id, epoch: `e${this.now}`, version: 0, members: new Map(), diffs: [] });
    return this.#rooms.get(id);
  }

  member(roomId, user) {
    return this.room(roomId).members.get(user);
  }

  members(roomId) {
    return [...this.room(roomId).members.values()].map(shown).sort(byId);
  }

  // The network.

  opened(socket) {
    this.#sockets.add(socket);
    socket.rooms = new Map();
    socket.heardAt = this.now;
  }

  /** The server notices that a socket is gone. */
  lost(socket) {
    if (!this.#sockets.delete(socket)) return;
    for (const [roomId, user] of socket.rooms) this.#detach(roomId, user, socket);
  }

  /** Do what is due. */
  tick() {
    for (const socket of [...this.#sockets]) if (socket.dead && this.now - socket.heardAt >= PING) this.lost(socket);
    for (const room of this.#rooms.values()) {
      for (const member of [...room.members.values()]) {
        if (this.now >= member.graceUntil) this.#depart(room, member, "disconnected");
      }
    }
  }

  // What happens to members from outside.

  kick(roomId, user, reason = "kicked") {
    const room = this.room(roomId);
    const member = room.members.get(user);
    if (!member) return false;
    this.#ended.set(`${roomId} ${user}`, { reason, at: this.now });
    this.#depart(room, member, reason);
    return true;
  }

  ban(user, ms) {
    this.#banned.set(user, this.now + ms);
    for (const id of this.#rooms.keys()) this.kick(id, user, "banned");
  }

  /** Redis loses a member of whom no server knows a connection. */
  forget(roomId, user) {
    const member = this.member(roomId, user);
    if (member && !member.sockets.size) this.#depart(this.room(roomId), member, "disconnected");
  }

  // Requests.

  receive(socket, message) {
    socket.heardAt = this.now;
    if (!this.#sockets.has(socket)) return;
    const reply = (more) => socket.push({ ...more, id: message.id });
    const refuse = (code) => reply({ type: "error", code, message: code });
    if (message.type === "closing") return;
    if (message.type === "room:heartbeat") {
      socket.heartbeats += 1;
      return reply({ type: "room:heartbeat:ack", timestamp: 1 });
    }
    if (this.random() < this.trouble) return refuse(this.random() < 0.5 ? "too_many_requests" : "unavailable");
    const room = this.room(message.roomId);
    if (message.type === "join_room") return this.#join(socket, room, message, reply, refuse);
    if (message.type === "room:count") return reply({ type: "room:count", roomId: room.id, count: room.members.size });
    if (message.type === "room:members") return reply({ type: "room:members", ...position(room), members: this.members(room.id) });
    const member = room.members.get(socket.rooms.get(room.id));
    if (!member) return refuse("not_joined");
    if (message.type === "leave_room") {
      reply({ type: "room:left", roomId: room.id });
      socket.rooms.delete(room.id);
      member.sockets.delete(socket);
      // With the last connection the member leaves.
      if (!member.sockets.size) return this.#depart(room, member, "left");
      return this.#publish(room, { updated: [shown(member)] });
    }
    if (message.type === "room:update") {
      if (refusal(message.data)) return refuse(refusal(message.data));
      this.#write(socket, room, member, message, "update");
      reply({ type: "room:updated", roomId: room.id, version: room.version + 1 });
    } else {
      member.sockets.set(socket, message.type === "room:away");
      reply({ type: `${message.type}:ok`, roomId: room.id });
    }
    this.#publish(room, { updated: [shown(member)] });
  }

  #join(socket, room, { userId, resume, view = "members", ...given }, reply, refuse) {
    const ended = this.#ended.get(`${room.id} ${userId}`);
    if (resume && ended && ended.at >= resume.joinedAt) {
      return reply({ type: "room:force-leave", roomId: room.id, message: "out", reason: ended.reason, timestamp: 1 });
    }
    if (this.now < (this.#banned.get(userId) ?? 0)) return refuse("banned");
    if (refusal(given.data)) return refuse(refusal(given.data));
    const former = room.members.get(userId);
    const member = former ?? { userId, username: userId, joinedAt: this.now, sockets: new Map() };
    if (!former || !resume) this.#write(socket, room, member, given, "join", former);
    member.graceUntil = Infinity;
    // Who returns within the grace stays away until it says that it is back.
    const away = former && !former.sockets.size ? former.away : member.sockets.get(socket);
    member.sockets.set(socket, away ?? false);
    room.members.set(userId, member);
    this.#publish(room, former ? { updated: [shown(member)] } : { joined: [shown(member)] });
    socket.rooms.set(room.id, userId);
    socket.views.set(room.id, view);
    reply({
      type: "room:joined", userId, socketId: "s", ttl: TTL, heartbeatInterval: HEARTBEAT, resumed: Boolean(former), view,
      ...position(room), joinedAt: member.joinedAt, limits: LIMITS, ...(view === "members" && this.#since(room, resume)),
    });
  }

  /** The diffs since the position of a client that returns, or the list. */
  #since(room, { epoch, version, members } = {}) {
    const list = { members: this.members(room.id) };
    if (epoch !== room.epoch || members === undefined) return list;
    const known = room.diffs.find((diff) => diff.version === version);
    if (!known) return list;
    assert.equal(members, known.count, `members of ${room.id} at version ${version}`);
    // This server may have forgotten them.
    if (this.random() < 0.2) return list;
    this.returns += 1;
    return { diffs: room.diffs.filter((diff) => diff.version > version).map(({ epoch: _, type, roomId, ...diff }) => diff) };
  }

  #write(socket, room, member, { username, data }, by, former) {
    if (username !== undefined) member.username = username;
    if (data !== undefined) member.data = data;
    const { device } = socket;
    if (data !== undefined) this.writes.push({ device, room: room.id, user: member.userId, data, by, existed: Boolean(former) });
  }

  #detach(roomId, user, socket) {
    const member = this.member(roomId, user);
    if (!member?.sockets.has(socket)) return;
    member.away = shown(member).away;
    member.sockets.delete(socket);
    if (!member.sockets.size) member.graceUntil = this.now + GRACE;
    this.#publish(this.room(roomId), { updated: [shown(member)] });
  }

  /** A member leaves, and its sockets are notified. */
  #depart(room, member, reason) {
    room.members.delete(member.userId);
    for (const socket of member.sockets.keys()) {
      socket.rooms.delete(room.id);
      socket.push({ type: "room:force-leave", roomId: room.id, message: "out", reason, timestamp: 1 });
      if (!socket.rooms.size) socket.push({ close: 4003 });
    }
    this.#publish(room, { left: [{ userId: member.userId, reason }] });
  }

  #publish(room, changes) {
    const diff = { type: "room:diff", joined: [], updated: [], left: [], ...position(room), from: room.version, ...changes };
    room.version += 1;
    room.diffs.push({ ...diff, version: room.version });
    for (const socket of this.#sockets) {
      if (!socket.rooms.has(room.id)) continue;
      const view = socket.views.get(room.id);
      if (view === "members") socket.push({ ...diff, version: room.version });
      if (view === "count") socket.push({ type: "room:count", ...position(room) });
    }
  }
}

const position = (room) => ({ roomId: room.id, epoch: room.epoch, version: room.version, count: room.members.size });
const refusal = (data) => (data === "refused" ? "forbidden" : data?.length > LIMITS.data ? "data_too_big" : undefined);
const byId = (a, b) => (a.userId < b.userId ? -1 : 1);
const shown = ({ userId, username, data, joinedAt, sockets }) => ({
  userId, username, joinedAt, lastActiveAt: 0, connections: sockets.size,
  away: sockets.size > 0 && [...sockets.values()].every(Boolean),
  ...(data !== undefined && { data }),
});

/** The network of one device: its sockets, and whether they work. */
export class Device {
  sockets = [];
  online = true;

  constructor(name, server) {
    this.name = name;
    this.server = server;
    const device = this;
    this.WebSocket = class {
      rooms = new Map();
      views = new Map();
      heartbeats = 0;
      device = name;
      dead = false;
      ended = false;
      #toServer = [];
      #toClient = [];

      constructor() {
        this.opened = false;
        device.sockets.push(this);
      }

      send(text) {
        this.#toServer.push(JSON.parse(text));
      }

      push(message) {
        this.#toClient.push(message);
      }

      close() {
        this.#toServer.push({ close: true });
      }

      /** Move one message each way, or open. @returns {boolean} whether something moved */
      move() {
        if (this.ended || this.dead || !device.online) return false;
        if (!this.opened) {
          this.opened = true;
          server.opened(this);
          this.onopen?.();
          return true;
        }
        const up = this.#toServer.shift();
        if (up?.close) return this.#end();
        if (up) server.receive(this, up);
        const down = this.#toClient.shift();
        if (down?.close) return this.closed(down.close);
        if (down) this.onmessage?.({ data: JSON.stringify(down) });
        return Boolean(up ?? down);
      }

      /** The network or the server closes it. */
      closed(code) {
        if (this.ended) return false;
        this.#end();
        this.onclose?.({ code, reason: "" });
        return true;
      }

      /** It goes dead, and only time-outs notice. */
      die() {
        this.dead = true;
      }

      #end() {
        this.ended = true;
        server.lost(this);
        return true;
      }
    };
  }

  get last() {
    return this.sockets[this.sockets.length - 1];
  }

  /** @returns {boolean} whether something moved */
  move() {
    return this.sockets.map((socket) => socket.move()).some(Boolean);
  }

  cut(code) {
    for (const socket of this.sockets) socket.closed(code);
  }
}
