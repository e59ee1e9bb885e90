/** One membership as a screen wants it: from the wish to be in a room until that is over. */
import { followVisibility } from "./visibility.js";

/**
 * @typedef {import("./index.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").Room} Room
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").ForceLeave} ForceLeave
 * @typedef {{events?: RoomEvent[], forceLeave?: ForceLeave}} News
 */

/**
 * Who one is in a room, and what one wants of it.
 *
 * @typedef {object} Wish
 * @property {string} userId
 * @property {"members" | "count" | "none"} [view]
 * @property {string} [username]
 * @property {unknown} [data]
 * @property {import("./react.js").Watch | null} [watch] tells when the member is away
 */

export class Stay {
  /** The room, while one is in it. @type {Room | null} */
  room = null;
  /** @type {import("./react.js").Presence["status"]} */
  status = "connecting";
  /** What was refused, or why it is over. @type {Error | null} */
  error = null;
  #client;
  #roomId;
  #wish;
  #tell;
  #letGo = new AbortController();
  /** @type {Promise<Room | null>} */
  #coming;
  /** What the room was told last. @type {{view?: string, username?: string, data?: string}} */
  #said = {};
  #saying = false;
  /** @type {(() => void)[]} */
  #stops = [];

  /**
   * @param {ReactorClient} client
   * @param {string} roomId
   * @param {Wish} wish
   * @param {(news: News) => void} tell called whenever something about it is another
   */
  constructor(client, roomId, wish, tell) {
    this.#client = client;
    this.#roomId = roomId;
    this.#wish = { ...wish };
    this.#tell = tell;
    this.#coming = this.#join().then(
      (room) => this.#enter(room),
      (error) => this.#end(error),
    );
  }

  get userId() {
    return this.#wish.userId;
  }

  get over() {
    return this.status === "closed";
  }

  /** Say what is wanted otherwise. @param {Wish} wish */
  describe({ view, username, data }) {
    Object.assign(this.#wish, { view, username, data });
    this.#say();
  }

  /** Say what was not said yet: one word at a time, so that of many changes in between only the last one counts. */
  async #say() {
    if (this.#saying) return;
    this.#saying = true;
    const room = await this.#coming;
    while (room && !this.over) {
      const { view, username, data } = this.#wish;
      const said = this.#said;
      const told = JSON.stringify(data);
      const renamed = username !== undefined && username !== said.username;
      const changed = told !== undefined && told !== said.data;
      if (!renamed && !changed && view === said.view) break;
      this.#said = { view, username, data: told };
      try {
        if (view !== said.view) await this.#join();
        else await room.update(changed ? data : undefined, renamed ? { username } : {});
        this.#show(null);
      } catch (error) {
        this.#show(/** @type {Error} */ (error));
      }
    }
    this.#saying = false;
  }

  /** Leave; nothing is told any more. */
  leave() {
    this.#end(null);
    this.#letGo.abort();
  }

  #join() {
    const { userId, username, data, view } = this.#wish;
    this.#said = { view, username, data: JSON.stringify(data) };
    return this.#client.join(this.#roomId, { userId, username, data, view, signal: this.#letGo.signal });
  }

  /** @param {Room} room @returns {Room | null} */
  #enter(room) {
    if (this.over) return null;
    const client = this.#client;
    this.room = room;
    this.#stops = [
      room.on("change", (events) => this.#tell({ events })),
      room.on("status", () => this.#follow(room)),
    ];
    if (this.#wish.watch) this.#stops.push(followVisibility(room, this.#wish.watch, () => client.wake()));
    this.#follow(room);
    return room;
  }

  /** @param {Room} room */
  #follow(room) {
    if (room.status === "closed") {
      this.#end(room.error);
    } else {
      this.status = room.status;
      this.#tell({});
    }
  }

  /** @param {Error | null} error of the last word */
  #show(error) {
    if (this.over || this.error === error) return;
    this.error = error;
    this.#tell({});
  }

  /** @param {Error | null} error @returns {null} */
  #end(error) {
    if (this.over) return null;
    for (const stop of this.#stops) stop();
    this.room = null;
    this.status = "closed";
    this.error = error;
    const forced = error && "code" in error && error.code === "force-leave";
    this.#tell(forced ? { forceLeave: /** @type {ForceLeave} */ (error) } : {});
    return null;
  }
}
