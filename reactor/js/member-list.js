/**
 * The members of a room as a component renders them, in the order in which they joined. The list is another object only
 * when it has changed, and so is the entry of each member.
 */

/**
 * @typedef {import("./index.js").Member} Member
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").Room} Room
 */

/** @type {readonly Member[]} */
export const NO_MEMBERS = Object.freeze([]);

/** @param {Member} a @param {Member} b */
const byJoinTime = (a, b) => a.joinedAt - b.joinedAt || (a.userId < b.userId ? -1 : 1);

export class MemberList {
  /** @type {readonly Member[]} */
  all = NO_MEMBERS;
  /** @type {readonly Member[]} all but this client's own member */
  others = NO_MEMBERS;
  /** @type {Map<string, Member>} */
  #byId = new Map();
  /** Users whose entries have changed since the last `refresh`. @type {Set<string>} */
  #changed = new Set();
  #stale = false;

  /** @param {string} userId */
  get(userId) {
    return this.#byId.get(userId);
  }

  /** Note the changes; `refresh` applies them. @param {RoomEvent[]} events */
  note(events) {
    for (const event of events) {
      if (event.kind === "sync") this.#byId = new Map();
      else this.#changed.add(event.member.userId);
    }
    this.#stale = true;
  }

  /** Start again with another room, or none. */
  reset() {
    this.#byId = new Map();
    this.#stale = true;
  }

  /** @param {Room | import("./index.js").WatchedRoom | null} room */
  refresh(room) {
    if (!this.#stale) return;
    const former = this.#byId;
    this.#byId = new Map();
    for (const [userId, member] of room?.members ?? []) {
      const entry = former.get(userId);
      this.#byId.set(userId, entry && !this.#changed.has(userId) ? entry : member);
    }
    this.#changed.clear();
    this.#stale = false;
    this.all = frozen([...this.#byId.values()].sort(byJoinTime));
    const own = room && "userId" in room ? room.userId : undefined;
    this.others = frozen(this.all.filter((member) => member.userId !== own));
  }
}

/** @param {Member[]} members */
const frozen = (members) => (members.length ? Object.freeze(members) : NO_MEMBERS);
