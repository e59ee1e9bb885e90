/**
 * One WebSocket that comes back: it opens, is lost, waits a jittered while, and opens again. Knows no rooms.
 *
 * States: closed -> connecting -> open -> waiting -> connecting ...; `close` leads to closed from anywhere.
 * Moments are judged by the clock, not by counting ticks: a sleeping or hidden page has its timers late, and `tick`
 * makes up for it.
 */
import { ReactorError } from "./error.js";

/** Times in milliseconds. A fraction of the server's default grace comes first, so that a short loss stays unseen. */
export const BACKOFF = { first: 500, most: 15_000, timeout: 10_000, steady: 10_000 };

/** The encoding that every server and platform knows. */
export const json = { subprotocol: "reactor.json", encode: JSON.stringify, decode: JSON.parse };

/** Close codes after which the same client may come again; after any other it would meet the same end. */
const MAY_RETURN = [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 4008, 4029];
const UNAUTHORISED = 4001;
const FORCE_LEAVE = 4003;

/**
 * @typedef {import("./index.js").ClientOptions & {random?: () => number}} LinkOptions
 * @typedef {{turned(): void, receive(message: any): void, sayToken(token?: string): void, tick(): void}} Owner is told
 *   that the state has changed (to closed, with an `error`: the server wants no return), and what the server says
 */

export class Link {
  /** @type {"closed" | "connecting" | "open" | "waiting"} */
  state = "closed";
  /** When the next attempt begins (ms since 1970) while waiting; Infinity for never by itself. */
  retryAt = 0;
  /** When something last came from the server (ms since 1970). */
  heardAt = 0;
  /** When to get a fresh token (ms since 1970) while open; Infinity for when the server says so. */
  renewAt = Infinity;
  /** Why there is no connection, as far as it is known. @type {Error | null} */
  error = null;
  /** The token that the socket was opened with. @type {string | undefined} */
  token;
  /** Whether a refused token may be followed by a fresh one: not twice in a row. */
  #trusted = true;
  #url;
  #options;
  #owner;
  #backoff;
  #attempts = 0;
  #openedAt = 0;
  /** The attempt or the socket that counts; what comes of any other is no news. @type {any} */
  #current;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {string} url @param {LinkOptions} options @param {Owner} owner */
  constructor(url, { WebSocket = globalThis.WebSocket, random = Math.random, codec = json, token, backoff }, owner) {
    this.#url = url;
    this.#options = { WebSocket, random, codec, token };
    this.#backoff = { ...BACKOFF, ...backoff };
    this.#owner = owner;
    if (!WebSocket) throw new TypeError("no WebSocket: pass one, as { WebSocket }");
  }

  /** Connect now, unless it is connected or on its way. @param {boolean} [hopeful] whether failures so far count no more */
  open(hopeful) {
    if (hopeful) this.#attempts = 0;
    if (this.state === "open" || this.state === "connecting") return;
    const attempt = (this.#current = {});
    this.#in(this.#backoff.timeout, () => this.lost());
    this.#enter("connecting");
    this.#freshToken().then(
      (token) => this.#current === attempt && this.#dial(token),
      (error) => {
        if (this.#current !== attempt) return;
        this.error = error;
        this.lost();
      },
    );
  }

  /** Whether a fresh token can be had. */
  get #canRenew() {
    return typeof this.#options.token === "function";
  }

  /** The server took a token. @param {number} expiresAt ms since 1970 */
  trust(expiresAt) {
    const now = Date.now();
    const left = expiresAt - now;
    this.#trusted = true;
    // By a clock that is ahead it has run out already: then the server will say when it is time.
    if (left > 0) this.renewAt = now + Math.max(left / 2, left - 60_000);
  }

  /** Say a fresh token on the open socket. */
  renew() {
    this.renewAt = Infinity;
    if (!this.#canRenew) return;
    this.#freshToken().then(
      (token) => this.#owner.sayToken(token),
      () => {
        this.renewAt = Date.now() + this.#backoff.timeout;
        this.#owner.tick();
      },
    );
  }

  /** @returns {Promise<string | undefined>} the token, if one is wanted */
  async #freshToken() {
    const { token } = this.#options;
    return typeof token === "function" ? token() : token;
  }

  /**
   * @param {object} message
   * @returns {boolean} whether it was handed to an open socket
   */
  send(message) {
    if (this.state !== "open") return false;
    this.#current.send(this.#options.codec.encode(message));
    return true;
  }

  /** Give the socket up as dead, and come back after the usual pause. */
  lost() {
    this.drop(this.#pause());
  }

  /**
   * Let go of the socket as a lost network would.
   *
   * @param {number} pause ms until it comes back; Infinity for only by `open`
   */
  drop(pause) {
    this.#letGo();
    this.retryAt = Date.now() + pause;
    if (pause < Infinity) this.#in(pause, () => this.open());
    this.#enter("waiting");
  }

  /** Be done. @param {Error | null} [error] why there is no other try */
  close(error = null) {
    this.#letGo();
    this.#attempts = 0;
    this.error = error;
    this.#enter("closed");
  }

  /** Look at the clock: what is due may have had its timer held back. */
  tick() {
    if (this.state === "waiting" && Date.now() >= this.retryAt) this.open();
    if (this.state === "open" && Date.now() >= this.renewAt) this.renew();
  }

  /** @param {string} [token] */
  #dial(token) {
    const { WebSocket, codec } = this.#options;
    /** @type {WebSocket} */
    let socket;
    try {
      socket = this.#current = new WebSocket(this.#url, [codec.subprotocol]);
    } catch (error) {
      // No address; or a page on https that asks for ws://.
      this.close(new ReactorError("closed", String(error)));
      return;
    }
    this.token = token;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.#openedAt = this.heardAt = Date.now();
      this.error = null;
      this.#enter("open");
    };
    socket.onmessage = ({ data }) => {
      this.heardAt = Date.now();
      try {
        this.#owner.receive(codec.decode(data));
      } catch (error) {
        // A diff among them is missed like one that was lost: by the gap it leaves.
        console.error(error);
      }
    };
    // Node's `ws` throws what nobody listens to; the close that follows says enough.
    socket.onerror = () => {};
    socket.onclose = ({ code, reason }) => this.#onClose(code, reason);
  }

  /** @param {number} code @param {string} reason */
  #onClose(code, reason) {
    const error = new ReactorError("closed", `closed by the server: ${code} ${reason}`, { closeCode: code });
    const renewed = code === UNAUTHORISED && this.#canRenew && this.#trusted;
    this.error = error;
    if (renewed) this.#trusted = false;
    if (renewed || MAY_RETURN.includes(code)) this.lost();
    // The last room of the connection is over, and has heard why.
    else this.close(code === FORCE_LEAVE ? null : error);
  }

  #letGo() {
    const socket = this.#current;
    clearTimeout(this.#timer);
    this.#current = undefined;
    this.renewAt = Infinity;
    if (!socket?.close) return;
    // A dead network's close may come minutes later, and is no news then.
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** Half fixed, half by chance: a server that restarts is not met by all of its clients at once. */
  #pause() {
    const { first, most, steady } = this.#backoff;
    // One that accepts and closes at once is not a server that is back.
    if (this.state === "open" && Date.now() - this.#openedAt >= steady) this.#attempts = 0;
    return (Math.min(most, first * 2 ** this.#attempts++) / 2) * (1 + this.#options.random());
  }

  /** @param {number} ms @param {() => void} act */
  #in(ms, act) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, ms);
  }

  /** @param {Link["state"]} state */
  #enter(state) {
    this.state = state;
    this.#owner.turned();
  }
}
