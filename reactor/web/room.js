/**
 * One room as its reader sees it: members at a position (epoch and version), moved on by diffs.
 *
 * Pure: no socket, no clock, no page. The twin of the server's own view; both pass tests/cases/room.json.
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
 * @typedef {{userId: string, username: string, joinedAt: number, lastActiveAt: number, away: boolean,
 *   connections: number, data?: unknown}} Member
 * @typedef {{userId: string, reason: string}} Departed
 * @typedef {{joined: Member[], updated: Member[], left: Departed[]}} Change
 * @typedef {Change & {epoch: string, from: number, version: number, count: number}} Diff
 * @typedef {"applied" | "stale" | "gap" | "held"} Verdict
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
    this.waiting = false;
    const held = this.#held;
    this.#held = [];
    for (const [index, diff] of held.entries()) {
      const later = held.slice(index + 1);
      if (diff.epoch !== epoch) {
        // Of the next epoch, or of one that is over, even its beginning: another snapshot will tell, and holds all
        // that these hold.
        this.waiting = true;
        this.#held = later.filter((late) => late.epoch === epoch);
        return "gap";
      }
      if (this.#take(diff) === "gap") {
        this.waiting = true;
        this.#held = later;
        return "gap";
      }
    }
    return "applied";
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
      return "held";
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

  /** Why those are gone whom the kept diffs tell of. @returns {Map<string, string>} the reason by user id */
  heldReasons() {
    return new Map(this.#held.flatMap((diff) => diff.left.map(({ userId, reason }) => [userId, reason])));
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
    for (const member of diff.joined) this.members.set(member.userId, member);
    for (const member of diff.updated) this.members.set(member.userId, member);
    this.version = diff.version;
    this.count = diff.count;
    return "applied";
  }
}

/**
 * What must be told for one list of members to become another, so that a resumed view changes once and truly.
 *
 * A heartbeat is never told, so `lastActiveAt` alone is no change. A member that joined at another time than the
 * one known has left and come again, and is in both `left` and `joined`.
 *
 * @param {Map<string, Member>} before
 * @param {Iterable<Member>} after
 * @param {(userId: string) => string} reasonOf gives the reason of one that is gone, which a list cannot tell
 * @returns {Change}
 */
export function differenceBetween(before, after, reasonOf) {
  /** @type {Change} */
  const change = { joined: [], updated: [], left: [] };
  const seen = new Set();
  for (const member of after) {
    seen.add(member.userId);
    const known = before.get(member.userId);
    if (known === undefined) {
      change.joined.push(member);
    } else if (known.joinedAt !== member.joinedAt) {
      change.left.push({ userId: member.userId, reason: reasonOf(member.userId) });
      change.joined.push(member);
    } else if (!sameFace(known, member)) {
      change.updated.push(member);
    }
  }
  for (const userId of before.keys()) {
    if (!seen.has(userId)) change.left.push({ userId, reason: reasonOf(userId) });
  }
  return change;
}

/** @param {Member} a @param {Member} b */
function sameFace(a, b) {
  return (
    a.username === b.username && a.away === b.away && a.connections === b.connections && same(a.data, b.data)
  );
}

/**
 * Whether two JSON values (or undefined) are equal, whatever the order of their keys.
 *
 * @param {any} a
 * @param {any} b
 * @returns {boolean}
 */
function same(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}
