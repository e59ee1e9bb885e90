/**
 * A room as it was reported to the application, kept apart from the room as it is known.
 *
 * Pure. The view advances with each snapshot and diff; `reported` changes only by events. So an application that applies
 * the events holds exactly `reported`, whatever happened in between: a diff received twice, a snapshot after a gap or
 * after a reconnect become the difference between the two.
 *
 * Two things in a view are not reported at once, since they are what Redis shows after it lost its data and before the
 * servers have registered their members again: a list without this client's own member, while it is in the room; and
 * the absence, from a new epoch of the room, of members of the previous epoch, which may be registered in a moment.
 * `settle` ends the waiting and reports the view as it is.
 */
import { RoomView, differenceBetween } from "./view.js";

/**
 * @typedef {import("./index.js").Member} Member
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").View} View
 * @typedef {Omit<import("./view.js").Diff, "epoch">[]} Diffs
 * @typedef {{epoch: string, version: number, count: number, members?: Member[], diffs?: Diffs, view?: View}} Snapshot
 */

export class ReportedRoom extends RoomView {
  /** This client's own user, once known; an observer has none. */
  userId = "";
  /** @type {View} what the server sends of the room */
  served = "none";
  /** @type {Map<string, Member>} as reported, by user id; empty unless they are served */
  reported = new Map();
  #roomId;
  #epoch = "";
  /** @type {Set<string>} */
  #missing = new Set();
  /** @type {Map<string, string>} reasons of departures, by user id, from diffs */
  #reasons = new Map();

  /** @param {string} roomId */
  constructor(roomId) {
    super();
    this.#roomId = roomId;
  }

  /** The number of members, as reported. */
  get size() {
    return this.served === "members" ? this.reported.size : this.count;
  }

  /** Whether a snapshot has to be requested. */
  get needsSnapshot() {
    return this.served === "members" && this.waiting;
  }

  /** What the server needs to know to send what has changed since, if it sent members. */
  get position() {
    const { epoch, version, served, members } = this;
    return { epoch, version, members: served === "members" ? members.size : undefined };
  }

  /** Whether changes are withheld: call `settle` once servers had time to register all members again. */
  get unsettled() {
    return this.#missing.size > 0;
  }

  /**
   * Apply a list of members, or what has changed since the last one, and then the deferred diffs; or a count, as which the
   * room is served from here on.
   *
   * @param {Snapshot} snapshot
   * @returns {RoomEvent[]}
   */
  snapshot({ epoch, version, count, members, diffs, view = "count" }) {
    if (diffs && this.served === "members") {
      for (const diff of diffs) this.#noteReasons(diff);
      this.resume(epoch, version, diffs);
      return this.#report();
    }
    if (!members) return this.#setCount(view, epoch, version, count);
    const listed = this.served === "members";
    if (!listed) this.wait();
    this.reset(epoch, version, members);
    if (listed) return this.#report();
    this.served = "members";
    this.#epoch = this.epoch;
    for (const member of this.members.values()) this.reported.set(member.userId, member);
    return [this.#sync()];
  }

  /**
   * Apply a diff, or defer it.
   *
   * @param {import("./view.js").Diff} diff
   * @returns {RoomEvent[]}
   */
  diff(diff) {
    const result = this.served === "members" ? this.apply(diff) : "stale";
    if (result === "stale") return [];
    this.#noteReasons(diff);
    if (result !== "applied") return [];
    return this.#report();
  }

  /** Report what was withheld. @returns {RoomEvent[]} */
  settle() {
    if (this.waiting || this.served !== "members") return [];
    this.#missing.clear();
    return this.#report(true);
  }

  /** @param {{left: import("./view.js").Departed[]}} diff */
  #noteReasons({ left }) {
    for (const { userId, reason } of left) this.#reasons.set(userId, reason);
  }

  /** @returns {RoomEvent} */
  #sync() {
    return this.#event("sync", { members: [...this.reported.values()] });
  }

  /** @param {RoomEvent["kind"]} kind @param {object} fields @returns {any} */
  #event(kind, fields) {
    return { kind, roomId: this.#roomId, count: this.size, ...fields };
  }

  /** @param {View} served @param {string} epoch @param {number} version @param {number} count */
  #setCount(served, epoch, version, count) {
    const differs = this.served !== served;
    if (this.served === "members") {
      for (const collection of [this.reported, this.#missing, this.#reasons]) collection.clear();
    } else if (!differs && epoch === this.epoch && version < this.version) {
      return [];
    }
    const changed = differs || count !== this.count;
    Object.assign(this, { served, epoch, version, count });
    return changed ? [this.#sync()] : [];
  }

  /** Report what differs from the view. @param {boolean} [withoutOwn] also without this client's own member @returns {RoomEvent[]} */
  #report(withoutOwn) {
    const now = this.members;
    const missing = this.#missing;
    const old = new Map(this.reported);
    if (this.epoch !== this.#epoch) {
      this.#epoch = this.epoch;
      this.#missing = new Set(old.keys());
      return this.#report();
    }
    if (this.userId && !now.has(this.userId) && !withoutOwn) {
      missing.add(this.userId);
      return [];
    }
    for (const userId of missing) {
      const former = old.get(userId);
      const current = now.get(userId);
      if (current) missing.delete(userId);
      // A server registered the member again with another joining time; it was never gone.
      if (current && former) old.set(userId, { ...former, joinedAt: current.joinedAt });
      else old.delete(userId);
    }
    const { joined, updated, left } = differenceBetween(old, now.values());
    const departures = left.map(({ userId, reason }) => {
      const member = this.reported.get(userId);
      this.reported.delete(userId);
      return { member, reason: this.#reasons.get(userId) ?? reason };
    });
    for (const member of now.values()) this.reported.set(member.userId, member);
    this.#reasons.clear();
    return [
      ...departures.map((departure) => this.#event("leave", departure)),
      ...joined.map((member) => this.#event("join", { member })),
      ...updated.map((member) => this.#event("update", { member })),
    ];
  }
}
