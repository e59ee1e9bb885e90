/** One room that a client is in: its members, and what one does in it. Made by `client.join`. */
import { Emitter } from "./emitter.js";
import { RoomView, differenceBetween } from "./room.js";

/**
 * @typedef {import("./client.js").ReactorClient} ReactorClient
 * @typedef {import("./client.js").ReactorError} ReactorError
 * @typedef {import("./room.js").Member} Member
 * @typedef {"members" | "count" | "none"} View
 * @typedef {{epoch: string, version: number, count: number, members?: Member[], view?: View}} Snapshot
 */

/**
 * Events: `change` ({joined, updated, left}; of `left` each also holds the `member` as last known, and the reason is
 * "unknown" where nobody could tell it), `sync` (served by name or by count from now on, so all members are other
 * ones), `count` (the number), `status`, `refreshed` (the TTL begins anew), `force-leave` ({message, reason, timestamp}: the server ended it), `refused` (a ReactorError: it could not be
 * entered again).
 */
export class Room extends Emitter {
  /** @type {"joining" | "joined" | "interrupted" | "ended"} */
  status = "joining";
  /** What the others were told by `setAway`; kept over a loss. */
  away = false;
  /** Whether the last joining found the member still there: then nobody has noticed the loss. */
  resumed = false;
  /** Terms of the room, in milliseconds. */
  ttl = 0;
  heartbeatInterval = 0;
  socketId = "";
  /** When the TTL last began anew (ms since 1970). */
  refreshedAt = 0;
  /** What is served: "count" also for a room too big for names. */
  /** @type {View} */
  view = "members";
  #client;
  #who;
  /** @type {((error: ReactorError | null) => void) | null} */
  #answered;
  #members = new RoomView();

  /**
   * @param {ReactorClient} client
   * @param {string} id
   * @param {{userId: string, username?: string, data?: unknown, view?: View}} who
   * @param {(error: ReactorError | null) => void} answered gets the outcome of the first joining
   */
  constructor(client, id, who, answered) {
    super();
    this.#client = client;
    this.id = id;
    this.#who = { view: "members", ...who, userId: String(who.userId) };
    this.#answered = answered;
  }

  get userId() {
    return this.#who.userId;
  }

  /** @returns {Map<string, import("./room.js").Member>} by user id; empty where only the count is served */
  get members() {
    return this.#members.members;
  }

  /** The own entry, undefined where only the count is served. */
  get me() {
    return this.members.get(this.userId);
  }

  get count() {
    return this.#members.count;
  }

  get epoch() {
    return this.#members.epoch;
  }

  get version() {
    return this.#members.version;
  }

  /**
   * Leave now; the others are told at once. While the socket is lost, the grace does it.
   *
   * @returns {Promise<void>} when it is done
   */
  leave() {
    return new Promise((resolve) => {
      const done = () => {
        this.#client.forget(this);
        resolve();
      };
      /** @returns {boolean} */
      const ask = () =>
        this.#client.ask({ type: "leave_room", roomId: this.id }, (error) => {
          if (error?.code === "unavailable") this.#client.later(ask);
          else done();
        });
      if (!ask()) done();
    });
  }

  /** Tell the others that one is away (true) or here (false). @param {boolean} away */
  setAway(away) {
    this.away = away;
    if (this.status === "joined") this.#tellAway();
  }

  // What its client asks of it.

  /** @param {(error: ReactorError | null) => void} answered */
  enter(answered) {
    const sent = this.#client.ask({ type: "join_room", roomId: this.id, ...this.#who }, (error, reply) => {
      if (!error) this.#onJoined(reply);
      else if (error.code === "unavailable") this.#client.later(() => this.status !== "ended" && this.enter(answered));
      else if (error.code !== "interrupted") this.refuse(error);
      answered(error);
    });
    if (sent) this.#enterStatus("joining");
  }

  interrupted() {
    this.#members.lose();
    if (this.status === "joined") this.#enterStatus("interrupted");
  }

  refreshed() {
    this.refreshedAt = Date.now();
    this.emit("refreshed", this.refreshedAt);
  }

  /** @param {ReactorError} error */
  refuse(error) {
    this.#client.forget(this);
    this.#tellFirst(error);
    this.emit("refused", error);
  }

  end() {
    this.#enterStatus("ended");
  }

  /** @param {any} message as the server said it */
  receive(message) {
    switch (message.type) {
      case "room:diff":
        this.#onDiff(message);
        break;
      case "room:count":
        this.#onCount(message);
        break;
      case "room:members":
        this.#onSnapshot(message);
        break;
      case "room:force-leave":
        this.#client.forget(this);
        this.emit("force-leave", message);
        break;
    }
  }

  /** @param {any} reply */
  #onJoined(reply) {
    this.resumed = reply.resumed;
    this.ttl = reply.ttl;
    this.heartbeatInterval = reply.heartbeatInterval;
    this.socketId = reply.socketId;
    this.refreshed();
    this.#enterStatus("joined");
    this.#onSnapshot(reply);
    if (this.away) this.#tellAway();
    this.#tellFirst(null);
  }

  /** @param {ReactorError | null} error */
  #tellFirst(error) {
    this.#answered?.(error);
    this.#answered = null;
  }

  #tellAway() {
    const told = this.away;
    this.#client.ask({ type: told ? "room:away" : "room:back", roomId: this.id }, (error) => {
      if (error?.code === "unavailable") this.#client.later(() => this.status === "joined" && this.#tellAway());
    });
  }

  /** @param {import("./room.js").Diff} diff */
  #onDiff(diff) {
    const { epoch, members: before } = this.#members;
    const known = new Map(diff.left.map(({ userId }) => [userId, before.get(userId)]));
    const verdict = this.#members.apply(diff);
    if (verdict === "gap") {
      this.#askMembers();
    } else if (verdict === "applied" && epoch === this.epoch) {
      const left = diff.left.map((one) => ({ ...one, member: known.get(one.userId) })).filter((one) => one.member);
      this.#tell({ joined: diff.joined, updated: diff.updated, left });
    } else if (verdict === "applied") {
      this.#tellDifference(before);
    }
  }

  /** @param {Snapshot} snapshot */
  #onSnapshot({ epoch, version, count, members, view = members ? "members" : "count" }) {
    if (!members) {
      this.#onCount({ epoch, version, count }, view);
      return;
    }
    const { members: before } = this.#members;
    const reasons = this.#members.heldReasons();
    const verdict = this.#members.reset(epoch, version, members);
    if (verdict === "gap") this.#askMembers();
    if (verdict === "stale") return;
    if (this.view === view) this.#tellDifference(before, reasons);
    else this.#sync(view);
  }

  /**
   * Only the count is served from here on, until a snapshot comes by itself.
   *
   * @param {Snapshot} position
   * @param {View} [view]
   */
  #onCount({ epoch, version, count }, view = this.view === "none" ? "none" : "count") {
    Object.assign(this.#members, { epoch, version, count, members: new Map() });
    this.#members.lose();
    if (this.view === view) this.emit("count", count);
    else this.#sync(view);
  }

  /** @param {View} view */
  #sync(view) {
    this.view = view;
    this.emit("count", this.count);
    this.emit("sync");
  }

  #askMembers() {
    this.#client.ask({ type: "room:members", roomId: this.id }, (error, reply) => {
      if (!error) this.#onSnapshot(reply);
      else if (error.code === "unavailable") this.#client.later(() => this.status === "joined" && this.#askMembers());
    });
  }

  /** @param {Map<string, Member>} before @param {Map<string, string>} [reasons] */
  #tellDifference(before, reasons = new Map()) {
    const change = differenceBetween(before, this.members.values(), (userId) => reasons.get(userId) ?? "unknown");
    this.#tell({ ...change, left: change.left.map((one) => ({ ...one, member: before.get(one.userId) })) });
  }

  /** @param {import("./room.js").Change} change */
  #tell(change) {
    this.emit("count", this.count);
    if (change.joined.length + change.updated.length + change.left.length > 0) this.emit("change", change);
  }

  /** @param {Room["status"]} status */
  #enterStatus(status) {
    if (this.status === status) return;
    this.status = status;
    this.emit("status", status);
  }
}
