/**
 * Rooms of one client that any number of holders share: the first joins, the last one leaves.
 *
 * What a screen reads of a room keeps its identity until it changes. No React in here.
 */
import { Emitter } from "./emitter.js";
import { People } from "./people.js";
import { Stay } from "./stay.js";

/**
 * @typedef {import("./index.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").Member} Member
 * @typedef {import("./react.js").Presence} Presence
 * @typedef {import("./stay.js").Wish} Wish
 * @typedef {Wish & {linger?: number, onForceLeave?: (message: string, event: import("./index.js").ForceLeave) => void}} Hold
 */

/** How long (ms) a room without holders stays joined: one screen may follow another, and nobody should notice. */
export const LINGER = 300;

/** @type {Presence} */
export const IDLE = Object.freeze({ status: "idle", error: null, room: null, rejoin() {} });

/** The rooms of one client, which is made when the first of them is joined. */
export class Rooms {
  /** What the client proves itself by. @type {import("./index.js").ClientOptions["token"]} */
  token;
  /** @type {Map<string, SharedRoom>} those that somebody holds or follows */
  #rooms = new Map();
  #make;
  /** @type {ReactorClient | undefined} */
  #client;

  /** @param {(rooms: Rooms) => ReactorClient} make */
  constructor(make) {
    this.#make = make;
  }

  get client() {
    return (this.#client ??= this.#make(this));
  }

  /** @param {string} roomId @returns {SharedRoom | undefined} the room, if anybody holds or follows it */
  peek(roomId) {
    return this.#rooms.get(roomId);
  }

  /** @param {string} roomId @returns {SharedRoom} the room, to be held or followed at once */
  open(roomId) {
    let shared = this.#rooms.get(roomId);
    if (!shared) {
      shared = new SharedRoom(this, roomId, () => this.#rooms.delete(roomId));
      this.#rooms.set(roomId, shared);
    }
    return shared;
  }
}

export class SharedRoom {
  /** How it stands; another object whenever it stands otherwise. */
  presence = IDLE;
  #rooms;
  #id;
  #dispose;
  /** @type {Set<Hold>} the newest last */
  #holds = new Set();
  /** @type {Stay | null} */
  #stay = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #lingering;
  #people = new People();
  #emitter = new Emitter();
  #followers = 0;

  /** @param {Rooms} rooms @param {string} id @param {() => void} dispose called when nobody needs it any more */
  constructor(rooms, id, dispose) {
    this.#rooms = rooms;
    this.#id = id;
    this.#dispose = dispose;
  }

  // What is read.

  /** Who is in the room, in the order of their coming. */
  get members() {
    return this.#fresh().all;
  }

  /** The same without oneself. */
  get others() {
    return this.#fresh().others;
  }

  get count() {
    return this.#stay?.room?.count ?? 0;
  }

  /** @param {string} userId @returns {Member | undefined} */
  member(userId) {
    return this.#fresh().get(userId);
  }

  /** Oneself. @returns {Member | undefined} */
  get me() {
    return this.#stay ? this.member(this.#stay.userId) : undefined;
  }

  /** @param {() => void} changed @returns {() => void} stops it */
  subscribe(changed) {
    const stop = this.#emitter.on("change", changed);
    this.#followers += 1;
    return () => {
      stop();
      this.#followers -= 1;
      this.#disposeIfUnused();
    };
  }

  // What is wanted.

  /**
   * Be in the room, until what this returns is called. Where holders differ about who they are, the newest counts.
   *
   * @param {Hold} hold
   * @returns {() => void}
   */
  hold(hold) {
    clearTimeout(this.#lingering);
    this.#holds.add(hold);
    if (this.#isIn(hold)) this.describe();
    else this.#enter(hold);
    return () => {
      this.#holds.delete(hold);
      const next = this.#newest();
      if (!next) this.#lingering = setTimeout(() => this.#leave(), hold.linger ?? LINGER);
      else if (this.#stay?.over) return;
      else if (this.#isIn(next)) this.describe();
      else this.#enter(next);
    };
  }

  /** Tell the room what its holders now want otherwise. */
  describe() {
    const hold = this.#newest();
    if (hold && this.#isIn(hold)) this.#stay?.describe(this.#wishOf(hold));
  }

  /** Join again what the server has ended. */
  rejoin = () => {
    const hold = this.#newest();
    if (hold && !this.#isIn(hold)) this.#enter(hold);
  };

  /** @param {Hold} hold */
  #isIn(hold) {
    return this.#stay?.userId === hold.userId && !this.#stay.over;
  }

  #newest() {
    return [...this.#holds].pop();
  }

  /** What all holders want together: the newest word of each, and names if one wants them. @param {Hold} hold */
  #wishOf(hold) {
    const wish = { ...hold };
    for (const { userId, username, data, view } of [...this.#holds].reverse()) {
      if (userId !== hold.userId) continue;
      wish.username ??= username;
      if (wish.data === undefined) wish.data = data;
      if (view === "members") wish.view = view;
    }
    return wish;
  }

  /** @param {Hold} hold */
  #enter(hold) {
    /** @type {Stay} */
    let stay;
    try {
      const { client } = this.#rooms;
      this.#stay?.leave();
      stay = new Stay(client, this.#id, this.#wishOf(hold), (news) => this.#stay === stay && this.#hear(news));
    } catch (error) {
      this.#holds.delete(hold);
      throw error;
    }
    this.#stay = stay;
    this.#hear({});
  }

  #leave() {
    this.#stay?.leave();
    this.#stay = null;
    this.#hear({});
    this.#disposeIfUnused();
  }

  #disposeIfUnused() {
    if (!this.#followers && !this.#holds.size && !this.#stay) this.#dispose();
  }

  // What is told.

  /** @param {import("./stay.js").News} news */
  #hear({ events, forceLeave }) {
    const { status, error, room } = this.#stay ?? IDLE;
    const former = this.presence;
    if (room !== former.room) this.#people.forget();
    if (events) this.#people.note(events);
    if (status !== former.status || error !== former.error || room !== former.room) {
      this.presence = Object.freeze({ status, error, room, rejoin: this.rejoin });
    } else if (!events) {
      return;
    }
    this.#emitter.emit("change");
    if (!forceLeave) return;
    for (const { onForceLeave } of this.#holds) {
      // One that throws keeps nobody else from hearing it, and is reported as what nobody catches.
      Promise.resolve(forceLeave).then((event) => onForceLeave?.(event.message, event));
    }
  }

  #fresh() {
    this.#people.refresh(this.#stay?.room ?? null);
    return this.#people;
  }
}
