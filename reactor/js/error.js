/** A request that the server refused, or what ended a room or the connection. */
export class ReactorError extends Error {
  /** How long (ms) to wait before the same request, if the server says so. @type {number | undefined} */
  retryAfter;
  /** Of a ban: when it ends, in ms since 1970. @type {number | undefined} */
  until;

  /**
   * @param {string} code stable, for programs
   * @param {string} message says how to fix it
   * @param {object} [more] fields of this code
   */
  constructor(code, message, more) {
    super(message);
    this.name = "ReactorError";
    this.code = code;
    Object.assign(this, more);
  }
}

const TRANSIENT = /^(unavailable|too_many_pending|too_many_requests|internal)$/;

/**
 * Whether the same request may succeed a moment later.
 *
 * @param {ReactorError | null} error null for success
 */
export const isTransient = (error) => error && TRANSIENT.test(error.code);
