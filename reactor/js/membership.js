/** One membership as a component wants it: from the request to join a room until it has ended. */
import { followVisibility } from "./visibility.js";

/**
 * @typedef {import("./index.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").Room} Room
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").ForceLeave} ForceLeave
 * @typedef {{events?: RoomEvent[], forceLeave?: ForceLeave}} Change
 */

/**
 * The member's user, and the options of the membership.
 *
 * @typedef {object} MembershipOptions
 * @property {string} userId
 * @property {"members" | "count" | "none"} [view]
 * @property {string} [username]
 * @property {unknown} [data]
 * @property {import("./react.js").Watch | null} [watch] reports when the member is away
 */

export class Membership {
  /** The room, once joined. @type {Room | null} */
  room = null;
  /** @type {import("./react.js").Presence["status"]} */
  status = "connecting";
  /** What was refused, or why it has ended. @type {Error | null} */
  error = null;
  #client;
  #roomId;
  #options;
  #onChange;
  #controller = new AbortController();
  /** @type {Promise<Room | null>} */
  #joined;
  /** What was sent last. @type {{view?: string, username?: string, data?: string}} */
  #sent = {};
  #sending = false;
  /** Removes the listeners. @type {(() => void)[]} */
  #cleanups = [];

  /**
   * @param {ReactorClient} client
   * @param {string} roomId
   * @param {MembershipOptions} options
   * @param {(change: Change) => void} onChange called at each change
   */
  constructor(client, roomId, options, onChange) {
    this.#client = client;
    this.#roomId = roomId;
    this.#options = { ...options };
    this.#onChange = onChange;
    this.#joined = this.#join().then(
      (room) => this.#onJoined(room),
      (error) => this.#end(error),
    );
  }

  get userId() {
    return this.#options.userId;
  }

  get ended() {
    return this.status === "closed";
  }

  /** Change the options. @param {MembershipOptions} options */
  update({ view, username, data }) {
    Object.assign(this.#options, { view, username, data });
    this.#send();
  }

  /** Send what has not been sent: one request at a time, so that of changes in the meantime only the last is sent. */
  async #send() {
    if (this.#sending) return;
    this.#sending = true;
    const room = await this.#joined;
    while (room && !this.ended) {
      const { view, username, data } = this.#options;
      const sent = this.#sent;
      const json = JSON.stringify(data);
      const renamed = username !== undefined && username !== sent.username;
      const changed = json !== undefined && json !== sent.data;
      if (!renamed && !changed && view === sent.view) break;
      this.#sent = { view, username, data: json };
      try {
        if (view !== sent.view) await this.#join();
        else await room.update(changed ? data : undefined, renamed ? { username } : {});
        this.#setError(null);
      } catch (error) {
        this.#setError(/** @type {Error} */ (error));
      }
    }
    this.#sending = false;
  }

  /** Leave; there are no notifications afterwards. */
  leave() {
    this.#end(null);
    this.#controller.abort();
  }

  #join() {
    const { userId, username, data, view } = this.#options;
    this.#sent = { view, username, data: JSON.stringify(data) };
    return this.#client.join(this.#roomId, { userId, username, data, view, signal: this.#controller.signal });
  }

  /** @param {Room} room @returns {Room | null} */
  #onJoined(room) {
    if (this.ended) return null;
    const client = this.#client;
    this.room = room;
    this.#cleanups = [
      room.on("change", (events) => this.#onChange({ events })),
      room.on("status", () => this.#onStatus(room)),
    ];
    if (this.#options.watch) this.#cleanups.push(followVisibility(room, this.#options.watch, () => client.wake()));
    this.#onStatus(room);
    return room;
  }

  /** @param {Room} room */
  #onStatus(room) {
    if (room.status === "closed") {
      this.#end(room.error);
    } else {
      this.status = room.status;
      this.#onChange({});
    }
  }

  /** @param {Error | null} error of the last request */
  #setError(error) {
    if (this.ended || this.error === error) return;
    this.error = error;
    this.#onChange({});
  }

  /** @param {Error | null} error @returns {null} */
  #end(error) {
    if (this.ended) return null;
    for (const cleanup of this.#cleanups) cleanup();
    this.room = null;
    this.status = "closed";
    this.error = error;
    const forced = error && "code" in error && error.code === "force-leave";
    this.#onChange(forced ? { forceLeave: /** @type {ForceLeave} */ (error) } : {});
    return null;
  }
}
