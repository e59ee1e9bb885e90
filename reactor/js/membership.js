/** One membership as a component wants it: from the request to join a room until it has ended. */
import { startTimer } from "./clock.js";
import { followVisibility } from "./visibility.js";

/**
 * @typedef {import("./index.js").ReactorClient} ReactorClient
 * @typedef {import("./index.js").Room} Room
 * @typedef {import("./index.js").RoomEvent} RoomEvent
 * @typedef {import("./index.js").ForceLeave} ForceLeave
 * @typedef {{events?: RoomEvent[], forceLeave?: ForceLeave}} Change
 */

/** The shortest time (ms) between two updates: an option that follows a pointer changes a hundred times a second. */
const THROTTLE = 50;

/** Refusals of a join for its data, without which the member can still be in the room. */
const ABOUT_DATA = ["bad_request", "data_too_big", "too_big"];

/**
 * The member's user, and the options of the membership.
 *
 * @typedef {object} MembershipOptions
 * @property {string} userId
 * @property {"members" | "count" | "none" | undefined} [view]
 * @property {string | undefined} [username]
 * @property {unknown} [data]
 * @property {number | undefined} [throttle] ms
 * @property {number | undefined} [awayAfter] ms
 * @property {import("./options.js").Watch | null | undefined} [watch] reports when the member is away
 */

/**
 * A text that differs where the value does, also for what JSON cannot hold: such data is sent too, so that the client
 * refuses it with a reason.
 *
 * @param {unknown} value
 * @returns {string}
 */
export function describe(value) {
  try {
    return JSON.stringify(value, (_, part) => (isJson(part) ? part : `${typeof part} ${String(part)}`));
  } catch (error) {
    return String(error);
  }
}

/** @param {unknown} part */
const isJson = (part) => Number.isFinite(part) || ["object", "string", "boolean"].includes(typeof part);

export class Membership {
  /** The room, once joined. @type {Room | null} */
  room = null;
  /** @type {import("./options.js").Presence["status"]} */
  status = "connecting";
  /** What was refused last, or why it has ended. @type {Error | null} */
  #error = null;
  #client;
  #roomId;
  #options;
  #onChange;
  #controller = new AbortController();
  /** @type {Promise<Room | null>} */
  #joined;
  /** What was sent last. @type {{view?: string | undefined, username?: string | undefined, data?: string}} */
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
    const notify = () => onChange({});
    this.#cleanups = [client.on("connection-error", notify), client.on("error", notify)];
    const { signal } = this.#controller;
    this.#joined = this.#join({ signal })
      .catch((error) => {
        const joining = this.#joinWithoutData(error);
        this.#error = error;
        return joining;
      })
      .then(
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

  /** What was refused, why it has ended, or why there is no connection. @returns {Error | null} */
  get error() {
    return this.#error ?? (this.ended ? null : this.#client.error);
  }

  /** What is served of the room. */
  get view() {
    return this.room?.view ?? "none";
  }

  /** Change the options. @param {MembershipOptions} options */
  update({ view, username, data, throttle }) {
    Object.assign(this.#options, { view, username, data, throttle });
    this.#send();
  }

  /**
   * Send what has not been sent: one request at a time, and the next one when `throttle` is over, so that of the changes
   * in the meantime only the last is sent.
   */
  async #send() {
    if (this.#sending) return;
    this.#sending = true;
    const room = await this.#joined;
    while (room && !this.ended) {
      const { view, username, data, throttle = THROTTLE } = this.#options;
      const sent = this.#sent;
      const described = describe(data);
      const renamed = username !== undefined && username !== sent.username;
      const changed = data !== undefined && described !== sent.data;
      if (!renamed && !changed && view === sent.view) break;
      this.#sent = { view, username, data: described };
      const pause = new Promise((resolve) => startTimer(() => resolve(undefined), throttle));
      try {
        if (view !== sent.view) {
          await this.#join({}).catch(async (error) => {
            await this.#joinWithoutData(error);
            throw error;
          });
        }
        else await room.update(changed ? data : undefined, renamed ? { username } : {});
        this.#setError(null);
      } catch (error) {
        this.#setError(/** @type {Error} */ (error));
      }
      await pause;
    }
    this.#sending = false;
  }

  /** Leave; there are no notifications afterwards. */
  leave() {
    this.#end(null);
    this.#controller.abort();
  }

  /** @param {{signal?: AbortSignal | undefined, withData?: boolean}} more */
  #join({ signal, withData = true }) {
    const { userId, username, data, view } = this.#options;
    this.#sent = { view, username, data: describe(data) };
    return this.#client.join(this.#roomId, { userId, username, view, signal, ...(withData && { data }) });
  }

  /** @param {any} error of a join @returns {Promise<Room>} */
  #joinWithoutData(error) {
    if (!ABOUT_DATA.includes(error?.code)) throw error;
    return this.#join({ signal: this.#controller.signal, withData: false });
  }

  /** @param {Room} room @returns {Room | null} */
  #onJoined(room) {
    if (this.ended) return null;
    const client = this.#client;
    this.room = room;
    this.#cleanups.push(
      room.on("change", (events) => this.#onChange({ events })),
      room.on("status", () => this.#onStatus(room)),
    );
    const { watch, awayAfter } = this.#options;
    if (watch) this.#cleanups.push(followVisibility(room, watch, () => client.wake(), awayAfter));
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
    if (this.ended || this.#error === error) return;
    this.#error = error;
    this.#onChange({});
  }

  /** @param {Error | null} error @returns {null} */
  #end(error) {
    if (this.ended) return null;
    for (const cleanup of this.#cleanups) cleanup();
    this.room = null;
    this.status = "closed";
    this.#error = error;
    const forced = error && "code" in error && error.code === "force-leave";
    this.#onChange(forced ? { forceLeave: /** @type {ForceLeave} */ (error) } : {});
    return null;
  }
}
