/**
 * A client of a reactor server: rooms over one connection, kept alive by heartbeats and resumed after every loss.
 *
 * The connection is open while a room is wanted. Heartbeats follow the clock; without an acknowledgement the connection
 * counts as lost. After a loss each room is joined again, and only the difference to its new snapshot becomes events.
 */
import { SleepDetector, monotonic } from "./clock.js";
import { Connection } from "./connection.js";
import { DeferredCalls } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { checkOptions, checkedFields, checkedId, jsonCopy, refuse, shown } from "./encode.js";
import { ReactorError, isTransient } from "./error.js";
import { watchNetwork } from "./network.js";
import { OpenRequests } from "./open-requests.js";
import { Room } from "./room.js";
import { WatchedRooms } from "./watched-rooms.js";

/** How long (ms) a reply may take; also that to a heartbeat, before the connection counts as lost. */
export const REQUEST_TIMEOUT = 10_000;
/** The delay (ms, plus up to as much again at random) before a request that failed for now is repeated. */
const RETRY_DELAY = 1000;
/** How long (ms) a leave without a connection is remembered; the server's grace is over by then. */
export const LEAVE_TIMEOUT = 30_000;
/** How long (ms) a page that was left stays unconnected, if it neither ends nor is frozen or shown again. */
const PAGE_LEFT = 60_000;
/** The close code after a message that is too big. */
const TOO_BIG = 1009;
/** The time (ms) between two heartbeats of a client that is in no room, and only watches some. */
const IDLE_INTERVAL = 25_000;
/** The longest time (ms) between two looks at the clocks: so soon after a sleep of the machine the connection is tested. */
const MAX_TIMER = 5000;

/**
 * @typedef {import("./open-requests.js").Callback} Callback
 * @typedef {{type: string, [field: string]: unknown}} Request
 * @typedef {{reject: (error: Error) => void, send: () => void}} Question
 * @typedef {object} Feed what is followed on the connection, which is open while its `size` is not 0
 * @property {number} size
 * @property {() => void} opened a socket is open
 * @property {() => void} lost
 * @property {() => void} showStatus
 * @property {(message: any) => void} receive
 * @property {(error: ReactorError | null) => void} endAll
 */

export class ReactorClient extends Emitter {
  /** @type {Map<string, Room>} those joined or being joined, by id */
  rooms = new Map();
  /** The user of the token, once known. */
  userId = "";
  /** Whether heartbeats are withheld, to show how a member expires. */
  silent = false;
  /** The server's, once known. @type {Partial<import("./encode.js").Limits>} */
  limits = {};
  #connection;
  #random;
  /** @type {import("./index.js").ClientStatus} */
  #emitted = "idle";
  #wasOpen = false;
  #degraded = false;
  #nextId = 1;
  /** Requests on this socket. */
  #open;
  /** Requests of the application, which are repeated until they are answered. @type {Set<Question>} */
  #questions = new Set();
  /** Rooms that were left without a connection, and when that is forgotten. @type {Map<Room, ReturnType<typeof setTimeout>>} */
  #departures = new Map();
  #watched = new WatchedRooms(this, () => this.closeIfUnused());
  /** What is followed beside the rooms that are joined; other modules, such as people.js, add to it. @type {Feed[]} */
  feeds = [this.#watched];
  #deferred = new DeferredCalls();
  #sleep = new SleepDetector();
  #heartbeatAt = 0;
  #unacknowledged = false;
  /** When `tick` has something to do next. */
  #tickAt = Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** Whether the page was left, and not shown again since. */
  #pageLeft = false;
  #onPageEvent = (/** @type {{type: string, persisted?: boolean}} */ { type, persisted }) => {
    if (type === "pageshow" || type === "resume") this.#pageLeft = false;
    // A page that is left becomes hidden afterwards. After `drop(Infinity)` only the application reconnects.
    if (this.#pageLeft || this.retryAt === Infinity) return;
    if (type !== "pagehide") return this.wake();
    this.#pageLeft = true;
    if (!persisted) this.#connection.send({ type: "closing" });
    // The connection of a page that is frozen would be kept open, with the member in the room.
    this.drop(PAGE_LEFT);
  };

  /** @param {string} url @param {import("./connection.js").ConnectionOptions} [options] */
  constructor(url, options = {}) {
    super(["status", "error", "connection-error"]);
    checkOptions(options, "{ token }");
    this.#random = options.random ?? Math.random;
    this.#open = new OpenRequests(options.requestTimeout ?? REQUEST_TIMEOUT);
    this.#connection = new Connection(url, options, this);
  }

  /** @returns {import("./index.js").ClientStatus} */
  get status() {
    const { state } = this.#connection;
    if (state === "open") return this.#degraded ? "degraded" : "connected";
    if (state === "closed") return this.error ? "closed" : "idle";
    return this.#wasOpen ? "reconnecting" : "connecting";
  }

  get error() {
    return this.#connection.error;
  }

  get retryAt() {
    return this.#connection.retryAt;
  }

  /** @param {string | number} roomId @param {import("./index.js").JoinOptions} [options] @returns {Promise<Room>} */
  async join(roomId, options = {}) {
    checkOptions(options, '{ userId: "ann" }');
    const { userId, view, signal, ...fields } = options;
    const id = checkedId("roomId", roomId, this.limits);
    const user = userId === undefined ? userId : checkedId("userId", userId, this.limits);
    const given = checkedFields(fields, this.limits);
    if (view !== undefined && !["members", "count", "none"].includes(view)) refuse("view", `"members", "count" or "none" is needed, not ${shown(view)}`);
    if (signal && typeof signal.addEventListener !== "function") refuse("signal", "an AbortSignal is needed, as the property `signal` of a controller");
    await this.rooms.get(id)?.leaving;
    if (signal?.aborted) throw new ReactorError("aborted", "the signal was aborted");
    // The same user returns; another one follows the departure.
    for (const left of this.#departures.keys()) if (left.id === id && (user ?? left.userId) === left.userId) this.departed(left);
    let room = this.rooms.get(id);
    if (!room) this.rooms.set(id, (room = new Room(this, id, user)));
    else if ((user ?? room.userId) !== room.userId) {
      throw new ReactorError("already_joined", `this client is in the room as ${room.userId}: leave it, or use a second client`);
    }
    const joined = room.join(given, view, signal);
    this.#connection.open();
    return joined;
  }

  /** @param {import("./index.js").OnlineOptions} [options] @returns {Promise<Room>} */
  async online(options = {}) {
    checkOptions(options, '{ userId: "ann" }');
    const { userId = this.userId, signal } = options;
    if (userId === "") refuse("userId", "the user is not known: pass it, as in { userId: \"ann\" }");
    return this.join(`@${checkedId("userId", userId, this.limits)}`, { userId, view: "none", signal });
  }

  /** @param {string | number} roomId @param {{view?: "members" | "count" | undefined}} [options] */
  watch(roomId, options = {}) {
    checkOptions(options, '{ view: "count" }');
    const { view = "members" } = options;
    if (view !== "members" && view !== "count") refuse("view", `"members" or "count" is needed, not ${shown(view)}`);
    const room = this.#watched.add(checkedId("roomId", roomId, this.limits), view);
    this.#connection.open();
    return room;
  }

  /** @param {{leave?: boolean}} [options] */
  close({ leave = true } = {}) {
    if (leave) for (const roomId of this.rooms.keys()) this.send({ type: "leave_room", roomId }, () => {});
    this.#endAll(null);
    this.#connection.close();
    // A listener may have begun something meanwhile.
    if (this.isUsed) this.#connection.open();
  }

  /** Reconnect at once, or test the connection by a heartbeat: time has passed, or the network may be another one. */
  wake() {
    this.#connection.wake();
    this.beat();
    this.tick();
  }

  /** Drop the socket as a lost network would. @param {number} pause ms; Infinity: until `wake` */
  drop(pause) {
    if (this.#connection.state !== "closed") this.#connection.drop(pause);
  }

  /** Send a heartbeat now, unless one is not acknowledged yet. */
  beat() {
    const [room] = this.#joinedRooms();
    if (this.silent || this.#unacknowledged || !(room || this.#followed)) return;
    this.#heartbeatAt = monotonic();
    // A server without Redis acknowledges no heartbeat, but a request for data is answered: refused.
    const request = this.#degraded && room ? { type: "room:count", roomId: room.id } : { type: "room:heartbeat" };
    this.#unacknowledged = this.send(request, (error) => {
      this.#unacknowledged = false;
      if (!error && room) this.#setDegraded(false);
      if (error?.code !== "timeout") this.tick();
    });
  }

  /** Compare deadlines with the clock, and do what is due. */
  tick() {
    clearTimeout(this.#timer);
    if (this.#sleep.slept()) return this.wake();
    this.#connection.tick();
    const late = this.#open.expire();
    if (this.#connection.state !== "open") return;
    // Without any message since then the connection counts as lost; otherwise a heartbeat tests it.
    if (this.#connection.receivedAt < late) return this.#connection.reconnect();
    if (late) this.beat();
    const intervals = this.#joinedRooms().map((room) => room.heartbeatInterval);
    if (this.#followed) intervals.push(IDLE_INTERVAL);
    const interval = this.silent ? Infinity : Math.min(...intervals);
    if (monotonic() >= this.#heartbeatAt + interval) this.beat();
    // One that is not acknowledged is followed by another when it is, or when its time is over.
    const heartbeatDue = this.#unacknowledged ? Infinity : this.#heartbeatAt + interval;
    this.#tickAt = Infinity;
    this.#schedule(Math.min(heartbeatDue, this.#open.dueAt, this.#connection.renewAt));
  }

  /** @param {number} at */
  #schedule(at) {
    if (at >= this.#tickAt) return;
    this.#tickAt = at;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.tick(), Math.min(Math.max(at - monotonic(), 0), MAX_TIMER));
  }

  /**
   * Send a request, and repeat it until it is answered, on any number of sockets.
   *
   * @param {any} question @returns {Promise<any>} the reply
   */
  async request(question) {
    const request = jsonCopy(question, "request");
    return new Promise((resolve, reject) => {
      const send = () =>
        this.send(request, (error, reply) => {
          if (isTransient(error)) return this.defer(() => this.#questions.has(pending) && send(), error);
          this.#questions.delete(pending);
          if (error) reject(error);
          else resolve(reply);
          this.closeIfUnused();
        });
      const pending = { reject, send };
      this.#questions.add(pending);
      send();
      this.#connection.open();
    });
  }

  // Called by the connection.

  stateChanged() {
    const { state, token } = this.#connection;
    const closed = state === "closed";
    const error = closed && this.error;
    if (state === "open") {
      this.#wasOpen = true;
      this.#pageLeft = false;
      this.#heartbeatAt = monotonic(); // a join counts as a heartbeat
      // What follows need not wait for the reply: the server defers it until then.
      if (token !== undefined) this.sendToken(token);
      // A room that one user has left and another one joins is left first; the others last, so that the connection is in use.
      const departures = [...this.#departures.keys()];
      for (const room of departures) if (this.rooms.has(room.id)) room.sendDeparture();
      for (const room of this.rooms.values()) room.sendJoin();
      for (const room of departures) if (!this.rooms.has(room.id)) room.sendDeparture();
      for (const feed of this.feeds) feed.opened();
      for (const { send } of this.#questions) send();
      this.tick();
    } else {
      if (closed) this.#wasOpen = false;
      if (error) this.#endAll(error);
      // A listener may have begun something meanwhile, for which the connection is opened again.
      if (this.#connection.state !== state) return;
      this.#disconnected();
    }
    watchNetwork(closed ? "removeEventListener" : "addEventListener", this.#onPageEvent);
    this.#showStatus();
  }

  /** @param {any} message a decoded message of the server */
  receive(message) {
    const { type, code } = message;
    const unrequested = /^(token_expired|banned)$/.test(code) && message.id === undefined;
    const callback = unrequested ? undefined : this.#open.take(message);
    if (type === "auth:ok") {
      this.userId = message.userId;
      this.#connection.accepted(message);
      this.tick();
    }
    if (unrequested && code === "token_expired") {
      this.#connection.expired();
      this.tick();
    }
    // From all rooms: the server closes the connection next.
    if (code === "banned" && message.roomId === undefined) this.#connection.banned = this.refusal(code, message.message, message);
    if (type === "service:degraded" || code === "unavailable") this.#setDegraded(true);
    if (/^(service:restored|people:state|room:(joined|watching))$/.test(type)) this.#setDegraded(false);
    if (type === "service:restored") {
      this.#deferred.end(true);
      this.beat();
    }
    if (type === "room:heartbeat:due") this.beat();
    this.limits = message.limits ?? this.limits;
    this.rooms.get(message.roomId)?.receive(message);
    for (const feed of this.feeds) feed.receive(message);
    if (type === "error") callback?.(this.refusal(code, message.message, message));
    else callback?.(null, message);
    // Timers of a hidden page are late, so any message is an occasion to do what is due.
    if (type === "room:joined" || monotonic() >= this.#tickAt) this.tick();
  }

  /** @param {string} [token] */
  sendToken(token) {
    this.send({ type: "auth", token }, (error) => (this.#connection.refusal = error?.message));
  }

  // Called by feeds.

  /** Something more is followed: open the connection, unless it is open. */
  open() {
    this.#connection.open();
  }

  closeIfUnused() {
    if (!this.isUsed && this.#connection.state !== "closed") this.#connection.close();
  }

  // Called by rooms.

  /** @param {string} code @param {string} message @param {{ retryAfter?: number, until?: number }} [when] ms */
  refusal(code, message, { retryAfter, until } = {}) {
    const sentence = message
      .replace(/^this server requires a token.*/, "the server requires a token: pass `token` to ReactorClient")
      .replace(/^join_room needs "(\w+)"/, "join needs `$1`");
    return new ReactorError(code, sentence, { retryAfter, until });
  }

  /**
   * Send a request. `callback` receives the error or the reply; it is not called if the socket is lost before.
   * Returns false without an open socket: nothing was sent.
   *
   * @param {Request} request @param {Callback} callback
   */
  send(request, callback) {
    const id = this.#nextId++;
    try {
      const size = this.#connection.send({ ...request, id }, this.limits.message);
      if (!size) return false;
      this.#open.add(id, request, size, callback);
      this.#schedule(this.#open.dueAt);
    } catch (error) {
      // It concerns this request alone.
      const refusal = error instanceof ReactorError ? error : new ReactorError("bad_request", String(error));
      this.#deferred.add(() => callback(refusal), 0);
    }
    return true;
  }

  /**
   * Make a call after a delay, or as soon as the service is restored.
   *
   * @param {() => void} call @param {ReactorError | null} [error] which may say how long to wait
   */
  defer(call, error) {
    this.#deferred.add(call, Math.max(RETRY_DELAY, error?.retryAfter ?? 0) * (1 + this.#random()));
  }

  /** A room has ended. @param {Room} room */
  remove(room) {
    if (this.rooms.get(room.id) === room) this.rooms.delete(room.id);
    this.closeIfUnused();
  }

  /** A room was left without a connection: leave it with the next one. @param {Room} room */
  leaveLater(room) {
    this.#departures.set(room, setTimeout(() => this.departed(room), LEAVE_TIMEOUT));
  }

  /** It was left, or that does not matter any more. @param {Room} room */
  departed(room) {
    clearTimeout(this.#departures.get(room));
    this.#departures.delete(room);
    this.closeIfUnused();
  }

  /** @param {Room} room */
  isDeparting(room) {
    return this.#departures.has(room);
  }

  /** Whether a connection is needed. */
  get isUsed() {
    return this.rooms.size + this.#questions.size + this.#departures.size || this.#followed;
  }

  get #followed() {
    return this.feeds.some(({ size }) => size);
  }

  #joinedRooms() {
    return [...this.rooms.values()].filter((room) => room.joined);
  }

  #disconnected() {
    clearTimeout(this.#timer);
    this.#degraded = this.#unacknowledged = false;
    this.#tickAt = Infinity;
    this.#deferred.end(false);
    this.#open.clear(/** @type {any} */ (this.error)?.closeCode === TOO_BIG);
    for (const room of [...this.rooms.values()]) room.disconnected();
    for (const feed of this.feeds) feed.lost();
  }

  /** End all rooms and requests. @param {any} error a ReactorError, or null */
  #endAll(error) {
    for (const room of [...this.rooms.values()]) room.end(error);
    for (const feed of this.feeds) feed.endAll(error);
    for (const { reject } of this.#questions) reject(error ?? new ReactorError("closed", "the client was closed"));
    this.#questions.clear();
    for (const timer of this.#departures.values()) clearTimeout(timer);
    this.#departures.clear();
  }

  /** @param {boolean} degraded */
  #setDegraded(degraded) {
    this.#degraded = degraded;
    this.#showStatus();
  }

  #showStatus() {
    const { status } = this;
    for (const room of [...this.rooms.values()]) room.showStatus();
    for (const feed of this.feeds) feed.showStatus();
    if (status === this.#emitted) return;
    this.#emitted = status;
    this.emit("status", status);
  }
}
