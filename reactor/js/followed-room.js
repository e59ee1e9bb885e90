/** A room as this client follows it, as a member or an observer: what it holds, and the events of its changes. */
import { Emitter } from "./emitter.js";
import { ReportedRoom } from "./reported-room.js";

/**
 * @typedef {import("./client.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").Status} Status
 */

/** How long (ms) servers may take to register their members again after Redis lost its data: a lease. */
export const SETTLE_DELAY = 5000;

export class FollowedRoom extends Emitter {
  /** @type {Status} */
  status = "connecting";
  /** Why it has closed, unless the application closed it. @type {import("./error.js").ReactorError | null} */
  error = null;
  closed = false;
  /** Whether it is followed on the open socket. */
  joined = false;
  /** For the classes that extend this one. */
  client;
  reported;
  #requesting = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #settleTimer;
  /** @type {import("./index.js").RoomSnapshot | undefined} */
  #snapshot;

  /** @param {ReactorClient} client @param {string} id @param {string[]} events */
  constructor(client, id, events) {
    super(["join", "leave", "update", "sync", "change", "status", ...events]);
    this.client = client;
    this.id = id;
    this.reported = new ReportedRoom(id);
  }

  get members() {
    return this.reported.reported;
  }

  get count() {
    return this.reported.size;
  }

  /** @returns {import("./index.js").Member | undefined} */
  get me() {
    return undefined;
  }

  get view() {
    return this.reported.served;
  }

  get epoch() {
    return this.reported.epoch;
  }

  get version() {
    return this.reported.version;
  }

  // A store for user interfaces; also where the methods are passed on by themselves.

  getSnapshot = () => {
    const { status, error, view, count, me } = this;
    return (this.#snapshot ??= Object.freeze({ status, error, view, count, members: Object.freeze([...this.members.values()]), me }));
  };

  /** @param {(snapshot: import("./index.js").RoomSnapshot) => void} run */
  subscribe = (run) => {
    const notify = () => run(this.getSnapshot());
    const stops = [this.on("change", notify), this.on("status", notify)];
    notify();
    return () => stops.forEach((stop) => stop());
  };

  // Called by the client, and by the classes that extend this one.

  /** The connection is lost. */
  lost() {
    this.joined = this.#requesting = false;
    this.reported.wait();
  }

  /** It has ended. @param {import("./error.js").ReactorError | null} error */
  ended(error) {
    this.closed = true;
    this.joined = false;
    this.error = error;
    clearTimeout(this.#settleTimer);
  }

  /** Update the status, and emit a change of it. */
  showStatus() {
    /** @type {Status} */
    let status = this.status === "connecting" ? "connecting" : "reconnecting";
    if (this.closed) status = "closed";
    else if (this.joined) status = /** @type {Status} */ (this.client.status);
    if (status === this.status) return;
    this.status = status;
    this.#snapshot = undefined;
    this.emit("status", status);
  }

  /** @param {RoomEvent[]} events */
  emitAll(events) {
    this.#snapshot = undefined;
    for (const event of events) this.emit(event.kind, event);
    if (events[0]) this.emit("change", events);
    this.#requestSnapshot();
    if (!this.closed && this.reported.unsettled) {
      this.#settleTimer ??= setTimeout(() => {
        this.#settleTimer = undefined;
        this.emitAll(this.reported.settle());
      }, SETTLE_DELAY);
    }
  }

  /** @param {() => void} call after a delay, unless the room has closed by then @param {any} [error] */
  defer(call, error) {
    this.client.defer(() => this.closed || call(), error);
  }

  /** The request whose reply has the members. @returns {{type: string}} */
  get snapshotRequest() {
    return { type: "room:members" };
  }

  #requestSnapshot() {
    if (this.#requesting || !this.joined || !this.reported.needsSnapshot) return;
    const request = { ...this.snapshotRequest, roomId: this.id };
    this.#requesting = this.client.send(request, (error, reply) => {
      const done = () => {
        this.#requesting = false;
        this.emitAll(reply ? this.reported.snapshot(reply) : []);
      };
      if (error) this.defer(done, error);
      else if (!this.closed) done();
    });
  }
}
