/**
 * One room as the server tells of it: members at a position (epoch and version), moved on by diffs.
 *
 * Pure: no socket, no clock. The twin of the server's own view; both pass the same table of cases.
 *
 * A view starts out waiting for a snapshot. Diffs that come before it are kept; `reset` takes the snapshot and then
 * those diffs that are newer. From then on `apply` judges each diff by its position:
 *
 * - Another epoch: a fresh room when the diff starts at version 0, so the view starts anew with it; else a gap.
 * - Ends at or before the view's version: stale, already seen.
 * - Starts after the view's version: a gap.
 * - Starts at or before it, ends after it: applied. A diff sets and removes whole members, so the part that is seen
 *   twice does no harm.
 *
 * After a gap the view waits for a snapshot again and keeps what comes meanwhile; its members stay as they were.
 */

/** Most diffs kept while a snapshot is awaited; the oldest go first, and what is missing then shows as a gap. */
export const MAX_HELD = 1024;

/**
 * @typedef {import("./index.js").Member} Member
 * @typedef {{userId: string, reason: string}} Departed
 * @typedef {{joined: Member[], updated: Member[], left: Departed[]}} Change
 * @typedef {Change & {epoch: string, from: number, version: number, count: number}} Diff
 * @typedef {"applied" | "stale" | "gap" | "deferred"} Verdict
 */

export class RoomView {
  /** The epoch that `version` counts in; "" before the first snapshot. */
  epoch = "";
  version = 0;
  /** How many are in the room, as last told. */
  count = 0;
  /** Whether a snapshot is awaited. */
  waiting = true;
  /** @type {Map<string, Member>} by user id, in the order of their coming */
  members = new Map();
  /** @type {Diff[]} */
  #held = [];

  /**
   * Take a snapshot, and then the diffs that overtook it.
   *
   * @param {string} epoch
   * @param {number} version
   * @param {Iterable<Member>} members
   * @returns {Verdict} applied; or stale, and nothing has changed, when none was awaited and the view is further
   *   on; or gap when a diff that was kept does not join on to this snapshot: ask for another one
   */
  reset(epoch, version, members) {
    if (!this.waiting && epoch === this.epoch && version < this.version) return "stale";
    this.#start(epoch, version, members);
    const held = this.#held;
    this.lose();
    this.waiting = false;
    for (const diff of held) {
      if (diff.epoch === epoch) this.apply(diff);
      // Of the next epoch, or of one that is over, even its beginning: another snapshot will tell, and holds all
      // that these hold.
      else this.waiting = true;
    }
    return this.waiting ? "gap" : "applied";
  }

  /**
   * Move on by a diff, or keep it for later while a snapshot is awaited.
   *
   * @param {Diff} diff
   * @returns {Verdict}
   */
  apply(diff) {
    if (this.waiting) {
      this.#held.push(diff);
      if (this.#held.length > MAX_HELD) this.#held.shift();
      return "deferred";
    }
    const verdict = this.#take(diff);
    if (verdict === "gap") {
      this.waiting = true;
      this.#held = [diff];
    }
    return verdict;
  }

  /** Note that the source of diffs was lost: nothing moves the view on before the next snapshot. */
  lose() {
    this.waiting = true;
    this.#held = [];
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
  #take(diff) {
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
 * What must be told for one list of members to become another.
 *
 * A heartbeat is never told, so `lastActiveAt` alone is no change. A member that joined at another time than the
 * one known has left and come again, and is in both `left` and `joined`.
 *
 * @param {Map<string, Member>} before
 * @param {Iterable<Member>} after
 * @param {string} [reason] of those who are gone, which a list cannot tell
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
    } else if (known !== member && face(known) !== face(member)) {
      change.updated.push(member);
    }
  }
  for (const userId of before.keys()) {
    if (!seen.has(userId)) change.left.push({ userId, reason });
  }
  return change;
}

/**
 * What others see of a member, as text, whatever the order of its data's keys.
 *
 * @param {Member} member
 */
function face({ username, away, connections, data }) {
  return JSON.stringify({ username, away, connections, data }, (_, value) =>
    value && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort())
      : value,
  );
}
