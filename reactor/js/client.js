/**
 * A client of a reactor server: rooms over one connection, kept alive by heartbeats and resumed after every loss.
 *
 * The connection is open while a room is wanted. Heartbeats follow the clock; without an acknowledgement the connection
 * counts as lost. After a loss each room is joined again, and only the difference to its new snapshot becomes events.
 */
import { Connection } from "./connection.js";
import { DeferredCalls } from "./deferred.js";
import { Emitter } from "./emitter.js";
import { ReactorError, isTransient } from "./error.js";
import { watchNetwork } from "./network.js";
import { Room } from "./room.js";

/** How long (ms) the server may be silent after a heartbeat before the connection counts as lost. */
export const ACK_TIMEOUT = 10_000;
/** The delay (ms, plus up to as much again at random) before a request that failed for now is repeated. */
const RETRY_DELAY = 1000;
/** The longest delay (ms) of a timer; setTimeout takes one of more than 2^31 as 0. */
const MAX_TIMER = 86_400_000;

/**
 * @typedef {(error: ReactorError | null, reply?: any) => void} Callback
 * @typedef {{type: string, [field: string]: unknown}} Request
 * @typedef {{room?: Room, reject: (error: Error) => void, send: () => void}} PendingRequest
 */

export class ReactorClient extends Emitter {
  /** @type {Map<string, Room>} those joined or being joined, by id */
  rooms = new Map();
  /** The user of the token, once known. */
  userId = "";
  /** Whether heartbeats are withheld, to show how a member expires. */
  silent = false;
  #connection;
  #random;
  /** @type {import("./index.js").ClientStatus} */
  #emitted = "idle";
  #wasOpen = false;
  #degraded = false;
  #nextId = 1;
  /** Callbacks of the requests on this socket, by id. @type {Map<number, Callback>} */
  #callbacks = new Map();
  /** Requests that are repeated until they are answered. @type {Set<PendingRequest>} */
  #requests = new Set();
  #deferred = new DeferredCalls();
  #heartbeatAt = 0;
  #unacknowledged = false;
  /** When `tick` has something to do next. */
  #tickAt = Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** After `drop(Infinity)` only the application reconnects. */
  #onNetworkEvent = () => this.retryAt < Infinity && this.wake();

  /** @param {string} url @param {import("./connection.js").ConnectionOptions} [options] */
  constructor(url, options = {}) {
    super();
    this.#random = options.random ?? Math.random;
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
    const id = String(roomId);
    await this.rooms.get(id)?.leaving;
    if (options.signal?.aborted) throw new ReactorError("aborted", "the signal was aborted");
    let room = this.rooms.get(id);
    if (!room) this.rooms.set(id, (room = new Room(this, id)));
    else if (String(options.userId ?? room.userId) !== room.userId) {
      throw new ReactorError("already_joined", `in the room as ${room.userId}: leave first`);
    }
    const joined = room.join(options);
    this.#connection.open();
    return joined;
  }

  /** @param {{leave?: boolean}} [options] */
  close({ leave = true } = {}) {
    if (leave) for (const roomId of this.rooms.keys()) this.send({ type: "leave_room", roomId }, () => {});
    this.#endAll(null);
    this.#connection.close();
  }

  /** Reconnect at once, or test the connection by a heartbeat: time has passed, or the network may be another one. */
  wake() {
    // "online" may come a moment before the network works: the next attempt is soon again.
    if (this.#connection.state === "waiting") this.#connection.open(true);
    this.beat();
    this.tick();
  }

  /** Drop the socket as a lost network would, for so many ms (Infinity: until `wake`). @param {number} pause */
  drop(pause) {
    if (this.#connection.state !== "closed") this.#connection.drop(pause);
  }

  /** Send a heartbeat now, unless one is not acknowledged yet. */
  beat() {
    if (this.silent || this.#unacknowledged || !this.#joinedRooms()[0]) return;
    this.#heartbeatAt = Date.now();
    this.#unacknowledged = this.send({ type: "room:heartbeat" }, (error) => {
      this.#unacknowledged = false;
      if (!error) this.#setDegraded(false);
      this.tick();
    });
  }

  /** Compare deadlines with the clock, and do what is due. */
  tick() {
    clearTimeout(this.#timer);
    this.#connection.tick();
    if (this.#connection.state !== "open") return;
    const now = Date.now();
    const intervals = this.#joinedRooms().map((room) => room.heartbeatInterval);
    const interval = this.silent ? Infinity : Math.min(...intervals);
    // After the clock was set back, heartbeats must not stop.
    if (now >= this.#heartbeatAt + interval || now < this.#heartbeatAt) this.beat();
    let due = this.#heartbeatAt + interval;
    if (this.#unacknowledged) {
      due = Math.max(this.#heartbeatAt, this.#connection.receivedAt) + ACK_TIMEOUT;
      if (now >= due) {
        if (!this.#degraded) return this.#connection.reconnect();
        due = now + ACK_TIMEOUT;
      }
    }
    this.#tickAt = Math.min(due, this.#connection.renewAt);
    if (this.#tickAt < Infinity) this.#timer = setTimeout(() => this.tick(), Math.min(this.#tickAt - now, MAX_TIMER));
  }

  /**
   * Send a request, and repeat it until it is answered, on any number of sockets. With a room: while joined to it.
   *
   * @param {any} request @param {Room} [room] @returns {Promise<any>} the reply
   */
  request(request, room) {
    return new Promise((resolve, reject) => {
      if (room?.closed) return reject(room.endError);
      const send = () =>
        this.send(request, (error, reply) => {
          if (isTransient(error)) return this.defer(() => this.#requests.has(pending) && send());
          this.#requests.delete(pending);
          if (error) reject(error);
          else resolve(reply);
          this.#closeIfUnused();
        });
      /** @type {PendingRequest} */
      const pending = { room, reject, send };
      this.#requests.add(pending);
      if (!room || room.joined) send();
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
      this.#heartbeatAt = Date.now(); // a join counts as a heartbeat
      // What follows need not wait for the reply: the server defers it until then.
      if (token !== undefined) this.sendToken(token);
      for (const room of this.rooms.values()) room.sendJoin();
      for (const pending of this.#requests) if (!pending.room) pending.send();
      this.tick();
    } else {
      if (error) this.#endAll(error);
      this.#disconnected();
    }
    if (closed) this.#wasOpen = false;
    watchNetwork(closed ? "removeEventListener" : "addEventListener", this.#onNetworkEvent);
    this.#showStatus();
    // A force-leave closed the connection while another room was being joined.
    if (closed && this.#isUsed()) this.#connection.open();
  }

  /** @param {any} message a decoded message of the server */
  receive(message) {
    const { type, id, code } = message;
    const callback = this.#callbacks.get(id);
    this.#callbacks.delete(id);
    if (type === "auth:ok") {
      this.userId = message.userId;
      this.#connection.accepted(message.expiresAt);
      this.tick();
    }
    if (type === "error" && code === "token_expired" && !callback) this.#connection.renew();
    if (type === "service:degraded" || code === "unavailable") this.#setDegraded(true);
    if (type === "service:restored" || type === "room:joined") this.#setDegraded(false);
    if (type === "service:restored") {
      this.#deferred.end(true);
      this.beat();
    }
    this.rooms.get(message.roomId)?.receive(message);
    if (type === "error") callback?.(new ReactorError(code, message.message));
    else callback?.(null, message);
    // Timers of a hidden page are late, so any message is an occasion to do what is due.
    if (type === "room:joined" || Date.now() >= this.#tickAt) this.tick();
  }

  /** @param {string} [token] */
  sendToken(token) {
    this.send({ type: "auth", token }, () => {});
  }

  // Called by rooms.

  /**
   * Send a request. `callback` receives the error or the reply; it is not called if the socket is lost before.
   * Returns false without an open socket: nothing was sent.
   *
   * @param {Request} request @param {Callback} callback
   */
  send(request, callback) {
    const id = this.#nextId++;
    const sent = this.#connection.send({ ...request, id });
    if (sent) this.#callbacks.set(id, callback);
    return sent;
  }

  /** Make a call after a delay, or as soon as the service is restored. @param {() => void} call */
  defer(call) {
    this.#deferred.add(call, RETRY_DELAY * (1 + this.#random()));
  }

  /** A room was joined on this socket: send its pending requests. @param {Room} room */
  sendPending(room) {
    for (const pending of this.#requests) if (pending.room === room) pending.send();
  }

  /** A room has ended. @param {Room} room */
  remove(room) {
    if (this.rooms.get(room.id) === room) this.rooms.delete(room.id);
    for (const pending of this.#requests) {
      if (pending.room === room && this.#requests.delete(pending)) pending.reject(room.endError);
    }
    this.#closeIfUnused();
  }

  #closeIfUnused() {
    if (!this.#isUsed() && this.#connection.state !== "closed") this.#connection.close();
  }

  #isUsed() {
    return this.rooms.size + this.#requests.size;
  }

  #joinedRooms() {
    return [...this.rooms.values()].filter((room) => room.joined);
  }

  #disconnected() {
    clearTimeout(this.#timer);
    this.#degraded = this.#unacknowledged = false;
    this.#tickAt = Infinity;
    this.#callbacks.clear();
    this.#deferred.end(false);
    for (const room of [...this.rooms.values()]) room.disconnected();
  }

  /** End all rooms and requests. @param {any} error a ReactorError, or null */
  #endAll(error) {
    for (const room of [...this.rooms.values()]) room.end(error);
    for (const { reject } of this.#requests) reject(error ?? new ReactorError("closed", "the client was closed"));
    this.#requests.clear();
  }

  /** @param {boolean} degraded */
  #setDegraded(degraded) {
    this.#degraded = degraded;
    this.#showStatus();
  }

  #showStatus() {
    const { status } = this;
    for (const room of [...this.rooms.values()]) room.showStatus();
    if (status === this.#emitted) return;
    this.#emitted = status;
    this.emit("status", status);
  }
}
