/**
 * Users whom an application watches, regardless of rooms: online, away or offline, and when last seen.
 *
 * All objects of one client share one watch on the server. A user whom several of them name is requested once, and is the
 * same object in all of them until something in it changes. One request is under way at a time, so that the server carries
 * them out in their order.
 */
import { Emitter } from "./emitter.js";
import { byteLength, checkedId, refuse, shown } from "./encode.js";
import { ReactorError, isTransient } from "./error.js";

/**
 * @typedef {import("./client.js").ReactorClient} ReactorClient
 * @typedef {import("./people.js").Person} Person
 */

/** The most users of one request, by the server's protocol. */
const MOST = 1000;
/** The most bytes of the ids of one request: half of a message that the server accepts by default. */
const MOST_BYTES = 32_768;

/** @type {WeakMap<ReactorClient, PeopleFeed>} */
const feeds = new WeakMap();

/**
 * Watch users. A refusal is the event `error`.
 *
 * @param {any} client a ReactorClient @param {Iterable<string | number>} [userIds] @returns {People}
 */
export function people(client, userIds = []) {
  if (!client?.feeds) refuse("client", `a ReactorClient is needed, as in people(client, ids), not ${shown(client)}`);
  let feed = feeds.get(client);
  if (!feed) {
    feed = new PeopleFeed(client);
    feeds.set(client, feed);
    client.feeds.push(feed);
  }
  const ids = checkedIds(userIds, client);
  const made = new People(client, feed);
  feed.objects.add(made);
  made.add(ids);
  return made;
}

export class People extends Emitter {
  /** @type {import("./index.js").ClientStatus} */
  status = "idle";
  /** The last refusal, or why it has ended. @type {ReactorError | null} */
  error = null;
  closed = false;
  /** The users who are watched. @type {Set<string>} */
  ids = new Set();
  #client;
  #feed;
  /** As last received. @type {Map<string, Person>} */
  #people = new Map();
  /** Whether the state of all users has been received on this socket. */
  #received = false;
  /** @type {import("./people.js").PeopleSnapshot | undefined} */
  #snapshot;

  /** @param {ReactorClient} client @param {PeopleFeed} feed */
  constructor(client, feed) {
    super(["change", "status", "error"]);
    this.#client = client;
    this.#feed = feed;
  }

  /** @param {string | number} userId */
  get(userId) {
    return this.#people.get(String(userId));
  }

  /** @param {Iterable<string | number>} userIds */
  add(userIds) {
    const ids = checkedIds(userIds, this.#client).filter((id) => !this.ids.has(id));
    if (this.closed) throw new ReactorError("closed", "it was closed: call people() again");
    if (ids[0] === undefined) return;
    for (const id of ids) this.ids.add(id);
    this.showStatus();
    this.receive(this.#feed.known(ids));
    this.#feed.sendSoon();
    this.#client.open();
  }

  /** @param {Iterable<string | number>} userIds */
  remove(userIds) {
    const ids = checkedIds(userIds, this.#client).filter((id) => this.ids.has(id));
    if (!this.closed && ids[0] !== undefined) this.#drop(ids);
  }

  close() {
    if (this.closed) return;
    this.end(null);
    this.#feed.sendSoon();
    this.#client.closeIfUnused();
  }

  // A store for user interfaces; also where the methods are passed on by themselves.

  getSnapshot = () => {
    const { status, error } = this;
    const people = () => [...this.ids].flatMap((id) => this.#people.get(id) ?? []);
    return (this.#snapshot ??= Object.freeze({ status, error, people: Object.freeze(people()) }));
  };

  /** @param {(snapshot: import("./people.js").PeopleSnapshot) => void} run */
  subscribe = (run) => {
    const notify = () => run(this.getSnapshot());
    const stops = [this.on("change", notify), this.on("status", notify), this.on("error", notify)];
    notify();
    return () => stops.forEach((stop) => stop());
  };

  // Called by the feed.

  /** Take over the present state of users. @param {Person[]} people */
  receive(people) {
    const changed = people.filter((person) => this.ids.has(person.userId) && this.#people.get(person.userId) !== person);
    for (const person of changed) this.#people.set(person.userId, person);
    if (changed[0]) this.#emitChange(changed);
    if (!this.#received && this.#feed.known(this.ids).length === this.ids.size) this.#received = true;
    this.showStatus();
  }

  /** The server does not let these users be watched: they are removed. @param {string[]} userIds @param {ReactorError} error */
  refused(userIds, error) {
    const ids = userIds.filter((id) => this.ids.has(id));
    if (ids[0] === undefined) return;
    this.error = new ReactorError(error.code, error.message, { retryAfter: error.retryAfter, userIds: ids });
    this.#drop(ids);
    this.#snapshot = undefined;
    this.emit("error", this.error);
  }

  lost() {
    this.#received = false;
  }

  /** @param {ReactorError | null} error */
  end(error) {
    this.closed = true;
    this.error = error;
    this.#feed.objects.delete(this);
    this.showStatus();
    if (error) this.emit("error", error);
  }

  /** Update the status, and emit a change of it. */
  showStatus() {
    /** @type {import("./index.js").ClientStatus} */
    let status = /^(idle|connecting)$/.test(this.status) ? "connecting" : "reconnecting";
    if (this.closed) status = "closed";
    else if (!this.ids.size) status = "idle";
    else if (this.#received) status = this.#client.status;
    if (status === this.status) return;
    this.status = status;
    this.#snapshot = undefined;
    this.emit("status", status);
  }

  /** @param {string[]} ids */
  #drop(ids) {
    for (const id of ids) this.ids.delete(id);
    const shown = ids.filter((id) => this.#people.delete(id));
    if (shown[0] !== undefined) this.#emitChange([]);
    this.receive([]); // those that remain may all be known
    this.#feed.sendSoon();
    this.#client.closeIfUnused();
  }

  /** @param {Person[]} changed */
  #emitChange(changed) {
    this.#snapshot = undefined;
    this.emit("change", changed);
  }
}

/** What the objects of one client watch together. */
class PeopleFeed {
  /** Those that are not closed. @type {Set<People>} */
  objects = new Set();
  #client;
  /** As last received, of those who are watched by an object. @type {Map<string, Person>} */
  #people = new Map();
  /** Who was requested on this socket, and whether the answer has come. @type {Map<string, boolean>} */
  #asked = new Map();
  /** Users of several objects whose common request was refused; each object requests its own. @type {Set<string>} */
  #alone = new Set();
  /** Whether a request is under way. */
  #waiting = false;
  #sending = false;

  /** @param {ReactorClient} client */
  constructor(client) {
    this.#client = client;
  }

  get size() {
    return this.#wanted().size;
  }

  /** The state of those of these users whose present state is known. @param {Iterable<string>} ids @returns {Person[]} */
  known(ids) {
    return [...ids].flatMap((id) => (this.#asked.get(id) && this.#people.get(id)) || []);
  }

  /** Send what has changed, once for all that changes in this turn. */
  sendSoon() {
    if (this.#sending) return;
    this.#sending = true;
    queueMicrotask(() => {
      this.#sending = false;
      this.#send();
    });
  }

  // Called by the client.

  opened() {
    this.#send();
  }

  lost() {
    this.#waiting = false;
    this.#asked.clear();
    for (const object of this.objects) object.lost();
  }

  showStatus() {
    for (const object of [...this.objects]) object.showStatus();
  }

  /** @param {any} message a decoded message of the server */
  receive(message) {
    if (message.type === "people:diff") this.#receive(message.changed);
  }

  /** @param {ReactorError | null} error */
  endAll(error) {
    for (const object of [...this.objects]) object.end(error);
  }

  #wanted() {
    return new Set([...this.objects].flatMap(({ ids }) => [...ids]));
  }

  /** @param {Person[]} people */
  #receive(people) {
    /** @type {Person[]} */
    const received = [];
    for (const person of people) {
      // After an unwatch a change may still be on its way.
      if (!this.#asked.has(person.userId)) continue;
      const former = this.#people.get(person.userId);
      const isSame = former && JSON.stringify(former) === JSON.stringify(person);
      const present = isSame ? former : Object.freeze(person);
      this.#people.set(person.userId, present);
      received.push(present);
    }
    for (const object of [...this.objects]) object.receive(received);
  }

  #send() {
    if (this.#waiting) return;
    const wanted = this.#wanted();
    for (const id of this.#people.keys()) if (!wanted.has(id)) this.#people.delete(id);
    for (const id of this.#alone) if (!wanted.has(id)) this.#alone.delete(id);
    const gone = this.#batch([...this.#asked.keys()].filter((id) => !wanted.has(id)));
    if (gone[0] !== undefined) {
      for (const id of gone) this.#asked.delete(id);
      this.#request("people:unwatch", gone, () => {});
      return;
    }
    const missing = [...wanted].filter((id) => !this.#asked.has(id));
    const common = missing.filter((id) => !this.#alone.has(id));
    const [object] = [...this.objects].filter(({ ids }) => missing.some((id) => ids.has(id)));
    const ids = this.#batch(common[0] === undefined ? missing.filter((id) => object?.ids.has(id)) : common);
    if (ids[0] !== undefined) this.#request("people:watch", ids, (error, reply) => this.#answered(ids, error, reply));
  }

  /**
   * @param {string} type @param {string[]} userIds
   * @param {import("./open-requests.js").Callback} answered called before what has changed meanwhile is sent
   */
  #request(type, userIds, answered) {
    this.#waiting = this.#client.send({ type, userIds }, (error, reply) => {
      this.#waiting = false;
      answered(error, reply);
      this.#send();
    });
    if (this.#waiting && type === "people:watch") for (const id of userIds) this.#asked.set(id, false);
  }

  /** @param {string[]} ids @param {ReactorError | null} error @param {any} [reply] */
  #answered(ids, error, reply) {
    if (!error) {
      for (const id of ids) this.#asked.set(id, true);
      this.#receive(reply.people);
      return this.#client.tick();
    }
    if (isTransient(error) || error.code === "timeout") {
      // Nothing else is sent before: it would be refused as well.
      this.#waiting = true;
      return this.#client.defer(() => {
        this.#waiting = false;
        this.#forget(ids);
        this.#send();
      }, error);
    }
    this.#forget(ids);
    if ([...this.objects].some((object) => ids.every((id) => object.ids.has(id)))) {
      for (const object of [...this.objects]) object.refused(ids, error);
    } else for (const id of ids) this.#alone.add(id);
  }

  /** Request these again. @param {string[]} ids */
  #forget(ids) {
    for (const id of ids) this.#asked.delete(id);
  }

  /** As many of these as one request may name. @param {string[]} ids */
  #batch(ids) {
    const most = Math.min(MOST_BYTES, (this.#client.limits.message ?? Infinity) / 2);
    let size = 0;
    const end = ids.findIndex((id, index) => {
      size += byteLength(JSON.stringify(id)) + 1;
      return index === MOST || (index > 0 && size > most);
    });
    return end < 0 ? ids : ids.slice(0, end);
  }
}

/** @param {Iterable<string | number>} userIds @param {ReactorClient} client @returns {string[]} each once, as text */
function checkedIds(userIds, client) {
  if (typeof userIds === "string" || typeof userIds?.[Symbol.iterator] !== "function") {
    refuse("userIds", `a list of ids is needed, not ${shown(userIds)}`);
  }
  return [...new Set(Array.from(userIds, (id, index) => checkedId(`userIds[${index}]`, id, client.limits)))];
}
