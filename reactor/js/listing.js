/**
 * A room as its reader was told of it, beside the room as it is known.
 *
 * Pure. The view moves on with each snapshot and diff; `told` moves on only by events. So whoever follows the
 * events holds exactly what is in it, whatever the network did in between: a diff that is seen twice, a snapshot after a
 * gap or after a new connection all come down to what differs between the two.
 *
 * Two things in a view are not believed at once, for they are what Redis shows after it lost its data and before the
 * servers have entered their members anew. A list without ourselves, while we are in the room, is not told. Nor do
 * those who are missing from a new epoch of the room leave, who were there in the old one: they may be on their way
 * back. `settle` ends the waiting.
 */
import { RoomView, differenceBetween } from "./view.js";

/**
 * @typedef {import("./index.js").Member} Member
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").View} View
 * @typedef {{epoch: string, version: number, count: number, members?: Member[], view?: View}} Snapshot
 */

export class Listing extends RoomView {
  /** Oneself, once known. */
  userId = "";
  /** @type {View} what the server tells of the room */
  served = "none";
  /** @type {Map<string, Member>} as told, by user id; empty unless they are served */
  told = new Map();
  #roomId;
  #epoch = "";
  /** @type {Set<string>} */
  #missing = new Set();
  /** @type {Map<string, string>} why they left, by user id, as diffs said */
  #reasons = new Map();

  /** @param {string} roomId */
  constructor(roomId) {
    super();
    this.#roomId = roomId;
  }

  /** How many are in the room, as told. */
  get size() {
    return this.served === "members" ? this.told.size : this.count;
  }

  /** Whether a snapshot is needed. */
  get incomplete() {
    return this.served === "members" && this.waiting;
  }

  /** Whether something is held back: call `settle` once the servers had time to enter all anew. */
  get unsettled() {
    return this.#missing.size > 0;
  }

  /**
   * Take a list of members, and the diffs that overtook it; or a count, as which the room is served from here on.
   *
   * @param {Snapshot} snapshot
   * @returns {RoomEvent[]}
   */
  snapshot({ epoch, version, count, members, view = "count" }) {
    if (!members) return this.#counted(view, epoch, version, count);
    const listed = this.served === "members";
    if (!listed) this.lose();
    this.reset(epoch, version, members);
    if (listed) return this.#tell();
    this.served = "members";
    this.#epoch = this.epoch;
    for (const member of this.members.values()) this.told.set(member.userId, member);
    return [this.#sync()];
  }

  /**
   * Take a change.
   *
   * @param {import("./view.js").Diff} diff
   * @returns {RoomEvent[]}
   */
  diff(diff) {
    const verdict = this.served === "members" ? this.apply(diff) : "stale";
    if (verdict === "stale") return [];
    for (const { userId, reason } of diff.left) this.#reasons.set(userId, reason);
    if (verdict !== "applied") return [];
    return this.#tell();
  }

  /** Tell what was held back. @returns {RoomEvent[]} */
  settle() {
    if (this.waiting || this.served !== "members") return [];
    this.#missing.clear();
    return this.#tell(true);
  }

  /** @returns {RoomEvent} */
  #sync() {
    return this.#event("sync", { members: [...this.told.values()] });
  }

  /** @param {RoomEvent["kind"]} kind @param {object} fields @returns {any} */
  #event(kind, fields) {
    return { kind, roomId: this.#roomId, count: this.size, ...fields };
  }

  /** @param {View} served @param {string} epoch @param {number} version @param {number} count */
  #counted(served, epoch, version, count) {
    const other = this.served !== served;
    if (this.served === "members") {
      for (const kept of [this.told, this.#missing, this.#reasons]) kept.clear();
    } else if (!other && epoch === this.epoch && version < this.version) {
      return [];
    }
    const changed = other || count !== this.count;
    Object.assign(this, { served, epoch, version, count });
    return changed ? [this.#sync()] : [];
  }

  /** @param {boolean} [believe] @returns {RoomEvent[]} */
  #tell(believe) {
    const now = this.members;
    const missing = this.#missing;
    const old = new Map(this.told);
    if (this.epoch !== this.#epoch) {
      this.#epoch = this.epoch;
      this.#missing = new Set(old.keys());
      return this.#tell();
    }
    if (!now.has(this.userId) && !believe) {
      missing.add(this.userId);
      return [];
    }
    for (const userId of missing) {
      const was = old.get(userId);
      const is = now.get(userId);
      if (is) missing.delete(userId);
      // Entered anew by a server, at another time, and yet never gone.
      if (is && was) old.set(userId, { ...was, joinedAt: is.joinedAt });
      else old.delete(userId);
    }
    const { joined, updated, left } = differenceBetween(old, now.values());
    const gone = left.map(({ userId, reason }) => {
      const member = this.told.get(userId);
      this.told.delete(userId);
      return { member, reason: this.#reasons.get(userId) ?? reason };
    });
    for (const member of now.values()) this.told.set(member.userId, member);
    this.#reasons.clear();
    return [
      ...gone.map((one) => this.#event("leave", one)),
      ...joined.map((member) => this.#event("join", { member })),
      ...updated.map((member) => this.#event("update", { member })),
    ];
  }
}
