/**
 * A client of the reactor: rooms over one socket, kept alive by heartbeats and resumed after every loss.
 *
 * The socket is open while a room is wanted. Heartbeats go by the clock; a missing acknowledgement is a lost network.
 * After a loss each room is joined again, and the new snapshot comes out as the events of what really changed.
 */
import { Emitter } from "./emitter.js";
import { ReactorError, passes } from "./error.js";
import { Link } from "./link.js";
import { news } from "./news.js";
import { Postponed } from "./postponed.js";
import { Room } from "./room.js";

/** How long (ms) the server may stay silent after a heartbeat before its socket counts as dead. */
export const SILENCE = 10_000;
/** How long (ms, and up to twice that) until something that was refused for now is asked again. */
const AGAIN_AFTER = 1000;
/** The longest (ms) that a timer is set for: more than 2^31 would be none. */
const LONGEST = 86_400_000;

/**
 * @typedef {(error: ReactorError | null, reply?: any) => void} Answered
 * @typedef {{type: string, [field: string]: unknown}} Request
 * @typedef {{room?: Room, reject: (error: Error) => void, send: () => void}} Saying
 */

export class ReactorClient extends Emitter {
  /** @type {Map<string, Room>} those joined or on their way, by id */
  rooms = new Map();
  /** Who the token says that this is. */
  userId = "";
  /** Whether heartbeats are held back, to see what becomes of one who says nothing any more. */
  silent = false;
  #link;
  #random;
  #shown = "idle";
  #wasOpen = false;
  #degraded = false;
  #nextId = 1;
  /** @type {Map<number, Answered>} */
  #asked = new Map();
  /** Requests of the user's that go on until they are answered. @type {Set<Saying>} */
  #sayings = new Set();
  #postponed = new Postponed();
  #beatAt = 0;
  #unanswered = false;
  /** When `tick` has something to do next. */
  #due = Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** One who stays away on purpose is not called back. */
  #onNews = () => this.retryAt < Infinity && this.wake();

  /** @param {string} url @param {import("./link.js").LinkOptions} [options] */
  constructor(url, options = {}) {
    super();
    this.#random = options.random ?? Math.random;
    this.#link = new Link(url, options, this);
  }

  /** @returns {import("./index.js").ClientStatus} */
  get status() {
    const { state } = this.#link;
    if (state === "open") return this.#degraded ? "degraded" : "connected";
    if (state === "closed") return this.error ? "closed" : "idle";
    return this.#wasOpen ? "reconnecting" : "connecting";
  }

  get error() {
    return this.#link.error;
  }

  get retryAt() {
    return this.#link.retryAt;
  }

  /** @param {string | number} roomId @param {import("./index.js").JoinOptions} [options] @returns {Promise<Room>} */
  async join(roomId, options = {}) {
    const id = String(roomId);
    await this.rooms.get(id)?.leaving;
    if (options.signal?.aborted) throw new ReactorError("aborted", "the signal was aborted");
    let room = this.rooms.get(id);
    if (!room) this.rooms.set(id, (room = new Room(this, id)));
    else if (String(options.userId ?? room.userId) !== room.userId) {
      throw new ReactorError("already_joined", `in the room as ${room.userId}: leave first`);
    }
    const joined = room.join(options);
    this.#link.open();
    return joined;
  }

  /** @param {{leave?: boolean}} [options] */
  close({ leave = true } = {}) {
    if (leave) for (const roomId of this.rooms.keys()) this.ask({ type: "leave_room", roomId }, () => {});
    this.#finish(null);
    this.#link.close();
  }

  /** Time has passed, or the network may be another one: connect, or show that one is there, at once. */
  wake() {
    // "online" may come a moment before the network does: the next attempt is soon again.
    if (this.#link.state === "waiting") this.#link.open(true);
    this.beat();
    this.tick();
  }

  /** Let go of the socket as a lost network would, for so many ms (Infinity: until `wake`). @param {number} pause */
  drop(pause) {
    if (this.#link.state !== "closed") this.#link.drop(pause);
  }

  /** Send a heartbeat now, unless one waits for its acknowledgement. */
  beat() {
    if (this.silent || this.#unanswered || !this.#entered()[0]) return;
    this.#beatAt = Date.now();
    this.#unanswered = this.ask({ type: "room:heartbeat" }, (error) => {
      this.#unanswered = false;
      if (!error) this.#setDegraded(false);
      this.tick();
    });
  }

  /** Look at the clock, and do what is due. */
  tick() {
    clearTimeout(this.#timer);
    this.#link.tick();
    if (this.#link.state !== "open") return;
    const now = Date.now();
    const intervals = this.#entered().map((room) => room.heartbeatInterval);
    const interval = this.silent ? Infinity : Math.min(...intervals);
    // A clock that was set back must not silence a member.
    if (now >= this.#beatAt + interval || now < this.#beatAt) this.beat();
    let due = this.#beatAt + interval;
    if (this.#unanswered) {
      due = Math.max(this.#beatAt, this.#link.heardAt) + SILENCE;
      if (now >= due) {
        if (!this.#degraded) return this.#link.lost();
        due = now + SILENCE;
      }
    }
    this.#due = Math.min(due, this.#link.renewAt);
    if (this.#due < Infinity) this.#timer = setTimeout(() => this.tick(), Math.min(this.#due - now, LONGEST));
  }

  /**
   * Ask until there is an answer, over however many sockets; of a room while one is in it.
   *
   * @param {any} request @param {Room} [room] @returns {Promise<any>} the reply
   */
  request(request, room) {
    return new Promise((resolve, reject) => {
      if (room?.over) return reject(room.farewell);
      const send = () =>
        this.ask(request, (error, reply) => {
          if (error && passes(error)) return this.later(() => this.#sayings.has(saying) && send());
          this.#sayings.delete(saying);
          if (error) reject(error);
          else resolve(reply);
          this.#rest();
        });
      /** @type {Saying} */
      const saying = { room, reject, send };
      this.#sayings.add(saying);
      if (!room || room.entered) send();
      this.#link.open();
    });
  }

  // What its link tells it.

  turned() {
    const { state, token } = this.#link;
    const closed = state === "closed";
    const error = closed && this.error;
    if (state === "open") {
      this.#wasOpen = true;
      this.#beatAt = Date.now(); // joining counts as a heartbeat
      // What follows need not wait for the answer: the server holds it until then.
      if (token !== undefined) this.sayToken(token);
      for (const room of this.rooms.values()) room.enter();
      for (const saying of this.#sayings) if (!saying.room) saying.send();
      this.tick();
    } else {
      if (error) this.#finish(error);
      this.#interrupt();
    }
    if (closed) this.#wasOpen = false;
    news(closed ? "removeEventListener" : "addEventListener", this.#onNews);
    this.#showStatus();
    // One room was told to go, and another is asked for meanwhile.
    if (closed && this.#wanted()) this.#link.open();
  }

  /** @param {any} message as the server said it */
  receive(message) {
    const { type, id, code } = message;
    const answered = this.#asked.get(id);
    this.#asked.delete(id);
    if (type === "auth:ok") {
      this.userId = message.userId;
      this.#link.trust(message.expiresAt);
      this.tick();
    }
    if (type === "error" && code === "token_expired" && !answered) this.#link.renew();
    if (type === "service:degraded" || code === "unavailable") this.#setDegraded(true);
    if (type === "service:restored" || type === "room:joined") this.#setDegraded(false);
    if (type === "service:restored") {
      this.#postponed.end(true);
      this.beat();
    }
    this.rooms.get(message.roomId)?.receive(message);
    if (type === "error") answered?.(new ReactorError(code, message.message));
    else answered?.(null, message);
    // A hidden page has its timers late: whatever comes is a chance for what is overdue.
    if (type === "room:joined" || Date.now() >= this.#due) this.tick();
  }

  /** @param {string} [token] */
  sayToken(token) {
    this.ask({ type: "auth", token }, () => {});
  }

  // What rooms ask of their client.

  /**
   * Send a request; `answered` gets the error or the reply at once when it comes, and nothing if the socket is lost
   * before. False when there is no open socket: nothing was sent.
   *
   * @param {Request} request @param {Answered} answered
   */
  ask(request, answered) {
    const id = this.#nextId++;
    const sent = this.#link.send({ ...request, id });
    if (sent) this.#asked.set(id, answered);
    return sent;
  }

  /** Do something in a while, or as soon as Redis answers again. @param {() => void} act */
  later(act) {
    this.#postponed.add(act, AGAIN_AFTER * (1 + this.#random()));
  }

  /** A room is entered: what was to be said there is said, again where a socket was lost. @param {Room} room */
  resume(room) {
    for (const saying of this.#sayings) if (saying.room === room) saying.send();
  }

  /** A room is over. @param {Room} room */
  forget(room) {
    if (this.rooms.get(room.id) === room) this.rooms.delete(room.id);
    for (const saying of this.#sayings) {
      if (saying.room === room && this.#sayings.delete(saying)) saying.reject(room.farewell);
    }
    this.#rest();
  }

  /** The socket is closed when nothing is wanted of it any more. */
  #rest() {
    if (!this.#wanted() && this.#link.state !== "closed") this.#link.close();
  }

  #wanted() {
    return this.rooms.size + this.#sayings.size;
  }

  #entered() {
    return [...this.rooms.values()].filter((room) => room.entered);
  }

  #interrupt() {
    clearTimeout(this.#timer);
    this.#degraded = this.#unanswered = false;
    this.#due = Infinity;
    this.#asked.clear();
    this.#postponed.end(false);
    for (const room of [...this.rooms.values()]) room.interrupted();
  }

  /** All rooms and requests are over. @param {any} error a ReactorError, or null */
  #finish(error) {
    for (const room of [...this.rooms.values()]) room.end(error);
    for (const { reject } of this.#sayings) reject(error ?? new ReactorError("closed", "the client was closed"));
    this.#sayings.clear();
  }

  /** @param {boolean} degraded */
  #setDegraded(degraded) {
    this.#degraded = degraded;
    this.#showStatus();
  }

  #showStatus() {
    const { status } = this;
    for (const room of [...this.rooms.values()]) room.showStatus();
    if (status === this.#shown) return;
    this.#shown = status;
    this.emit("status", status);
  }
}
