/** A room that the client is in: its members, and the member's own requests. Created by `client.join`. */
import { Emitter } from "./emitter.js";
import { ReactorError, isTransient } from "./error.js";
import { ReportedRoom } from "./reported-room.js";

/**
 * @typedef {import("./client.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").JoinOptions} JoinOptions
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").Status} Status
 */

/** How long (ms) servers may take to register their members again after Redis lost its data: a lease. */
export const SETTLE_DELAY = 5000;

export class Room extends Emitter {
  /** @type {Status} */
  status = "connecting";
  /** Why it has closed, unless it was left. @type {ReactorError | null} */
  error = null;
  /** Whether the last join found the member still present, so that no member was notified of the loss. */
  resumed = false;
  /** Settings of the room, in milliseconds. */
  ttl = 0;
  heartbeatInterval = 0;
  socketId = "";
  /** Whether `away()` was called, and not `back()` since. */
  isAway = false;
  /** Whether it is joined on the open socket. */
  joined = false;
  closed = false;
  /** While it is being left. @type {Promise<void> | undefined} */
  leaving;
  #client;
  #reported;
  /** What each join sends. @type {JoinOptions} */
  #options = {};
  #unanswered = 0; // own changes without a reply
  #requesting = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #settleTimer;
  /** Callers of `join` that wait. @type {{resolve: (room: Room) => void, reject: (error: Error) => void, undo: () => void}[]} */
  #joining = [];

  /** @param {ReactorClient} client @param {string} id */
  constructor(client, id) {
    super();
    this.id = id;
    this.#client = client;
    this.#reported = new ReportedRoom(id);
  }

  get userId() {
    return String(this.#options.userId ?? this.#reported.userId);
  }

  get members() {
    return this.#reported.reported;
  }

  get count() {
    return this.#reported.size;
  }

  get me() {
    return this.members.get(this.userId);
  }

  get others() {
    return [...this.members.values()].filter((member) => member !== this.me);
  }

  get view() {
    return this.#reported.served;
  }

  get epoch() {
    return this.#reported.epoch;
  }

  get version() {
    return this.#reported.version;
  }

  /** @param {unknown} data @param {{username?: string}} [more] */
  update(data, more) {
    const change = { data, ...more };
    return this.#request({ type: "room:update", ...change }, this.#setOptions(change));
  }

  away() {
    return this.#setAway(true);
  }

  back() {
    return this.#setAway(false);
  }

  /** @returns {Promise<void>} */
  leave() {
    return (this.leaving ??= new Promise((resolve) => {
      if (this.closed) return resolve();
      this.on("closed", resolve);
      const send = () =>
        this.#client.send({ type: "leave_room", roomId: this.id }, (error) => {
          if (isTransient(error)) this.#defer(send);
          else this.end(null);
        });
      // Without a socket the disconnect grace removes the member.
      if (!send()) this.end(null);
    }));
  }

  /**
   * Change what each join sends from now on; undefined fields stay.
   *
   * @param {JoinOptions} change @returns {() => void} reverts it, unless it was changed again meanwhile
   */
  #setOptions(change) {
    const former = this.#options;
    const given = Object.entries(change).filter(([, value]) => value !== undefined);
    const options = (this.#options = { ...former, ...Object.fromEntries(given) });
    return () => {
      if (this.#options === options) this.#options = former;
    };
  }

  /** @param {boolean} away */
  #setAway(away) {
    const former = this.isAway;
    this.isAway = away;
    return this.#request({ type: away ? "room:away" : "room:back" }, () => (this.isAway = former));
  }

  /**
   * Send a change until it is answered. If the socket is lost meanwhile, the next join sends it too.
   *
   * @param {{type: string}} request @param {() => void} undo when it is refused @returns {Promise<void>}
   */
  #request(request, undo) {
    this.#unanswered++;
    const answer = this.#client.request({ ...request, roomId: this.id }, this).finally(() => this.#unanswered--);
    // A rejection that the caller does not handle must not end the program.
    answer.catch(undo);
    return answer;
  }

  // Called by the client.

  /** Join, or join again with other options. @param {JoinOptions} options @returns {Promise<Room>} */
  join({ signal, ...options }) {
    const undo = this.#setOptions(options);
    return new Promise((resolve, reject) => {
      const abort = () => {
        reject(new ReactorError("aborted", "the signal was aborted"));
        this.leave();
      };
      if (signal) {
        signal.addEventListener("abort", abort);
        this.on("closed", () => signal.removeEventListener("abort", abort));
      }
      this.#joining.push({ resolve, reject, undo });
      this.sendJoin();
    });
  }

  /** Send a join, if a socket is open. */
  sendJoin() {
    if (this.leaving) return;
    this.#client.send({ ...this.#options, type: "join_room", roomId: this.id }, (error) => {
      if (isTransient(error) || error?.code === "not_joined") this.#defer(() => this.sendJoin());
      else if (error && !this.joined) this.end(error);
      else this.#settleJoins(error);
    });
    // At the same time, so that the other members are notified of both at once.
    if (!this.joined && this.isAway) this.#sendAway(true);
  }

  /** The connection is lost. */
  disconnected() {
    this.joined = this.#requesting = false;
    this.#reported.wait();
    if (this.leaving) this.end(null);
  }

  /** @param {ReactorError | null} error */
  end(error) {
    if (this.closed) return;
    this.closed = true;
    this.joined = false;
    this.error = error;
    clearTimeout(this.#settleTimer);
    this.#client.remove(this);
    this.#settleJoins(this.endError);
    this.emit("closed");
    if (error?.code === "force-leave") this.emit("force-leave", error);
    this.showStatus();
  }

  /** The error for requests to a room that has closed. @returns {ReactorError} */
  get endError() {
    return this.error ?? new ReactorError("not_joined", "left the room");
  }

  /** Update the status, and emit a change of it. */
  showStatus() {
    /** @type {Status} */
    let status = this.status === "connecting" ? "connecting" : "reconnecting";
    if (this.closed) status = "closed";
    else if (this.joined) status = /** @type {Status} */ (this.#client.status);
    if (status === this.status) return;
    this.status = status;
    this.emit("status", status);
  }

  /** @param {any} message a decoded message of the server */
  receive(message) {
    const { type } = message;
    if (type === "room:joined") this.#onJoined(message);
    if (type === "room:diff") this.#emitAll(this.#reported.diff(message));
    // A reply (with an id) does not say how the room is served, but a list may be the snapshot that is needed.
    const unrequested = message.id === undefined;
    if (type === "room:members" ? unrequested || this.#reported.needsSnapshot : type === "room:count" && unrequested) {
      this.#emitAll(this.#reported.snapshot(message));
    }
    if (type === "room:message") this.emit("message", message);
    if (type === "room:force-leave") {
      const { roomId, reason, timestamp } = message;
      this.end(new ReactorError("force-leave", message.message, { roomId, reason, timestamp }));
    }
  }

  /** @param {any} reply */
  #onJoined(reply) {
    const { resumed, ttl, heartbeatInterval, socketId } = reply;
    const again = this.joined;
    Object.assign(this, { resumed, ttl, heartbeatInterval, socketId, joined: true });
    this.#reported.userId = reply.userId;
    this.#emitAll(this.#reported.snapshot(reply));
    this.showStatus();
    // The member was away when its last connection was lost, for example when a page is reloaded, and is back now.
    if (this.me?.away) this.#sendAway(false);
    if (!again) this.#client.sendPending(this);
  }

  /** @param {() => void} call after a delay, unless the room has closed by then */
  #defer(call) {
    this.#client.defer(() => this.closed || call());
  }

  /** Send the away state, unless it has changed meanwhile. @param {boolean} away */
  #sendAway(away) {
    if (away !== this.isAway) return;
    this.#client.send({ type: away ? "room:away" : "room:back", roomId: this.id }, (error) => {
      if (isTransient(error)) this.#defer(() => this.#sendAway(away));
    });
  }

  /** Settle the promises of `join`. @param {ReactorError | null} error */
  #settleJoins(error) {
    for (const { resolve, reject, undo } of this.#joining.splice(0)) {
      if (error) {
        undo();
        reject(error);
      } else resolve(this);
    }
  }

  /** @param {RoomEvent[]} events */
  #emitAll(events) {
    const { me } = this;
    // Another device of this user may have changed it; a rejoin must not change it back.
    if (me && !this.#unanswered) Object.assign(this.#options, { username: me.username, data: me.data });
    for (const event of events) this.emit(event.kind, event);
    if (events[0]) this.emit("change", events);
    this.#requestSnapshot();
    if (!this.closed && this.#reported.unsettled) {
      this.#settleTimer ??= setTimeout(() => {
        this.#settleTimer = undefined;
        this.#emitAll(this.#reported.settle());
      }, SETTLE_DELAY);
    }
  }

  #requestSnapshot() {
    if (this.#requesting || !this.joined || !this.#reported.needsSnapshot) return;
    const again = () => {
      this.#requesting = false;
      this.#requestSnapshot();
    };
    // `receive` applies the reply like any other list of members.
    this.#requesting = this.#client.send({ type: "room:members", roomId: this.id }, (error) => {
      if (error) this.#defer(again);
      else again();
    });
  }
}
