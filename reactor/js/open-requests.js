/** The requests on one socket that the server has not answered. */
import { monotonic } from "./clock.js";
import { ReactorError } from "./error.js";

/** The size (bytes) of a message that every server accepts: the lowest value of its setting `max_message`. */
const ALWAYS_ACCEPTED = 256;

/**
 * @typedef {(error: ReactorError | null, reply?: any) => void} Callback
 * @typedef {{callback: Callback, type: string, roomId?: unknown, size: number, since: number}} OpenRequest
 */

export class OpenRequests {
  /** By id, the oldest first. @type {Map<number, OpenRequest>} */
  #requests = new Map();
  #timeout;

  /** @param {number} timeout ms that a reply may take */
  constructor(timeout) {
    this.#timeout = timeout;
  }

  /** When the time of the oldest request is over, by the monotonic clock. */
  get dueAt() {
    const [oldest] = this.#requests.values();
    return oldest ? oldest.since + this.#timeout : Infinity;
  }

  /** @param {number} id @param {{type: string, roomId?: unknown}} request @param {number} size @param {Callback} callback */
  add(id, { type, roomId }, size, callback) {
    this.#requests.set(id, { callback, type, roomId, size, since: monotonic() });
  }

  /**
   * Take the request that a message answers. An error without an id answers the oldest one (of its room, if it names one):
   * the server could not read the id.
   *
   * @param {{type: string, id?: number, roomId?: string}} message @returns {Callback | undefined}
   */
  take({ type, id, roomId }) {
    if (id === undefined && type === "error") {
      id = [...this.#requests].find(([, request]) => roomId === undefined || request.roomId === roomId)?.[0];
    }
    if (id === undefined) return undefined;
    const request = this.#requests.get(id);
    this.#requests.delete(id);
    return request?.callback;
  }

  /** Reject the requests whose time is over. @returns {number} when the last of them was sent; 0 without one */
  expire() {
    const now = monotonic();
    let sent = 0;
    for (const [id, { callback, type, since }] of [...this.#requests]) {
      if (now < since + this.#timeout) break;
      sent = since;
      this.#requests.delete(id);
      callback(new ReactorError("timeout", `the server has not answered ${type} within ${this.#timeout} ms`));
    }
    return sent;
  }

  /**
   * Forget all requests: the socket is lost. If it was closed because a message was too big, that was the largest one,
   * which is rejected.
   *
   * @param {boolean} tooBig
   */
  clear(tooBig) {
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    if (!tooBig) return;
    const [largest] = requests.sort((a, b) => b.size - a.size);
    if (!largest || largest.size <= ALWAYS_ACCEPTED) return;
    largest.callback(new ReactorError("too_big", `the server does not accept ${largest.type} of ${largest.size} bytes`));
  }
}
