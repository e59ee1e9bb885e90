/** The rooms that a client watches, and the requests for them: one for the counts of all that are begun together. */
import { isTransient } from "./error.js";
import { WatchedRoom } from "./watched-room.js";

/** The rooms of one request; a server takes 256 by default. */
const MOST = 100;

export class WatchedRooms {
  #client;
  #removed;
  /** @type {Map<string, Set<WatchedRoom>>} by room id */
  #rooms = new Map();
  /** What the server was asked for on this socket. @type {Map<string, "members" | "count">} */
  #asked = new Map();
  /** Rooms that are requested by themselves, since a request for several was refused. @type {Set<string>} */
  #alone = new Set();
  #sending = false;

  /** @param {import("./client.js").ReactorClient} client @param {() => void} removed called when one has ended */
  constructor(client, removed) {
    this.#client = client;
    this.#removed = removed;
  }

  get size() {
    return this.#rooms.size;
  }

  /** @param {string} id @param {"members" | "count"} view */
  add(id, view) {
    const room = new WatchedRoom(this.#client, id, view, () => this.#remove(room));
    const those = this.#rooms.get(id) ?? new Set();
    this.#rooms.set(id, those.add(room));
    this.#asked.delete(id); // for the snapshot
    this.#sendSoon();
    return room;
  }

  /** A socket is open: watch all rooms again. */
  opened() {
    this.#asked.clear();
    this.#send();
  }

  lost() {
    for (const room of this.#all()) room.lost();
  }

  showStatus() {
    for (const room of this.#all()) room.showStatus();
  }

  /** @param {any} message a decoded message of the server */
  receive(message) {
    const { type, id, roomId, rooms, code } = message;
    if (id !== undefined) return;
    if (code === "banned" && this.#rooms.has(roomId)) {
      this.#end(roomId, this.#client.refusal(code, message.message, message));
      this.#removed();
    }
    if (type === "room:counts") for (const counted of rooms) this.#notify(counted.roomId, (room) => room.receive(counted));
    if (/^room:(diff|count|members)$/.test(type) && this.#view(roomId) === "members") {
      this.#notify(roomId, (room) => room.receive(message));
    }
  }

  /** @param {import("./error.js").ReactorError | null} error */
  endAll(error) {
    for (const id of [...this.#rooms.keys()]) this.#end(id, error);
  }

  #all() {
    return [...this.#rooms.values()].flatMap((rooms) => [...rooms]);
  }

  /** What is wanted of a room: members, if one of its watchers wants them. @param {string} id */
  #view(id) {
    const views = [...(this.#rooms.get(id) ?? [])].map((room) => room.wanted);
    return views.includes("members") ? "members" : views[0];
  }

  /** @param {string} id @param {(room: WatchedRoom) => void} call */
  #notify(id, call) {
    for (const room of [...(this.#rooms.get(id) ?? [])]) call(room);
  }

  /** @param {string} id @param {import("./error.js").ReactorError | null} error */
  #end(id, error) {
    const rooms = this.#rooms.get(id) ?? [];
    this.#rooms.delete(id);
    this.#asked.delete(id);
    for (const room of rooms) room.end(error);
  }

  /** @param {WatchedRoom} room */
  #remove(room) {
    const rooms = this.#rooms.get(room.id);
    rooms?.delete(room);
    if (rooms && !rooms.size) this.#rooms.delete(room.id);
    this.#sendSoon();
    this.#removed();
  }

  /** Send what has changed, once for all that changes in this turn. */
  #sendSoon() {
    if (this.#sending) return;
    this.#sending = true;
    queueMicrotask(() => this.#send());
  }

  #send() {
    this.#sending = false;
    const gone = [...this.#asked.keys()].filter((id) => !this.#rooms.has(id));
    for (const id of gone) this.#asked.delete(id);
    for (const ids of parts(gone)) this.#client.send({ type: "room:unwatch", ...named(ids) }, () => {});
    const missing = [...this.#rooms.keys()].filter((id) => this.#asked.get(id) !== this.#view(id));
    const single = missing.filter((id) => this.#view(id) === "members" || this.#alone.has(id));
    for (const id of single) this.#request([id]);
    for (const ids of parts(missing.filter((id) => !single.includes(id)))) this.#request(ids);
  }

  /** @param {string[]} ids of one view */
  #request(ids) {
    const view = this.#view(/** @type {string} */ (ids[0]));
    const sent = this.#client.send({ type: "room:watch", ...named(ids), view }, (error, reply) => {
      if (isTransient(error) || error?.code === "timeout") {
        this.#forget(ids);
        return this.#client.defer(() => this.#send(), error);
      }
      if (error && ids[1] === undefined) {
        this.#end(/** @type {string} */ (ids[0]), error);
        return this.#removed();
      }
      if (error) {
        // One of them is not accepted, or all of them are too many.
        for (const id of ids) this.#alone.add(id);
        this.#forget(ids);
        return this.#send();
      }
      for (const one of reply.rooms ?? [reply]) this.#notify(one.roomId, (room) => room.answered(one));
      for (const refused of reply.refused ?? []) this.#end(refused.roomId, this.#client.refusal(refused.code, refused.message, refused));
      this.#removed();
      this.#client.tick();
    });
    if (sent && view) for (const id of ids) this.#asked.set(id, view);
  }

  /** Request these again with the next `send`. @param {string[]} ids */
  #forget(ids) {
    for (const id of ids) this.#asked.delete(id);
  }
}

/** @param {string[]} ids @returns {string[][]} */
const parts = (ids) => (ids[0] === undefined ? [] : [ids.slice(0, MOST), ...parts(ids.slice(MOST))]);

/** @param {string[]} ids */
const named = (ids) => (ids[1] === undefined ? { roomId: ids[0] } : { roomIds: ids });
