/**
 * The members of a room as a screen shows them: in the order of their coming, in a list that is another one only when
 * it holds something else, and of entries that are other ones only for members that are.
 */

/**
 * @typedef {import("./index.js").Member} Member
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").Room} Room
 */

/** @type {readonly Member[]} */
export const NOBODY = Object.freeze([]);

/** @param {Member} a @param {Member} b */
const byComing = (a, b) => a.joinedAt - b.joinedAt || (a.userId < b.userId ? -1 : 1);

export class People {
  /** @type {readonly Member[]} */
  all = NOBODY;
  /** @type {readonly Member[]} all but oneself */
  others = NOBODY;
  /** @type {Map<string, Member>} */
  #byId = new Map();
  /** Whose entries are others since the list was made. @type {Set<string>} */
  #touched = new Set();
  #stale = false;

  /** @param {string} userId */
  get(userId) {
    return this.#byId.get(userId);
  }

  /** Note what happened; the lists are made anew by `refresh`. @param {RoomEvent[]} events */
  note(events) {
    for (const event of events) {
      if (event.kind === "sync") this.#byId = new Map();
      else this.#touched.add(event.member.userId);
    }
    this.#stale = true;
  }

  /** Start anew. */
  forget() {
    this.#byId = new Map();
    this.#stale = true;
  }

  /** @param {Room | null} room */
  refresh(room) {
    if (!this.#stale) return;
    const before = this.#byId;
    this.#byId = new Map();
    for (const [userId, member] of room?.members ?? []) {
      const known = before.get(userId);
      this.#byId.set(userId, known && !this.#touched.has(userId) ? known : member);
    }
    this.#touched.clear();
    this.#stale = false;
    this.all = frozen([...this.#byId.values()].sort(byComing));
    this.others = frozen(this.all.filter((member) => member.userId !== room?.userId));
  }
}

/** @param {Member[]} members */
const frozen = (members) => (members.length ? Object.freeze(members) : NOBODY);
