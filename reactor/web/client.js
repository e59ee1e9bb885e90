/**
 * A client of the reactor: rooms over one socket, kept alive by heartbeats and resumed after every loss.
 *
 *     const client = new ReactorClient("wss://example.org/ws");
 *     const room = await client.join("lobby", { userId: "7", username: "Ada" });
 *     room.on("change", ({ joined, updated, left }) => render(room.members));
 *     room.on("force-leave", ({ message }) => alert(message));
 *
 * The socket is open while a room is joined. Heartbeats go by the clock; a missing acknowledgement is a lost network.
 * After a loss each room is joined again, and the snapshot then comes out as one `change`, of what really changed.
 */
import { Emitter } from "./emitter.js";
import { Link } from "./link.js";
import { Room } from "./membership.js";

/** How long (ms) the server may stay silent after a heartbeat before its socket counts as dead. */
export const SILENCE = 10_000;

/** @typedef {(error: ReactorError | null, reply?: any) => void} Answered */

/** How long (ms, and up to twice that) until something refused as `unavailable` is asked again. */
const AGAIN_AFTER = 1000;

/** Something the server refused, or that was cut off: `code` is stable, `message` says how to mend it. */
export class ReactorError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "ReactorError";
    this.code = code;
  }
}

/**
 * Events: `status` (`status`, `retryAt` or `degraded` has changed), `heartbeat` ({roundTrip} in ms, when
 * acknowledged), `frame` ({direction, text}: all that goes over the wire).
 */
export class ReactorClient extends Emitter {
  /** @type {Map<string, Room>} those joined, by id */
  rooms = new Map();
  /** Whether the server says that Redis does not answer it; the socket stays open meanwhile. */
  degraded = false;
  #link;
  #beating = true;
  #nextId = 1;
  /** @type {Map<number, Answered>} */
  #asked = new Map();
  #beatAt = 0;
  #unanswered = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #random;

  /**
   * @param {string} url of the server's socket, as in ws://localhost:8765/ws
   * @param {{WebSocket?: typeof globalThis.WebSocket, random?: () => number}} [options] a WebSocket where the
   *   platform has none
   */
  constructor(url, options = {}) {
    super();
    this.#random = options.random ?? Math.random;
    this.#link = new Link(url, options);
    this.#link.on("frame", (frame) => this.emit("frame", frame));
    this.#link.on("message", (text) => this.#receive(JSON.parse(text)));
    this.#link.on("status", (state) => this.#onStatus(state));
    this.#link.on("ended", (end) => this.#onEnded(end));
  }

  /** @returns {"closed" | "connecting" | "open" | "waiting"} */
  get status() {
    return this.#link.state;
  }

  /** When the next attempt to connect begins (ms since 1970), while `status` is "waiting". */
  get retryAt() {
    return this.#link.retryAt;
  }

  /**
   * Join a room, and stay in it until `room.leave()` or until the server ends it.
   *
   * @param {string} roomId
   * @param {{userId: string, username?: string, data?: unknown, view?: "members" | "count" | "none"}} who
   * @returns {Promise<Room>} when the server has answered, however long that takes; rejects with a ReactorError
   */
  join(roomId, who) {
    roomId = String(roomId);
    if (this.rooms.has(roomId)) {
      return Promise.reject(new ReactorError("already_joined", "this client is in the room: leave it first"));
    }
    return new Promise((resolve, reject) => {
      /** @type {Room} */
      const room = new Room(this, roomId, who, (error) => (error ? reject(error) : resolve(room)));
      this.rooms.set(roomId, room);
      if (this.status === "open") this.#enter(room);
      else if (this.status === "closed") this.#link.open();
    });
  }

  /** Connect now instead of waiting longer. */
  reconnect() {
    this.#link.open();
  }

  /**
   * Let go of the socket as a lost network would.
   *
   * @param {number} pause ms until it comes back; Infinity for only by `reconnect`
   */
  drop(pause) {
    this.#link.drop(pause);
  }

  /** Be done with the socket and all rooms, whose members the server ends after the grace. */
  close() {
    for (const room of [...this.rooms.values()]) this.forget(room);
    this.#link.close();
  }

  /**
   * Look at the clock, and do what is due. Timers call it; so should whoever knows that time has passed or that the
   * network is another: a page shown again, a device back online.
   *
   * @param {{network?: boolean}} [news] whether the network may have changed: the socket is then tried at once
   */
  wake({ network = false } = {}) {
    clearTimeout(this.#timer);
    if (network && this.status === "waiting" && this.retryAt !== Infinity) this.#link.open();
    this.#link.wake();
    if (this.status !== "open") return;
    const now = Date.now();
    // A clock that was set back must not silence a member.
    if (network || now >= this.#beatAt + this.#interval() || now < this.#beatAt) this.beat();
    if (this.#unanswered) {
      const patience = Math.max(this.#beatAt, this.#link.heardAt) + SILENCE - now;
      if (patience <= 0 && !this.degraded) this.#link.lost();
      else this.#timer = setTimeout(() => this.wake(), Math.max(patience, 1000));
    } else if (this.#beating && this.#joined().length > 0) {
      this.#timer = setTimeout(() => this.wake(), Math.max(this.#beatAt + this.#interval() - now, 50));
    }
  }

  /**
   * Stop the heartbeats, to see what becomes of a member who says nothing any more; or go on with them.
   *
   * @param {boolean} on
   */
  setHeartbeats(on) {
    this.#beating = on;
    if (on) this.beat();
    this.wake();
  }

  /** Send a heartbeat now, unless one waits for its acknowledgement. */
  beat() {
    const rooms = this.#joined();
    if (!this.#beating || this.#unanswered || rooms.length === 0) return;
    const sent = performance.now();
    this.#beatAt = Date.now();
    this.#unanswered = this.ask({ type: "room:heartbeat" }, (error) => {
      this.#unanswered = false;
      if (error) return;
      this.#setDegraded(false);
      for (const room of rooms) room.refreshed();
      this.emit("heartbeat", { roundTrip: performance.now() - sent });
      this.wake();
    });
  }

  // What rooms ask of their client.

  /**
   * Send a request; `answered` gets the error or the reply, at once when the reply comes.
   *
   * @param {{type: string, [field: string]: unknown}} request
   * @param {Answered} answered
   * @returns {boolean} false when there is no open socket: nothing was sent, and nothing will be answered
   */
  ask(request, answered) {
    const id = this.#nextId++;
    if (!this.#link.send({ ...request, id })) return false;
    this.#asked.set(id, answered);
    return true;
  }

  /**
   * Call `action` when Redis may answer again, unless the socket is lost first.
   *
   * @param {() => void} action
   */
  later(action) {
    const finish = (/** @type {boolean} */ act) => {
      clearTimeout(timer);
      for (const stop of stops) stop();
      if (act) action();
    };
    const stops = [
      this.on("restored", () => finish(true)),
      this.on("status", (status) => status !== "open" && finish(false)),
    ];
    const timer = setTimeout(() => finish(true), AGAIN_AFTER * (1 + this.#random()));
  }

  /** A room is over: the last one takes the socket along. @param {Room} room */
  forget(room) {
    if (this.rooms.get(room.id) !== room) return;
    this.rooms.delete(room.id);
    room.end();
    if (this.rooms.size === 0 && this.status !== "closed") this.#link.close();
  }

  /** @param {Room} room */
  #enter(room) {
    room.enter((error) => {
      if (error?.code === "unavailable") this.#setDegraded(true);
      else if (!error) this.#setDegraded(false);
      this.wake();
    });
  }

  /** The shortest that a room wants; a third of a short TTL, so that two lost heartbeats do no harm. */
  #interval() {
    return Math.min(...this.#joined().map(({ heartbeatInterval, ttl }) => Math.min(heartbeatInterval, ttl / 3)));
  }

  #joined() {
    return [...this.rooms.values()].filter((room) => room.status === "joined");
  }

  /** @param {Link["state"]} state */
  #onStatus(state) {
    if (state === "open") {
      this.#beatAt = Date.now(); // joining counts as a heartbeat
      for (const room of [...this.rooms.values()]) this.#enter(room);
    } else {
      clearTimeout(this.#timer);
      this.degraded = false;
      const asked = [...this.#asked.values()];
      this.#asked.clear();
      for (const room of this.rooms.values()) room.interrupted();
      for (const answered of asked) answered(new ReactorError("interrupted", "the connection was lost before the answer"));
    }
    this.emit("status", state);
  }

  /** @param {{code: number, reason: string}} end */
  #onEnded({ code, reason }) {
    // 4003 speaks of the rooms that were; one asked for meanwhile wants a socket of its own.
    if (code === 4003 && this.rooms.size > 0) {
      this.#link.open();
      return;
    }
    const error = new ReactorError("closed", `the server closed the connection (${code}${reason && `: ${reason}`})`);
    for (const room of [...this.rooms.values()]) room.refuse(error);
  }

  /** @param {any} message as the server said it */
  #receive(message) {
    const answered = this.#asked.get(message.id);
    if (answered) {
      this.#asked.delete(message.id);
      if (message.type === "error") answered(new ReactorError(message.code, message.message));
      else answered(null, message);
    } else if (message.type === "service:degraded") {
      this.#setDegraded(true);
    } else if (message.type === "service:restored") {
      this.#setDegraded(false);
      this.emit("restored", message);
    } else {
      this.rooms.get(message.roomId)?.receive(message);
    }
  }

  /** @param {boolean} degraded */
  #setDegraded(degraded) {
    if (this.degraded === degraded) return;
    this.degraded = degraded;
    this.emit("status", this.status);
  }
}
