/**
 * Rooms of one client that any number of components share: the first one joins, the last one leaves. A room that components
 * read and none is in is watched.
 *
 * What a component reads of a room stays the same object until it changes. This module does not depend on React.
 */
import { startTimer } from "./clock.js";
import { Emitter } from "./emitter.js";
import { MemberList } from "./member-list.js";
import { Membership } from "./membership.js";

/**
 * @typedef {import("./index.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").Member} Member
 * @typedef {import("./options.js").Presence} Presence
 * @typedef {import("./membership.js").MembershipOptions} MembershipOptions
 * @typedef {MembershipOptions & {
 *   linger?: number | undefined,
 *   onForceLeave?: ((message: string, event: import("./index.js").ForceLeave) => void) | null | undefined
 * }} Consumer a component that wants to be in a room
 */

/** How long (ms) a room without consumers stays joined, and one without readers watched, so that going from one screen to another does not leave it. */
export const LINGER = 300;

/** @type {Presence} */
export const IDLE = Object.freeze({ status: "idle", error: null, room: null, view: "none", rejoin() {} });

/** @typedef {"members" | "count" | undefined} ReadView what a component reads of a room that it need not be in */

/** @type {("status" | "error" | "room" | "view")[]} */
const STATE = ["status", "error", "room", "view"];

/** The rooms of one client, which is created when the first of them is joined. */
export class Rooms {
  /** @type {import("./index.js").ClientOptions["token"]} */
  #token;
  /** @type {Map<string, SharedRoom>} those with consumers or subscribers */
  #rooms = new Map();
  #createClient;
  #tokenAdvice;
  /** @type {ReactorClient | undefined} */
  #client;

  /**
   * @param {(rooms: Rooms) => ReactorClient} createClient
   * @param {string} tokenAdvice where an application gives the token
   */
  constructor(createClient, tokenAdvice) {
    this.#createClient = createClient;
    this.#tokenAdvice = tokenAdvice;
  }

  /** The client's token, or the function that returns it. */
  get token() {
    return this.#token;
  }

  set token(token) {
    const isFirst = this.#token == null && token != null;
    this.#token = token;
    // Not at once: this is set while components render.
    if (isFirst) queueMicrotask(() => this.#rooms.forEach((room) => room.joinWithToken()));
  }

  /** The error in the words of the application's author. @param {any} error @returns {Error | null} */
  explain(error) {
    if (isUnauthorised(error) && this.#token == null) error.message = `the server requires a token: ${this.#tokenAdvice}`;
    if (error?.code === "forbidden" && /another userId/.test(error.message)) {
      error.message = "the token is for another user: pass the id of its user as `userId`";
    }
    return error;
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

/** The close code after an invalid token. */
const UNAUTHORISED = 4001;

/** @param {any} error */
const isUnauthorised = (error) => error?.code === "unauthorized" || error?.closeCode === UNAUTHORISED;

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
  #count = 0;
  #emitter = new Emitter(["change"]);
  /** What each subscriber reads. @type {ReadView[]} */
  #readers = [];
  /** The room as an observer, while no component is in it. @type {import("./index.js").WatchedRoom | null} */
  #watched = null;
  /** Whether the watch is to be compared with what is read, at the end of this turn. */
  #comparing = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #closeTimer;

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
    if (!this.#isAwaited) this.#count = this.#source?.count ?? 0;
    return this.#count;
  }

  /** @param {string} userId @returns {Member | undefined} */
  member(userId) {
    return this.#refreshed().get(userId);
  }

  /** This client's own member. @returns {Member | undefined} */
  get me() {
    return this.#membership ? this.member(this.#membership.userId) : undefined;
  }

  /**
   * @param {() => void} onChange
   * @param {ReadView} [view] for which the room is watched while no component is in it
   * @returns {() => void} unsubscribes
   */
  subscribe(onChange, view) {
    const unsubscribe = this.#emitter.on("change", onChange);
    this.#readers.push(view);
    this.#compareWatch();
    return () => {
      unsubscribe();
      this.#readers.splice(this.#readers.indexOf(view), 1);
      this.#compareWatch();
      this.#disposeIfUnused();
    };
  }

  /** What is read: the room as a member, or else as an observer. */
  get #source() {
    return this.#membership?.room ?? this.#watched;
  }

  /** Whether what the room is watched for has not arrived yet: until then components read what they have read before. */
  get #isAwaited() {
    return this.#source !== null && this.#source === this.#watched && this.#watched.view === "none";
  }

  /** Watch what is read, or no more; not at once, since a component that is rendered together with this one may join. */
  #compareWatch() {
    if (this.#comparing) return;
    this.#comparing = true;
    queueMicrotask(() => {
      this.#comparing = false;
      clearTimeout(this.#closeTimer);
      /** @type {ReadView} */
      const view = this.#readers.includes("members") ? "members" : this.#readers.find((one) => one);
      // While a component joins, what is watched is still shown; after the last one has gone, the watch begins before the
      // membership ends.
      if (this.#consumers.size) return this.#membership?.room && this.#endWatch();
      if (view && (!this.#watched || (view === "members" && this.#watchedView === "count"))) this.#watch(view);
      // A page that replaces another reads the same room in a moment.
      if (!view && this.#watched) this.#closeTimer = setTimeout(() => this.#endWatch(), LINGER);
    });
  }

  /** @type {ReadView} */
  #watchedView;

  /** @param {"members" | "count"} view */
  #watch(view) {
    let watched;
    try {
      watched = this.#rooms.client.watch(this.#id, { view });
    } catch (error) {
      // Without a server, or with an older client of the application's.
      this.presence = Object.freeze({ ...this.presence, error: /** @type {Error} */ (error) });
      this.#emitter.emit("change");
      return;
    }
    const former = this.#watched;
    this.#watched = watched;
    this.#watchedView = view;
    const isCurrent = () => this.#watched === watched;
    watched.on("change", (events) => isCurrent() && this.#onChange({ events }));
    watched.on("status", () => isCurrent() && this.#onChange({}));
    former?.close();
  }

  #endWatch() {
    const watched = this.#watched;
    this.#watched = null;
    watched?.close();
    if (watched && !this.#membership) this.#onChange({});
    this.#disposeIfUnused();
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
      this.#compareWatch();
      if (!next) this.#lingerTimer = startTimer(() => this.#leave(), consumer.linger ?? LINGER);
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

  /** Join again if the token was missing until now. */
  joinWithToken() {
    if (isUnauthorised(this.presence.error)) this.rejoin();
  }

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
    this.#compareWatch();
  }

  #leave() {
    this.#membership?.leave();
    this.#membership = null;
    this.#onChange({});
    this.#compareWatch();
    this.#disposeIfUnused();
  }

  #disposeIfUnused() {
    if (!this.#readers.length && !this.#consumers.size && !this.#membership && !this.#watched) this.#dispose();
  }

  // Notifications.

  /** Which room `#members` lists. @type {import("./index.js").Room | import("./index.js").WatchedRoom | null} */
  #shown = null;

  /** @param {import("./membership.js").Change} change */
  #onChange({ events, forceLeave }) {
    const { status, room, error: reason } = this.#membership ?? { ...IDLE, error: this.#watched?.error };
    const source = this.#source;
    const error = this.#rooms.explain(reason ?? null);
    const former = this.presence;
    const present = { status, error, room, view: source?.view ?? "none", rejoin: this.rejoin };
    if (source !== this.#shown && !this.#isAwaited) {
      this.#members.reset();
      this.#shown = source;
    }
    if (room) this.#compareWatch();
    if (events) this.#members.note(events);
    if (STATE.some((name) => present[name] !== former[name])) {
      this.presence = Object.freeze(present);
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
    if (!this.#isAwaited) this.#members.refresh(this.#source);
    return this.#members;
  }
}
