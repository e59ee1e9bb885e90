// Random histories of two devices of one user and another member, against one model: refused changes, losses at every
// step, kicks, bans, and clocks that are set. HISTORIES says how many, SEED with which.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Clock, ReactorClient, settle } from "./fake.mjs";
import { Device, ModelServer } from "./model.mjs";

const HISTORIES = Number(process.env.HISTORIES ?? 100);
const SEED = Number(process.env.SEED ?? 1);
const STEPS = 60;
const ROOMS = ["x", "y"];
const CODES = [1000, 1001, 1006, 1006, 1009, 1011, 1012, 4000, 4008, 4029];

/** Numbers from 0 to 1 by a seed: mulberry32. */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

class History {
  log = [];
  stays = [];
  counter = 0;

  constructor(t, clock, seed) {
    Object.assign(this, { t, clock, random: generator(seed) });
    this.server = new ModelServer(this.random);
    this.people = [["a", "ann"], ["b", "ann"], ["c", "cy"]].map(([name, user]) => {
      const device = new Device(name, this.server);
      const { WebSocket } = device;
      const client = new ReactorClient("ws://model/ws", { WebSocket, random: this.random });
      return { name, user, device, client };
    });
  }

  pick(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  async tick(ms) {
    this.t.mock.timers.tick(ms);
    this.server.tick();
    await settle();
  }

  /** Let messages move: some, or all. */
  async move(rounds) {
    for (let round = 0; round < rounds; round += 1) {
      let moved = false;
      for (const { device } of this.people) moved = device.move() || moved;
      await settle();
      if (!moved) return;
    }
  }

  // What applications do.

  join(person, roomId) {
    const { user, client } = person;
    const view = this.pick(["members", "members", "count", "none"]);
    const data = this.random() < 0.5 ? this.value(person) : undefined;
    const known = client.rooms.get(roomId);
    client.join(roomId, { userId: user, view: known && this.random() < 0.5 ? undefined : view, data }).then(
      () => this.note(data, "resolved"),
      (error) => this.note(data, error.code),
    );
    return settle();
  }

  /** The rooms that clients have now: one that is being left is joined again only afterwards. */
  findStays() {
    for (const person of this.people) {
      for (const [roomId, room] of person.client.rooms) {
        if (!this.stays.some((stay) => stay.room === room)) this.stays.push({ ...person, room, roomId, left: false });
      }
    }
  }

  /** Values of a device count up. */
  value(person) {
    return `${person.name}${(this.counter += 1)}`;
  }

  outcomes = new Map();
  note(value, outcome) {
    if (typeof value === "string") this.outcomes.set(value, { outcome, writes: this.server.writes.length });
  }

  update(stay) {
    const bad = this.random();
    const value = bad < 0.1 ? "refused" : bad < 0.15 ? { n: 1n } : bad < 0.2 ? "x".repeat(3000) : this.value(stay);
    if (typeof value === "string" && value.length < 10 && value !== "refused") this.outcomes.set(value, { outcome: "pending" });
    stay.room.update(value).then(
      () => this.note(value, "resolved"),
      (error) => {
        if (bad >= 0.1 && bad < 0.15) assert.ok(["bad_request", "force-leave", "not_joined"].includes(error.code), error.code);
        this.note(value, error.code);
      },
    );
  }

  leave(stay) {
    stay.left = true;
    stay.room.leave();
  }

  // One step of anything.

  async step() {
    this.findStays();
    const { random, server, clock } = this;
    const person = this.pick(this.people);
    const open = this.stays.filter(({ room }) => !room.closed);
    const stay = open.length ? this.pick(open) : undefined;
    const roomId = this.pick(ROOMS);
    const steps = {
      join: () => this.join(person, roomId),
      update: () => stay && this.update(stay),
      again: () => stay && this.update(stay),
      away: () => void (random() < 0.5 ? stay?.room.away() : stay?.room.back()),
      leave: () => stay && random() < 0.3 && this.leave(stay),
      cut: () => person.device.cut(this.pick(CODES)),
      die: () => person.device.last?.die(),
      return: async () => {
        person.device.online = true;
        person.device.cut(1006);
        await this.tick(1000);
        await this.quiet();
      },
      offline: () => {
        person.device.online = false;
        if (random() < 0.7) person.device.cut(1006);
      },
      online: () => (person.device.online = true),
      kick: () => random() < 0.4 && this.out(roomId, "ann", "kick"),
      ban: () => random() < 0.1 && this.out(undefined, "ann", "ban"),
      forget: () => server.forget(roomId, "ann"),
      clock: () => clock.set(this.pick([-600_000, 600_000, 3_600_000, -1000])),
      trouble: () => (server.trouble = this.pick([0, 0, 0.2])),
      wake: () => person.client.wake(),
      wait: () => this.tick(this.pick([1, 100, 1000, 5000, 20_000])),
      quiet: () => this.quiet(),
      move: () => this.move(1 + Math.floor(random() * 4)),
      moveAll: () => this.move(100),
    };
    const name = this.pick(Object.keys(steps));
    this.log.push(`${name} ${person.name} ${stay?.name ?? "-"}/${stay?.roomId ?? "-"} ${roomId}`);
    await steps[name]();
    if (random() < 0.5) await this.move(2);
    this.check();
  }

  /** A member is removed: every stay of the user that the server has seen is over, wherever its device is. */
  out(roomId, user, how) {
    const ended = this.stays.filter((stay) => stay.user === user && !stay.room.closed && stay.room.epoch && (!roomId || stay.roomId === roomId));
    const members = new Map(ROOMS.map((id) => [id, this.server.member(id, user)]));
    if (how === "ban") this.server.ban(user, 60_000);
    else this.server.kick(roomId, user);
    for (const stay of ended) {
      const member = members.get(stay.roomId);
      // A stay that began before the member that was removed is over too: it had ended by the grace, and may join anew.
      if (member && stay.joinedAt === member.joinedAt) stay.out = true;
    }
  }

  /** What holds at any time. */
  check() {
    this.findStays();
    const { writes } = this.server;
    for (; this.checked < writes.length; this.checked += 1) {
      const { device, data, by, existed } = writes[this.checked];
      assert.notEqual(data, "refused");
      const known = this.outcomes.get(data);
      const standIn = by === "join" && !existed;
      const acknowledged = known?.outcome === "resolved" && known.writes <= this.checked;
      assert.ok(standIn || !acknowledged, `${data} was acknowledged, and is written again by ${by}`);
      if (standIn) continue;
      const number = Number(data.slice(1));
      const former = this.latest.get(`${device} ${writes[this.checked].room}`) ?? 0;
      assert.ok(number >= former, `${data} after ${device}${former}: an older value after a newer one`);
      this.latest.set(`${device} ${writes[this.checked].room}`, number);
    }
    for (const stay of this.stays) {
      const { room, roomId, user, device } = stay;
      const socket = device.last;
      // The joining that the client knows of.
      if (room.joined && socket?.rooms.get(roomId) === user) stay.joinedAt = this.server.member(roomId, user)?.joinedAt;
    }
  }

  /** All messages under way arrive: who has the room's version has the room. */
  async quiet() {
    await this.move(1000);
    for (const { name, room, roomId } of this.stays) {
      const { epoch, version } = this.server.room(roomId);
      if (!room.joined || room.view !== "members" || room.epoch !== epoch || room.version !== version) continue;
      const seen = [...room.members.values()].sort((a, b) => (a.userId < b.userId ? -1 : 1));
      assert.deepEqual(seen, this.server.members(roomId), `${name}/${roomId} at version ${version}`);
    }
  }

  checked = 0;
  latest = new Map();

  // The end: the network heals, and after a while everything agrees.

  async end() {
    this.server.trouble = 0;
    for (const { device } of this.people) device.online = true;
    for (let round = 0; round < 40; round += 1) {
      await this.move(200);
      await this.tick(5000);
      this.check();
    }
    await this.move(200);
    for (const { name, room, roomId, user, left, out, device, client } of this.stays) {
      const where = `${name}/${roomId}`;
      if (left) assert.ok(room.closed, `${where} was left`);
      if (out && !left) assert.equal(room.error?.code, "force-leave", `${where} was removed, and is ${room.status}`);
      if (room.closed) {
        if (!left) assert.ok(room.error, `${where} is closed for a reason`);
        continue;
      }
      assert.equal(client.rooms.get(roomId), room);
      assert.equal(room.status, "connected", `${where}: ${JSON.stringify(room.error)} ${client.status}`);
      const member = this.server.member(roomId, user);
      assert.ok(member?.sockets.has(device.last), `${where} is in the room`);
      assert.equal(room.count, this.server.room(roomId).members.size || room.view === "none" ? room.count : 0);
      if (room.view !== "members") continue;
      const seen = [...room.members.values()].map((one) => ({ ...one, lastActiveAt: 0 })).sort((a, b) => (a.userId < b.userId ? -1 : 1));
      assert.deepEqual(seen, this.server.members(roomId), where);
      assert.equal(room.isAway, member.sockets.get(device.last), `${where} is away`);
    }
    for (const roomId of ROOMS) {
      const here = new Set(this.stays.filter(({ room, roomId: id }) => !room.closed && id === roomId).map(({ user }) => user));
      assert.deepEqual(this.server.members(roomId).map(({ userId }) => userId), [...here].sort(), `members of ${roomId}`);
    }
    for (const [value, { outcome }] of this.outcomes) assert.notEqual(outcome, "pending", `the change to ${value} has no outcome`);
    // Heartbeats go on.
    for (const { client, device } of this.people) {
      if (!client.rooms.size) continue;
      const before = device.last.heartbeats;
      for (let second = 0; second < 30; second += 1) {
        await this.move(50);
        await this.tick(1000);
      }
      assert.ok(device.last.heartbeats > before, "heartbeats go on");
    }
    for (const { client } of this.people) client.close();
    await settle();
  }
}

test(`${HISTORIES} random histories from seed ${SEED}`, async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
  t.mock.method(globalThis, "fetch", () => Promise.reject(new TypeError("no network")));
  const errors = t.mock.method(console, "error", () => {});
  const clock = new Clock(t);
  let returns = 0;
  for (let seed = SEED; seed < SEED + HISTORIES; seed += 1) {
    const history = new History(t, clock, seed);
    try {
      for (let step = 0; step < STEPS; step += 1) await history.step();
      await history.end();
      returns += history.server.returns;
      assert.equal(errors.mock.callCount(), 0, String(errors.mock.calls[0]?.arguments[0]?.stack));
    } catch (error) {
      error.message = `seed ${seed}: ${error.message}\n${history.log.join("\n")}`;
      throw error;
    }
  }
  assert.ok(returns * 4 > HISTORIES, `${returns} returns were answered by diffs`);
});
