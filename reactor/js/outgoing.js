/**
 * Changes of the own member that the server has not acknowledged, in the order in which they were made.
 *
 * One request is under way at a time, and those made meanwhile are sent together afterwards. So a change never overtakes
 * another, and one that was refused for now is not repeated after a later one. If several together are refused, they are
 * sent again one by one, since only one of them may be at fault.
 */
import { isTransient } from "./error.js";

/** From how many waiting changes on a further one is joined to the last, and has its outcome. */
const MAX_WAITING = 64;

/**
 * @typedef {import("./error.js").ReactorError} ReactorError
 * @typedef {{fields: any, promise: Promise<void>, resolve: () => void, reject: (error: Error) => void}} Change
 *
 * @typedef {object} Wire
 * @property {(fields: any, callback: (error: ReactorError | null) => void, lost: () => void) => boolean} send whether it was
 *   sent; `lost` is called in place of `callback` if the next `flush` has to send it again
 * @property {(call: () => void, error: ReactorError | null) => void} defer makes a call later, unless the connection is lost
 * @property {(former: any, later: any) => any} merge one change with the effect of two; undefined if there is none
 * @property {(fields: any) => void} acknowledged
 */

export class OutgoingChanges {
  /** @type {Change[]} */
  #changes = [];
  /** How many changes the request under way contains. */
  #sent = 0;
  /** How many changes are sent one by one. */
  #single = 0;
  #wire;

  /** @param {Wire} wire */
  constructor(wire) {
    this.#wire = wire;
  }

  /** The last change that is not acknowledged. @returns {any} */
  get last() {
    return this.#changes[this.#changes.length - 1]?.fields;
  }

  /**
   * @param {object} fields
   * @param {boolean} [first] whether it is older than those that wait; only while no request is under way
   * @returns {Promise<void>} settles with the server's answer
   */
  push(fields, first = false) {
    const { length } = this.#changes;
    const last = this.#changes[length - 1];
    if (last && length >= MAX_WAITING && this.#sent < length && !first) {
      const merged = this.#wire.merge(last.fields, fields);
      if (merged) last.fields = merged;
      if (merged) return last.promise;
    }
    const change = /** @type {Change} */ ({ fields });
    change.promise = new Promise((resolve, reject) => Object.assign(change, { resolve, reject }));
    // A rejection that the caller does not handle must not end the program.
    change.promise.catch(() => {});
    if (first) this.#changes.unshift(change);
    else this.#changes.push(change);
    this.flush();
    return change.promise;
  }

  /** Send what is waiting, unless a request is under way. */
  flush() {
    const [first, ...others] = this.#changes;
    if (this.#sent || !first) return;
    let { fields } = first;
    this.#sent = 1;
    for (const change of this.#single ? [] : others) {
      const merged = this.#wire.merge(fields, change.fields);
      if (!merged) break;
      fields = merged;
      this.#sent += 1;
    }
    if (!this.#wire.send(fields, (error) => this.#answered(fields, error), () => this.lost())) this.#sent = 0;
  }

  /** The request under way is lost; `flush` sends its changes again. */
  lost() {
    this.#sent = 0;
  }

  /** @param {Error} error rejects all changes */
  end(error) {
    this.#settle(this.#changes.length, error);
  }

  /** @param {object} fields @param {ReactorError | null} error */
  #answered(fields, error) {
    const count = this.#sent;
    if (isTransient(error)) {
      this.#wire.defer(() => {
        this.lost();
        this.flush();
      }, error);
      return;
    }
    this.lost();
    if (error && error.code !== "timeout" && count > 1) {
      this.#single = count;
    } else {
      if (!error) this.#wire.acknowledged(fields);
      this.#single = Math.max(0, this.#single - count);
      this.#settle(count, error);
    }
    this.flush();
  }

  /** @param {number} count @param {Error | null} error */
  #settle(count, error) {
    for (const { resolve, reject } of this.#changes.splice(0, count)) {
      if (error) reject(error);
      else resolve();
    }
  }
}
