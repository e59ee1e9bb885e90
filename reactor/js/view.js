/**
 * One room as the server sends it: members at a position (epoch and version), advanced by diffs.
 *
 * Pure: no socket, no clock. The counterpart of the server's own view; both pass the same table of cases.
 *
 * A view starts waiting for a snapshot. Diffs that arrive before it are deferred; `reset` takes the snapshot and then
 * applies the deferred diffs that are newer; `resume` takes diffs in place of the snapshot. From then on `apply` compares each diff with the view's position:
 *
 * - Another epoch: a new room if the diff starts at version 0, so the view starts again with it; else a gap.
 * - Ends at or before the view's version: stale, already applied.
 * - Starts after the view's version: a gap.
 * - Starts at or before it, ends after it: applied. A diff sets and removes whole members, so applying a part of it
 *   twice is harmless.
 *
 * After a gap the view waits for a snapshot again and defers diffs; its members stay as they were.
 */

/** Diffs deferred while waiting for a snapshot; beyond it the oldest are dropped, which shows as a gap. */
export const MAX_DEFERRED = 1024;

/**
 * @typedef {import("./index.js").Member} Member
 * @typedef {{userId: string, reason: string}} Departed
 * @typedef {{joined: Member[], updated: Member[], left: Departed[]}} Change
 * @typedef {Change & {epoch: string, from: number, version: number, count: number}} Diff
 * @typedef {"applied" | "stale" | "gap" | "deferred"} DiffResult
 */

export class RoomView {
  /** The epoch that `version` counts in; "" before the first snapshot. */
  epoch = "";
  version = 0;
  /** The number of members, as last received. */
  count = 0;
  /** Whether the view waits for a snapshot. */
  waiting = true;
  /** @type {Map<string, Member>} by user id, in the order in which they joined */
  members = new Map();
  /** @type {Diff[]} */
  #deferred = [];

  /**
   * Take a snapshot, and then the deferred diffs that are newer.
   *
   * @param {string} epoch
   * @param {number} version
   * @param {Iterable<Member>} members
   * @returns {DiffResult} applied; or stale, without a change, if the view did not wait for it and is newer; or gap if a
   *   deferred diff does not continue this snapshot: request another one
   */
  reset(epoch, version, members) {
    if (!this.waiting && epoch === this.epoch && version < this.version) return "stale";
    this.#start(epoch, version, members);
    const deferred = this.#deferred;
    this.wait();
    this.waiting = false;
    for (const diff of deferred) {
      if (diff.epoch === epoch) this.apply(diff);
      // Of a later or an earlier epoch, even from its beginning: the next snapshot includes whatever applies.
      else this.waiting = true;
    }
    return this.waiting ? "gap" : "applied";
  }

  /**
   * Continue with the diffs since the view's position, in place of a snapshot; without them the view waits for one.
   *
   * @param {string} epoch @param {number} version to which they lead
   * @param {Omit<Diff, "epoch">[]} diffs
   * @returns {DiffResult} applied, or gap: request a snapshot
   */
  resume(epoch, version, diffs) {
    const deferred = this.#deferred;
    this.wait();
    this.waiting = false;
    for (const diff of diffs) this.apply({ ...diff, epoch });
    for (const diff of deferred) this.apply(diff);
    if (epoch !== this.epoch || version > this.version) this.wait();
    return this.waiting ? "gap" : "applied";
  }

  /**
   * Apply a diff, or defer it while the view waits for a snapshot.
   *
   * @param {Diff} diff
   * @returns {DiffResult}
   */
  apply(diff) {
    if (this.waiting) {
      this.#deferred.push(diff);
      if (this.#deferred.length > MAX_DEFERRED) this.#deferred.shift();
      return "deferred";
    }
    const result = this.#applyNow(diff);
    if (result === "gap") {
      this.waiting = true;
      this.#deferred = [diff];
    }
    return result;
  }

  /** Wait for a new snapshot: diffs may have been lost. */
  wait() {
    this.waiting = true;
    this.#deferred = [];
  }

  /** @param {string} epoch @param {number} version @param {Iterable<Member>} members */
  #start(epoch, version, members) {
    this.epoch = epoch;
    this.version = version;
    this.members = new Map();
    for (const member of members) this.members.set(member.userId, member);
    this.count = this.members.size;
  }

  /** @param {Diff} diff @returns {"applied" | "stale" | "gap"} */
  #applyNow(diff) {
    if (diff.epoch !== this.epoch) {
      if (diff.from !== 0) return "gap";
      this.#start(diff.epoch, 0, []);
    } else if (diff.version <= this.version) {
      return "stale";
    } else if (diff.from > this.version) {
      return "gap";
    }
    for (const { userId } of diff.left) this.members.delete(userId);
    for (const member of [...diff.joined, ...diff.updated]) this.members.set(member.userId, member);
    this.version = diff.version;
    this.count = diff.count;
    return "applied";
  }
}

/**
 * The diff between two lists of members.
 *
 * Heartbeats are not reported, so `lastActiveAt` alone is no change. A member with another joining time than before
 * has left and joined again, and is in both `left` and `joined`.
 *
 * @param {Map<string, Member>} before
 * @param {Iterable<Member>} after
 * @param {string} [reason] of the departures, which a list does not contain
 * @returns {Change}
 */
export function differenceBetween(before, after, reason = "disconnected") {
  /** @type {Change} */
  const change = { joined: [], updated: [], left: [] };
  const seen = new Set();
  for (const member of after) {
    const { userId } = member;
    const known = before.get(userId);
    seen.add(userId);
    if (known?.joinedAt !== member.joinedAt) {
      if (known) change.left.push({ userId, reason });
      change.joined.push(member);
    } else if (known !== member && visibleFields(known) !== visibleFields(member)) {
      change.updated.push(member);
    }
  }
  for (const userId of before.keys()) {
    if (!seen.has(userId)) change.left.push({ userId, reason });
  }
  return change;
}

/**
 * The fields of a member that others see (all but its identity and times), as text that does not depend on their order.
 *
 * @param {Member} member
 */
function visibleFields({ userId, joinedAt, lastActiveAt, ...visible }) {
  return JSON.stringify(visible, (_, value) =>
    value && typeof value === "object" && !Array.isArray(value)
      ? // By the key alone: an entry as a whole has no text where its value has a key such as "toString".
        Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a > b ? 1 : -1)))
      : value,
  );
}
