/** What the server refused, or what ended a room or the connection. */
export class ReactorError extends Error {
  /**
   * @param {string} code stable, for programs
   * @param {string} message says how to mend it
   * @param {object} [more] fields of its own
   */
  constructor(code, message, more) {
    super(message);
    this.name = "ReactorError";
    this.code = code;
    Object.assign(this, more);
  }
}

const PASSING = /^(unavailable|too_many_pending|too_many_requests|internal)$/;

/**
 * Whether the same request may be taken a moment later.
 *
 * @param {ReactorError} error
 */
export const passes = (error) => PASSING.test(error.code);
