/** One room that a client is in: its members, and what one does in it. Made by `client.join`. */
import { Emitter } from "./emitter.js";
import { ReactorError, passes } from "./error.js";
import { Listing } from "./listing.js";

/**
 * @typedef {import("./client.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").JoinOptions} JoinOptions
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").Status} Status
 */

/** How long (ms) servers may take to enter their members anew after Redis lost its data: a lease. */
export const SETTLE = 5000;

export class Room extends Emitter {
  /** @type {Status} */
  status = "connecting";
  /** Why it is over, unless it was left. @type {ReactorError | null} */
  error = null;
  /** Whether the last joining found the member still there: then nobody has noticed the loss. */
  resumed = false;
  /** Terms of the room, in milliseconds. */
  ttl = 0;
  heartbeatInterval = 0;
  socketId = "";
  /** Whether one said so. */
  isAway = false;
  /** Whether it is joined on the socket that is open. */
  entered = false;
  over = false;
  /** While it is being left. @type {Promise<void> | undefined} */
  leaving;
  #client;
  #listing;
  /** What is said at each joining. @type {JoinOptions} */
  #who = {};
  #changing = 0; // own changes that are not answered yet
  #healing = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #settling;
  /** @type {{resolve: (room: Room) => void, reject: (error: Error) => void, undo: () => void}[]} */
  #joiners = [];

  /** @param {ReactorClient} client @param {string} id */
  constructor(client, id) {
    super();
    this.id = id;
    this.#client = client;
    this.#listing = new Listing(id);
  }

  get userId() {
    return String(this.#who.userId ?? this.#listing.userId);
  }

  get members() {
    return this.#listing.told;
  }

  get count() {
    return this.#listing.size;
  }

  get me() {
    return this.members.get(this.userId);
  }

  get others() {
    return [...this.members.values()].filter((member) => member !== this.me);
  }

  get view() {
    return this.#listing.served;
  }

  get epoch() {
    return this.#listing.epoch;
  }

  get version() {
    return this.#listing.version;
  }

  /** @param {unknown} data @param {{username?: string}} [more] */
  update(data, more) {
    const change = { data, ...more };
    return this.#change({ type: "room:update", ...change }, this.#want(change));
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
      if (this.over) return resolve();
      this.on("over", resolve);
      const ask = () =>
        this.#client.ask({ type: "leave_room", roomId: this.id }, (error) => {
          if (error && passes(error)) this.#later(ask);
          else this.end(null);
        });
      // While the socket is lost, the grace does it.
      if (!ask()) this.end(null);
    }));
  }

  /**
   * Note what is to be said at each joining from now on; what is undefined stays.
   *
   * @param {JoinOptions} change @returns {() => void} takes it back, unless something else is wanted meanwhile
   */
  #want(change) {
    const former = this.#who;
    const given = Object.entries(change).filter(([, value]) => value !== undefined);
    const wanted = (this.#who = { ...former, ...Object.fromEntries(given) });
    return () => {
      if (this.#who === wanted) this.#who = former;
    };
  }

  /** @param {boolean} away */
  #setAway(away) {
    const was = this.isAway;
    this.isAway = away;
    return this.#change({ type: away ? "room:away" : "room:back" }, () => (this.isAway = was));
  }

  /**
   * Say a change until it is answered. Wanted from now on: if the socket is lost meanwhile, the return says it too.
   *
   * @param {{type: string}} request @param {() => void} undo when it is refused @returns {Promise<void>}
   */
  #change(request, undo) {
    this.#changing++;
    const answer = this.#client.request({ ...request, roomId: this.id }, this).finally(() => this.#changing--);
    // An error that nobody waits for is no reason to end a program, either.
    answer.catch(undo);
    return answer;
  }

  // What its client asks of it.

  /** Join, or join again with other particulars. @param {JoinOptions} options @returns {Promise<Room>} */
  join({ signal, ...who }) {
    const undo = this.#want(who);
    return new Promise((resolve, reject) => {
      const abort = () => {
        reject(new ReactorError("aborted", "the signal was aborted"));
        this.leave();
      };
      if (signal) {
        signal.addEventListener("abort", abort);
        this.on("over", () => signal.removeEventListener("abort", abort));
      }
      this.#joiners.push({ resolve, reject, undo });
      this.enter();
    });
  }

  /** Join, if a socket is open. */
  enter() {
    if (this.leaving) return;
    this.#client.ask({ ...this.#who, type: "join_room", roomId: this.id }, (error) => {
      if (error && (passes(error) || error.code === "not_joined")) this.#later(() => this.enter());
      else if (error && !this.entered) this.end(error);
      else this.#answer(error);
    });
    // On its heels, so that the others hear of both at once.
    if (!this.entered && this.isAway) this.#sayAway(true);
  }

  /** The socket is lost. */
  interrupted() {
    this.entered = this.#healing = false;
    this.#listing.lose();
    if (this.leaving) this.end(null);
  }

  /** @param {ReactorError | null} error */
  end(error) {
    if (this.over) return;
    this.over = true;
    this.entered = false;
    this.error = error;
    clearTimeout(this.#settling);
    this.#client.forget(this);
    this.#answer(this.farewell);
    this.emit("over");
    if (error?.code === "force-leave") this.emit("force-leave", error);
    this.showStatus();
  }

  /** What to say to who still wants something of a room that is over. @returns {ReactorError} */
  get farewell() {
    return this.error ?? new ReactorError("not_joined", "left the room");
  }

  /** Tell a change of the status. */
  showStatus() {
    /** @type {Status} */
    let status = this.status === "connecting" ? "connecting" : "reconnecting";
    if (this.over) status = "closed";
    else if (this.entered) status = /** @type {Status} */ (this.#client.status);
    if (status === this.status) return;
    this.status = status;
    this.emit("status", status);
  }

  /** @param {any} message as the server said it */
  receive(message) {
    const { type } = message;
    if (type === "room:joined") this.#onJoined(message);
    if (type === "room:diff") this.#told(this.#listing.diff(message));
    // With an id they only answer a question, unless that was asked to heal.
    const unasked = message.id === undefined;
    if (type === "room:members" ? unasked || this.#listing.incomplete : type === "room:count" && unasked) {
      this.#told(this.#listing.snapshot(message));
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
    const again = this.entered;
    Object.assign(this, { resumed, ttl, heartbeatInterval, socketId, entered: true });
    this.#listing.userId = reply.userId;
    this.#told(this.#listing.snapshot(reply));
    this.showStatus();
    // Who was away when its last socket dropped is still away, and here is a new one: a page loaded again.
    if (this.me?.away) this.#sayAway(false);
    if (!again) this.#client.resume(this);
  }

  /** @param {() => void} act for in a while, if the room still lasts then */
  #later(act) {
    this.#client.later(() => this.over || act());
  }

  /** Say it unless it has changed meanwhile. @param {boolean} away */
  #sayAway(away) {
    if (away !== this.isAway) return;
    this.#client.ask({ type: away ? "room:away" : "room:back", roomId: this.id }, (error) => {
      if (error && passes(error)) this.#later(() => this.#sayAway(away));
    });
  }

  /** Tell those who wait for the room. @param {ReactorError | null} error */
  #answer(error) {
    for (const { resolve, reject, undo } of this.#joiners.splice(0)) {
      if (error) {
        undo();
        reject(error);
      } else resolve(this);
    }
  }

  /** @param {RoomEvent[]} events */
  #told(events) {
    const { me } = this;
    // Another device of this user may have changed it; a return must not change it back.
    if (me && !this.#changing) Object.assign(this.#who, { username: me.username, data: me.data });
    for (const event of events) this.emit(event.kind, event);
    if (events[0]) this.emit("change", events);
    this.#heal();
    if (!this.over && this.#listing.unsettled) {
      this.#settling ??= setTimeout(() => {
        this.#settling = undefined;
        this.#told(this.#listing.settle());
      }, SETTLE);
    }
  }

  #heal() {
    if (this.#healing || !this.entered || !this.#listing.incomplete) return;
    const again = () => {
      this.#healing = false;
      this.#heal();
    };
    // The answer is taken as any list of members that comes.
    this.#healing = this.#client.ask({ type: "room:members", roomId: this.id }, (error) => {
      if (error) this.#later(again);
      else again();
    });
  }
}
