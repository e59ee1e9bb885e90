/**
 * A WebSocket that reconnects: it opens, is lost, waits for a jittered delay, and opens again. Knows no rooms.
 *
 * States: closed -> connecting -> open -> waiting -> connecting ...; `close` leads to closed from any state.
 * Deadlines are compared with the clock: timers of a sleeping or hidden page are late, and `tick` makes up for that.
 */
import { ReactorError } from "./error.js";

/** Times in milliseconds. The first delay is a fraction of the server's default grace, so a short loss goes unnoticed. */
export const BACKOFF = { first: 500, most: 15_000, timeout: 10_000, steady: 10_000 };

/** The encoding that every server and platform supports. */
export const json = { subprotocol: "reactor.json", encode: JSON.stringify, decode: JSON.parse };

/** Close codes after which the client may reconnect; after any other it would be closed again for the same reason. */
const RECONNECT_CODES = [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 4008, 4029];
const UNAUTHORISED = 4001;
const FORCE_LEAVE = 4003;

/**
 * @typedef {import("./index.js").ClientOptions & {random?: () => number}} ConnectionOptions
 * @typedef {{stateChanged(): void, receive(message: any): void, sendToken(token?: string): void, tick(): void}} Owner
 *   is notified of state changes (closed with an `error`: the client must not reconnect) and of messages
 */

export class Connection {
  /** @type {"closed" | "connecting" | "open" | "waiting"} */
  state = "closed";
  /** When the next attempt begins (ms since 1970) while waiting; Infinity: only by `open`. */
  retryAt = 0;
  /** When the last message arrived (ms since 1970). */
  receivedAt = 0;
  /** When to get a new token (ms since 1970) while open; Infinity: when the server asks for one. */
  renewAt = Infinity;
  /** Why there is no connection, if known. @type {Error | null} */
  error = null;
  /** The token that the socket was opened with. @type {string | undefined} */
  token;
  /** Whether a new token is requested after a rejected one; not twice in succession. */
  #mayRenew = true;
  #url;
  #options;
  #owner;
  #backoff;
  #attempts = 0;
  #openedAt = 0;
  /** The current attempt or socket; events of any other are ignored. @type {any} */
  #current;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {string} url @param {ConnectionOptions} options @param {Owner} owner */
  constructor(url, { WebSocket = globalThis.WebSocket, random = Math.random, codec = json, token, backoff }, owner) {
    this.#url = url;
    this.#options = { WebSocket, random, codec, token };
    this.#backoff = { ...BACKOFF, ...backoff };
    this.#owner = owner;
    if (!WebSocket) throw new TypeError("no WebSocket: pass one, as { WebSocket }");
  }

  /** Connect now, unless connecting or connected. @param {boolean} [reset] whether to start over with the first delay */
  open(reset) {
    if (reset) this.#attempts = 0;
    if (this.state === "open" || this.state === "connecting") return;
    const attempt = (this.#current = {});
    this.#setTimer(this.#backoff.timeout, () => this.reconnect());
    this.#setState("connecting");
    this.#getToken().then(
      (token) => this.#current === attempt && this.#connect(token),
      (error) => {
        if (this.#current !== attempt) return;
        this.error = error;
        this.reconnect();
      },
    );
  }

  /** Whether a new token can be requested. */
  get #canRenew() {
    return typeof this.#options.token === "function";
  }

  /** The server accepted a token. @param {number} expiresAt ms since 1970 */
  accepted(expiresAt) {
    const now = Date.now();
    const left = expiresAt - now;
    this.#mayRenew = true;
    // By a clock that is ahead the token has expired already; the server then says when a new one is needed.
    if (left > 0) this.renewAt = now + Math.max(left / 2, left - 60_000);
  }

  /** Send a new token on the open socket. */
  renew() {
    this.renewAt = Infinity;
    if (!this.#canRenew) return;
    this.#getToken().then(
      (token) => this.#owner.sendToken(token),
      () => {
        this.renewAt = Date.now() + this.#backoff.timeout;
        this.#owner.tick();
      },
    );
  }

  /** @returns {Promise<string | undefined>} the token, if there is one */
  async #getToken() {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  /**
   * @param {object} message
   * @returns {boolean} whether it was passed to an open socket
   */
  send(message) {
    if (this.state !== "open") return false;
    this.#current.send(this.#options.codec.encode(message));
    return true;
  }

  /** Drop the socket as dead, and reconnect after the backoff. */
  reconnect() {
    this.drop(this.#nextDelay());
  }

  /**
   * Drop the socket as a lost network would.
   *
   * @param {number} pause ms until it reconnects; Infinity: only by `open`
   */
  drop(pause) {
    this.#release();
    this.retryAt = Date.now() + pause;
    if (pause < Infinity) this.#setTimer(pause, () => this.open());
    this.#setState("waiting");
  }

  /** Close, and do not reconnect. @param {Error | null} [error] the reason */
  close(error = null) {
    this.#release();
    this.#attempts = 0;
    this.error = error;
    this.#setState("closed");
  }

  /** Compare deadlines with the clock, and do what is due: timers may be late. */
  tick() {
    if (this.state === "waiting" && Date.now() >= this.retryAt) this.open();
    if (this.state === "open" && Date.now() >= this.renewAt) this.renew();
  }

  /** @param {string} [token] */
  #connect(token) {
    const { WebSocket, codec } = this.#options;
    /** @type {WebSocket} */
    let socket;
    try {
      socket = this.#current = new WebSocket(this.#url, [codec.subprotocol]);
    } catch (error) {
      // An invalid address, or ws:// on a page that was loaded by https.
      this.close(new ReactorError("closed", String(error)));
      return;
    }
    this.token = token;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.#openedAt = this.receivedAt = Date.now();
      this.error = null;
      this.#setState("open");
    };
    socket.onmessage = ({ data }) => {
      this.receivedAt = Date.now();
      try {
        this.#owner.receive(codec.decode(data));
      } catch (error) {
        // If it was a diff, the gap in versions is noticed like that of a lost one.
        console.error(error);
      }
    };
    // `ws` on Node.js throws errors without a listener; the close event that follows has what is needed.
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => this.#onClose(code, reason);
  }

  /** @param {number} code @param {string} reason */
  #onClose(code, reason) {
    const error = new ReactorError("closed", `closed by the server: ${code} ${reason}`, { closeCode: code });
    const renewed = code === UNAUTHORISED && this.#canRenew && this.#mayRenew;
    this.error = error;
    if (renewed) this.#mayRenew = false;
    if (renewed || RECONNECT_CODES.includes(code)) this.reconnect();
    // After a force-leave from the last room, that room has the error.
    else this.close(code === FORCE_LEAVE ? null : error);
  }

  #release() {
    const socket = this.#current;
    clearTimeout(this.#timer);
    this.#current = undefined;
    this.renewAt = Infinity;
    if (!socket?.close) return;
    // The close event of a dead network may come minutes later, and must be ignored then.
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** Half of the delay is random, so that the clients of a restarted server do not all reconnect at once. */
  #nextDelay() {
    const { first, most, steady } = this.#backoff;
    // A server that accepts and closes at once is not available yet.
    if (this.state === "open" && Date.now() - this.#openedAt >= steady) this.#attempts = 0;
    return (Math.min(most, first * 2 ** this.#attempts++) / 2) * (1 + this.#options.random());
  }

  /** @param {number} ms @param {() => void} call */
  #setTimer(ms, call) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(call, ms);
  }

  /** @param {Connection["state"]} state */
  #setState(state) {
    this.state = state;
    this.#owner.stateChanged();
  }
}
