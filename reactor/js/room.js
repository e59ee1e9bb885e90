/** A room that the client is in: its members, and the member's own requests. Created by `client.join`. */
import { checkedData, checkedFields, checkedId, refuse, shown } from "./encode.js";
import { ReactorError, isTransient } from "./error.js";
import { FollowedRoom } from "./followed-room.js";
import { OwnMember } from "./own-member.js";

/**
 * @typedef {import("./client.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").Status} Status
 * @typedef {import("./index.js").View} View
 * @typedef {import("./own-member.js").Fields} Fields
 */

/** A caller of `join` that waits: what it gives, to be sent with the join, or as an update after it. */
/** @typedef {{given: Fields, view?: View, signal?: AbortSignal, update?: Promise<void>, resolve: (room: Room) => void, reject: (error: Error) => void}} Joining */

/** Errors for the name or data of a join. */
const REFUSED_FIELDS = /^(bad_message|bad_request|data_too_big|too_big|forbidden)$/;

/** @param {object} fields */
const isEmpty = (fields) => !Object.keys(fields)[0];

export class Room extends FollowedRoom {
  /** Whether the last join found the member still present, so that no member was notified of the loss. */
  resumed = false;
  /** Settings of the room, in milliseconds. */
  ttl = 0;
  heartbeatInterval = 0;
  socketId = "";
  /** While it is being left. @type {Promise<void> | undefined} */
  leaving;
  /** The user that the application named. @type {string | undefined} */
  #user;
  /** @type {View | undefined} what the application wants to receive */
  #view;
  /** When the membership began; 0 before the first join, or if the server does not say. */
  #joinedAt = 0;
  /** Whether it was joined before, on this or a former socket. */
  #wasJoined = false;
  /** Whether a join was sent, so that the member may be in the room. */
  #joinSent = false;
  /** Whether a join on this socket is unanswered. */
  #entering = false;
  /** Whether the server refused the name or data of a return, which is repeated without them. */
  #bare = false;
  #own = new OwnMember({
    defer: (call, error) => this.defer(call, error),
    send: (...change) => this.#sendChange(...change),
  });
  /** Rejects what is sent to the room and not answered yet. @type {Set<(error: Error) => void>} */
  #sending = new Set();
  /** @type {Joining[]} */
  #joining = [];
  /** Called at the end, for `leave`. @type {() => void} */
  #left = () => {};
  /** Of joins; each has one listener here. @type {Set<AbortSignal>} */
  #signals = new Set();

  /** @param {ReactorClient} client @param {string} id @param {string} [user] */
  constructor(client, id, user) {
    super(client, id, ["message", "force-leave"]);
    this.#user = user;
  }

  get userId() {
    return this.#user ?? this.reported.userId;
  }

  /** Whether `away()` was called, and not `back()` since. */
  get isAway() {
    return this.#own.isAway;
  }

  /** What the application wants to receive. */
  get wanted() {
    return this.#view ?? "members";
  }

  get me() {
    return this.members.get(this.userId);
  }

  get others() {
    return [...this.members.values()].filter((member) => member !== this.me);
  }

  /** @param {unknown} data @param {{username?: string}} [more] */
  update(data, more) {
    return this.#change(() => this.#own.update(checkedFields({ ...more, data }, this.client.limits)));
  }

  /** @param {unknown} patch @param {{username?: string}} [more] */
  patch(patch, more) {
    // As null it is refused when it is missing.
    return this.#change(() => this.#own.update(checkedFields({ ...more, patch: patch ?? null }, this.client.limits)));
  }

  away() {
    return this.#change(() => this.#own.setAway(true));
  }

  back() {
    return this.#change(() => this.#own.setAway(false));
  }

  /** @param {unknown} data @param {{to?: readonly (string | number)[] | undefined}} [more] */
  send(data, more) {
    return this.#change(() => this.#send(data, more?.to));
  }

  /** @returns {Promise<void>} */
  leave() {
    return (this.leaving ??= new Promise((resolve) => {
      if (this.closed) return resolve();
      this.#left = resolve;
      // Without an answer the connection may be lost.
      const done = (/** @type {ReactorError | null} */ error) => error?.code === "timeout" ? this.#leaveLater() : this.end(null);
      if (!this.#sendLeave(() => !this.closed, done)) this.#leaveLater();
    }));
  }

  // Called by the client.

  /**
   * Join, or join again with other options.
   *
   * @param {Fields} given @param {View} [view] @param {AbortSignal} [signal] @returns {Promise<Room>}
   */
  join(given, view, signal) {
    return new Promise((resolve, reject) => {
      /** @type {Joining} */
      const joining = { given, view, signal, resolve, reject };
      this.#joining.push(joining);
      if (signal) this.#leaveOnAbort(signal);
      // Only as the first one, or with no change before it, can a join change something without overtaking.
      if (this.#own.changes || (this.#joinSent && !this.joined)) this.#asUpdate(joining, false);
      this.sendJoin();
    });
  }

  /** Send a join, if a socket is open and none is unanswered, and the changes that are not acknowledged behind it. */
  sendJoin() {
    if (this.leaving || this.#entering) return;
    const callers = this.#joining.length;
    const sent = this.client.send(this.#joinRequest(), (error, reply) => {
      if (isTransient(error) || error?.code === "not_joined") {
        return this.defer(() => {
          this.#entering = false;
          this.sendJoin();
        }, error);
      }
      this.#entering = false;
      if (!error) this.#onJoined(reply, callers);
      else if (!this.joined) this.#onRefused(error);
      else {
        this.#settleJoins(callers, error);
        // The server may still execute it, and serve another view than the one that the application has.
        if (error.code === "timeout") this.defer(() => this.sendJoin());
      }
      // For those who have joined again meanwhile.
      if (this.#joining[0]) this.sendJoin();
    });
    this.#entering = sent;
    if (!sent) return;
    this.#joinSent = true;
    // At the same time, so that the other members are notified of all at once.
    if (!this.joined) this.#own.repeatAway();
    this.#own.flush();
  }

  /** The room was left without a connection, and now there is one: return to leave it. */
  sendDeparture() {
    this.client.send({ ...this.#joinRequest(), view: "none" }, () => {});
    this.#sendLeave(() => this.client.isDeparting(this), () => this.client.departed(this));
  }

  /** The connection is lost. */
  disconnected() {
    this.lost();
    this.#entering = false;
    this.#own.lost();
    for (const reject of this.#sending) reject(new ReactorError("unavailable", "the connection was lost"));
    this.#sending.clear();
    // What waited for such a join follows it.
    if (this.#wasJoined) for (const joining of [...this.#joining].reverse()) this.#asUpdate(joining, true);
    if (this.leaving) this.#leaveLater();
  }

  /** @param {ReactorError | null} error */
  end(error) {
    if (this.closed) return;
    this.ended(error);
    for (const signal of this.#signals) signal.removeEventListener("abort", this.#onAbort);
    this.#own.end(this.endError);
    for (const reject of this.#sending) reject(this.endError);
    this.client.remove(this);
    this.#settleJoins(this.#joining.length, this.endError);
    this.#left();
    if (error?.code === "force-leave") this.emit("force-leave", error);
    this.showStatus();
  }

  /** The error for requests to a room that has closed. @returns {ReactorError} */
  get endError() {
    return this.error ?? new ReactorError("not_joined", `the room "${this.id}" was left: join it again`);
  }

  /** @param {any} message a decoded message of the server */
  receive(message) {
    const { type } = message;
    // A reply (with an id) belongs to its request, and does not say how the room is served.
    const unrequested = message.id === undefined;
    if (type === "room:diff") this.emitAll(this.reported.diff(message));
    // The connection may watch the room too, with another view.
    const { wanted } = this;
    const isServed = wanted === "members" || (wanted === "count" && !message.members);
    if (unrequested && isServed && (type === "room:members" || type === "room:count")) this.emitAll(this.reported.snapshot(message));
    if (type === "room:message") this.emit("message", message);
    if (type === "room:force-leave" && unrequested) this.#forceLeave(message);
  }

  /** @param {any} message */
  #forceLeave({ roomId, message, reason, timestamp, until }) {
    this.end(new ReactorError("force-leave", message, { roomId, reason, timestamp, until }));
  }

  /** A join was answered. @param {any} reply @param {number} callers for whom it was sent */
  #onJoined(reply, callers) {
    if (this.closed) return;
    // The membership to which the client wants to return was ended meanwhile.
    if (reply.type === "room:force-leave") return this.#forceLeave(reply);
    const { resumed, ttl, heartbeatInterval, socketId, joinedAt = 0 } = reply;
    Object.assign(this, { resumed, ttl, heartbeatInterval, socketId, joined: true });
    this.#joinedAt = joinedAt;
    this.#bare = false;
    for (const { given, view = this.#view } of this.#joining.slice(0, callers)) {
      Object.assign(this.#own.confirmed, given);
      this.#view = view;
    }
    const returned = this.#wasJoined;
    this.#wasJoined = true;
    this.reported.userId = reply.userId;
    this.emitAll(this.reported.snapshot(reply));
    this.showStatus();
    // The member was away when its last connection was lost, for example when a page is reloaded, and is back now.
    const mayBeAway = this.me?.away ?? (resumed && !returned);
    if (mayBeAway && !this.isAway) this.#own.setAway(false);
    this.#settleJoins(callers, null);
  }

  /** A join was refused. @param {ReactorError} error */
  #onRefused(error) {
    const late = error.code === "timeout";
    if (this.#wasJoined && !this.#bare && REFUSED_FIELDS.test(error.code)) {
      this.#bare = true;
      this.sendJoin();
    } else if (this.#wasJoined && late) {
      this.defer(() => this.sendJoin());
    } else {
      // The server may still execute it.
      if (late) this.client.send({ type: "leave_room", roomId: this.id }, () => {});
      this.end(error);
    }
  }

  #joinRequest() {
    const request = { type: "join_room", roomId: this.id, userId: this.#user, view: this.#view };
    const given = Object.assign({}, ...this.#joining.map((joining) => joining.given));
    for (const { view } of this.#joining) request.view = view ?? request.view;
    const fields = this.#bare ? {} : { ...this.#own.confirmed, ...given };
    if (!this.#joinedAt || !isEmpty(given)) return { ...request, ...fields };
    // With it the server keeps the member's name and data, unless Redis has lost them.
    return { ...request, ...fields, resume: { ...this.reported.position, joinedAt: this.#joinedAt } };
  }

  /**
   * Send what a join gives as an update: it has an order among the others, and a return changes nothing.
   *
   * @param {Joining} joining @param {boolean} first whether it is older than the changes that wait
   */
  #asUpdate(joining, first) {
    if (isEmpty(joining.given)) return;
    joining.update = this.#own.update(joining.given, first);
    joining.given = {};
  }

  /** Settle the promises of the first callers of `join`. @param {number} callers how many @param {ReactorError | null} error */
  #settleJoins(callers, error) {
    for (const { update, resolve, reject } of this.#joining.splice(0, callers)) {
      if (error) reject(error);
      else if (update) update.then(() => resolve(this), reject);
      else resolve(this);
    }
    this.#own.flush();
  }

  /** @param {AbortSignal} signal */
  #leaveOnAbort(signal) {
    this.#signals.add(signal);
    // Added twice it is still one listener.
    signal.addEventListener("abort", this.#onAbort);
  }

  #onAbort = () => {
    for (const { signal, reject } of this.#joining) {
      if (signal?.aborted) reject(new ReactorError("aborted", "the signal was aborted"));
    }
    this.leave();
  };

  // Requests.

  /** @param {() => Promise<void>} change throws what cannot be sent @returns {Promise<void>} */
  #change(change) {
    const answer = (async () => {
      if (this.closed) throw this.endError;
      return change();
    })();
    // A rejection that the caller does not handle must not end the program.
    answer.catch(() => {});
    return answer;
  }

  /**
   * @param {{type: string}} request @param {(error: ReactorError | null) => void} callback
   * @param {() => void} lost called in its place if it is to be sent again with the next join
   * @returns {boolean}
   */
  #sendChange(request, callback, lost) {
    // A change must not overtake a join that makes one.
    const waits = this.joined ? this.#joining.some(({ given }) => !isEmpty(given)) : !this.#joinSent;
    return !waits && this.client.send({ ...request, roomId: this.id }, (error) => {
      // The join before it was refused for now; when it is repeated, so is this. Others that are under way, or wait to be
      // repeated, are not affected: they have answers of their own.
      if (error?.code === "not_joined" && !this.joined) lost();
      else callback(error);
    });
  }

  /** @param {unknown} data @param {readonly (string | number)[]} [to] @returns {Promise<void>} */
  #send(data, to) {
    const { limits } = this.client;
    const copy = checkedData("data", data, limits);
    if (to && !Array.isArray(to)) refuse("to", `a list of user ids is needed, not ${shown(to)}`);
    const users = to?.map((user, index) => checkedId(`to[${index}]`, user, limits));
    return new Promise((resolve, reject) => {
      this.#sending.add(reject);
      const settle = (/** @type {ReactorError | null} */ error) => {
        this.#sending.delete(reject);
        if (error) reject(error);
        else resolve();
      };
      const request = { type: "room:send", roomId: this.id, data: copy, ...(users && { to: users }) };
      // What is sent to a room is of the moment, so it neither waits nor is it repeated.
      const sent = this.joined && this.client.send(request, settle);
      if (!sent) settle(new ReactorError("unavailable", "not connected: messages to a room are not kept for later"));
    });
  }

  /**
   * @param {() => boolean} isWanted @param {(error: ReactorError | null) => void} done
   * @returns {boolean} whether it was sent
   */
  #sendLeave(isWanted, done) {
    return this.client.send({ type: "leave_room", roomId: this.id }, (error) => {
      if (isTransient(error)) this.client.defer(() => isWanted() && this.#sendLeave(isWanted, done), error);
      else done(error);
    });
  }

  #leaveLater() {
    if (this.#joinSent && !this.closed) this.client.leaveLater(this);
    this.end(null);
  }

  /** @param {RoomEvent[]} events */
  emitAll(events) {
    const { me } = this;
    // Another device of this user may have changed it.
    if (me) this.#own.confirmed = { username: me.username, data: me.data };
    super.emitAll(events);
  }
}
