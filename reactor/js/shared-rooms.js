/**
 * Rooms of one client that any number of components share: the first one joins, the last one leaves.
 *
 * What a component reads of a room stays the same object until it changes. This module does not depend on React.
 */
import { Emitter } from "./emitter.js";
import { MemberList } from "./member-list.js";
import { Membership } from "./membership.js";

/**
 * @typedef {import("./index.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").Member} Member
 * @typedef {import("./react.js").Presence} Presence
 * @typedef {import("./membership.js").MembershipOptions} MembershipOptions
 * @typedef {MembershipOptions & {
 *   linger?: number, onForceLeave?: (message: string, event: import("./index.js").ForceLeave) => void
 * }} Consumer a component that wants to be in a room
 */

/** How long (ms) a room without consumers stays joined, so that going from one screen to another does not leave it. */
export const LINGER = 300;

/** @type {Presence} */
export const IDLE = Object.freeze({ status: "idle", error: null, room: null, rejoin() {} });

/** The rooms of one client, which is created when the first of them is joined. */
export class Rooms {
  /** The client's token. @type {import("./index.js").ClientOptions["token"]} */
  token;
  /** @type {Map<string, SharedRoom>} those with consumers or subscribers */
  #rooms = new Map();
  #createClient;
  /** @type {ReactorClient | undefined} */
  #client;

  /** @param {(rooms: Rooms) => ReactorClient} createClient */
  constructor(createClient) {
    this.#createClient = createClient;
  }

  get client() {
    return (this.#client ??= this.#createClient(this));
  }

  /** @param {string} roomId @returns {SharedRoom | undefined} the room, if it is in use */
  peek(roomId) {
    return this.#rooms.get(roomId);
  }

  /** @param {string} roomId @returns {SharedRoom} the room, to be acquired or subscribed to at once */
  get(roomId) {
    let shared = this.#rooms.get(roomId);
    if (!shared) {
      shared = new SharedRoom(this, roomId, () => this.#rooms.delete(roomId));
      this.#rooms.set(roomId, shared);
    }
    return shared;
  }
}

export class SharedRoom {
  /** Its state; another object whenever it changes. */
  presence = IDLE;
  #rooms;
  #id;
  #dispose;
  /** @type {Set<Consumer>} the newest last */
  #consumers = new Set();
  /** @type {Membership | null} */
  #membership = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #lingerTimer;
  #members = new MemberList();
  #emitter = new Emitter();
  #subscribers = 0;

  /** @param {Rooms} rooms @param {string} id @param {() => void} dispose called when it is not in use any more */
  constructor(rooms, id, dispose) {
    this.#rooms = rooms;
    this.#id = id;
    this.#dispose = dispose;
  }

  // What components read.

  /** The members, in the order in which they joined. */
  get members() {
    return this.#refreshed().all;
  }

  /** The members without this client's own. */
  get others() {
    return this.#refreshed().others;
  }

  get count() {
    return this.#membership?.room?.count ?? 0;
  }

  /** @param {string} userId @returns {Member | undefined} */
  member(userId) {
    return this.#refreshed().get(userId);
  }

  /** This client's own member. @returns {Member | undefined} */
  get me() {
    return this.#membership ? this.member(this.#membership.userId) : undefined;
  }

  /** @param {() => void} onChange @returns {() => void} unsubscribes */
  subscribe(onChange) {
    const unsubscribe = this.#emitter.on("change", onChange);
    this.#subscribers += 1;
    return () => {
      unsubscribe();
      this.#subscribers -= 1;
      this.#disposeIfUnused();
    };
  }

  // What components want.

  /**
   * Be in the room until the returned function is called. Where consumers have different users, the newest applies.
   *
   * @param {Consumer} consumer
   * @returns {() => void} releases the room
   */
  acquire(consumer) {
    clearTimeout(this.#lingerTimer);
    this.#consumers.add(consumer);
    if (this.#isMember(consumer)) this.update();
    else this.#join(consumer);
    return () => {
      this.#consumers.delete(consumer);
      const next = this.#newest();
      if (!next) this.#lingerTimer = setTimeout(() => this.#leave(), consumer.linger ?? LINGER);
      else if (this.#membership?.ended) return;
      else if (this.#isMember(next)) this.update();
      else this.#join(next);
    };
  }

  /** Apply the present options of the consumers. */
  update() {
    const consumer = this.#newest();
    if (consumer && this.#isMember(consumer)) this.#membership?.update(this.#optionsOf(consumer));
  }

  /** Join again after the server has ended the membership. */
  rejoin = () => {
    const consumer = this.#newest();
    if (consumer && !this.#isMember(consumer)) this.#join(consumer);
  };

  /** @param {Consumer} consumer */
  #isMember(consumer) {
    return this.#membership?.userId === consumer.userId && !this.#membership.ended;
  }

  #newest() {
    return [...this.#consumers].pop();
  }

  /** The options of all consumers together: the newest of each, and members if one wants them. @param {Consumer} consumer */
  #optionsOf(consumer) {
    const options = { ...consumer };
    for (const { userId, username, data, view } of [...this.#consumers].reverse()) {
      if (userId !== consumer.userId) continue;
      options.username ??= username;
      if (options.data === undefined) options.data = data;
      if (view === "members") options.view = view;
    }
    return options;
  }

  /** @param {Consumer} consumer */
  #join(consumer) {
    /** @type {Membership} */
    let membership;
    try {
      const { client } = this.#rooms;
      this.#membership?.leave();
      membership = new Membership(client, this.#id, this.#optionsOf(consumer), (change) => {
        if (this.#membership === membership) this.#onChange(change);
      });
    } catch (error) {
      this.#consumers.delete(consumer);
      throw error;
    }
    this.#membership = membership;
    this.#onChange({});
  }

  #leave() {
    this.#membership?.leave();
    this.#membership = null;
    this.#onChange({});
    this.#disposeIfUnused();
  }

  #disposeIfUnused() {
    if (!this.#subscribers && !this.#consumers.size && !this.#membership) this.#dispose();
  }

  // Notifications.

  /** @param {import("./membership.js").Change} change */
  #onChange({ events, forceLeave }) {
    const { status, error, room } = this.#membership ?? IDLE;
    const former = this.presence;
    if (room !== former.room) this.#members.reset();
    if (events) this.#members.note(events);
    if (status !== former.status || error !== former.error || room !== former.room) {
      this.presence = Object.freeze({ status, error, room, rejoin: this.rejoin });
    } else if (!events) {
      return;
    }
    this.#emitter.emit("change");
    if (!forceLeave) return;
    for (const { onForceLeave } of this.#consumers) {
      // A callback that throws does not affect the others; its error becomes an unhandled rejection.
      Promise.resolve(forceLeave).then((event) => onForceLeave?.(event.message, event));
    }
  }

  #refreshed() {
    this.#members.refresh(this.#membership?.room ?? null);
    return this.#members;
  }
}
