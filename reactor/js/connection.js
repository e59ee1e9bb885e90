/**
 * A WebSocket that reconnects: it opens, is lost, waits for a jittered delay, and opens again. Knows no rooms.
 *
 * States: closed -> connecting -> open -> waiting -> connecting ...; `close` leads to closed from any state.
 * Deadlines are compared with the clock: timers of a sleeping or hidden page are late, and `tick` makes up for that.
 */
import { monotonic, startTimer } from "./clock.js";
import { byteLength, refuse, shown } from "./encode.js";
import { ReactorError } from "./error.js";
import { failureReason, probe } from "./probe.js";

/**
 * Times in milliseconds. The delays are a fraction of the server's default grace of 15 s, so that a short loss goes
 * unnoticed, and a restart of the only server too.
 */
export const BACKOFF = { first: 500, most: 5000, timeout: 10_000, steady: 10_000 };

/** The encoding that every server and platform supports. */
export const json = { subprotocol: "reactor.json", encode: JSON.stringify, decode: JSON.parse };

/** The shortest time (ms) between two renewals of the token, by whatever clock. */
const TOKEN_PAUSE = 5000;
/** How long (ms) after a wake a loss is a consequence of the sleep, and no sign that the server is in trouble. */
const WAKING = 1000;

/** The two codes by which a reactor server ends a connection for good; a proxy closes with any other. */
const UNAUTHORISED = 4001;
const FORCE_LEAVE = 4003;
/** Whether a server closed because of what the client did: the same may happen at once again. @param {number} code */
const isComplaint = (code) => (code > 1001 && code < 1005) || (code > 1006 && code < 1010) || code >= FORCE_LEAVE;

/** @param {string} [token] */
const isAscii = (token = "") => !/\P{ASCII}/u.test(token);

/**
 * @typedef {import("./index.js").ClientOptions & {random?: () => number}} ConnectionOptions
 *
 * @typedef {object} Owner is notified of what happens
 * @property {() => void} stateChanged closed with an `error`: the client must not reconnect
 * @property {(message: any) => void} receive
 * @property {(event: "error" | "connection-error", error: Error) => void} emit
 * @property {(token?: string) => void} sendToken
 * @property {() => void} tick
 * @property {unknown} isUsed whether it needs a connection
 */

export class Connection {
  /** @type {"closed" | "connecting" | "open" | "waiting"} */
  state = "closed";
  /** When the last message arrived, by the monotonic clock. */
  receivedAt = 0;
  /** When to get a new token, by the monotonic clock; Infinity: when the server asks for one. */
  renewAt = Infinity;
  /** Why there is no connection, or no new token, if known. @type {Error | null} */
  error = null;
  /** That the user is banned from all rooms, as the server said on this socket. @type {Error | null} */
  banned = null;
  /** The token that the socket was opened with. @type {string | undefined} */
  token;
  /** Whether a new token is requested after a rejected one; not twice in succession. */
  #mayRenew = true;
  #url;
  #options;
  #owner;
  #backoff;
  /** Times by the monotonic clock. */
  #retryAt = 0;
  #openedAt = 0;
  #wokeAt = -Infinity;
  #renewedAt = -Infinity;
  /** Failures in succession. */
  #attempts = 0;
  /** Whether the server has answered on this socket. */
  #answered = false;
  /** Whether it has ended a membership on it. */
  #released = false;
  /** The HTTP status of the server's address, requested once in a series of failures. @type {Promise<number | undefined> | undefined} */
  #status;
  /** Why the server did not accept the last token, if so. @type {string | undefined} */
  refusal;
  /** The current attempt or socket; events of any other are ignored. @type {any} */
  #current;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {string} url @param {ConnectionOptions} options @param {Owner} owner */
  constructor(url, { WebSocket = globalThis.WebSocket, random = Math.random, codec = json, token, backoff, requestTimeout = 0 }, owner) {
    this.#url = url;
    this.#options = { WebSocket, random, codec, token };
    this.#backoff = { ...BACKOFF, ...backoff };
    this.#owner = owner;
    if (typeof url !== "string" && !(/** @type {any} */ (url)?.href)) refuse("url", `an address is needed, as in wss://example.org/ws, not ${shown(url)}`);
    if (token != null && !/^(string|function)$/.test(typeof token)) refuse("token", "a token is needed, or a function that returns one: pass the function itself, without calling it");
    if (typeof token === "string" && !isAscii(token)) refuse("token", "a token is needed, not text that is not ASCII");
    for (const [name, ms] of Object.entries({ requestTimeout, ...this.#backoff })) {
      if (!(typeof ms === "number" && ms >= 0)) refuse(name, `milliseconds are needed, not ${shown(ms)}`);
    }
    if (!WebSocket) throw new TypeError("no WebSocket: pass one, as { WebSocket }");
  }

  /** When the next attempt begins (ms since 1970) while waiting; Infinity: only by `open`. */
  get retryAt() {
    return Math.round(Date.now() + this.#retryAt - monotonic());
  }

  /** Connect now, unless connecting or connected. */
  open() {
    if (this.state === "open" || this.state === "connecting") return;
    const attempt = (this.#current = {});
    this.#retryAt = 0;
    const until = monotonic() + this.#backoff.timeout;
    this.#setState("connecting");
    // A listener of the status may have closed it.
    if (this.#current === attempt) this.#getToken(attempt, (token) => this.#connect(until, token), () => this.reconnect());
  }

  /** The machine or the page was asleep, or the network is another one: failures so far do not count. */
  wake() {
    this.#attempts = 0;
    this.#wokeAt = monotonic();
    if (this.state === "waiting") this.open();
  }

  /** Whether a new token can be requested. */
  get #canRenew() {
    return typeof this.#options.token === "function";
  }

  /** The server accepted a token. @param {{expiresIn?: number, expiresAt?: number}} reply in ms, and ms since 1970 */
  accepted({ expiresIn, expiresAt = NaN }) {
    const left = expiresIn ?? expiresAt - Date.now();
    this.#mayRenew = true;
    this.error = null;
    // By a wall clock that is ahead the token has expired already; the server then says when a new one is needed.
    if (left > 0) this.#renewIn(Math.max(left / 2, left - 60_000));
  }

  /** The server needs a new token. */
  expired() {
    this.#renewIn(0);
  }

  /** @param {number} ms */
  #renewIn(ms) {
    this.renewAt = Math.max(monotonic() + ms, this.#renewedAt + TOKEN_PAUSE);
  }

  /** Send a new token on the open socket. */
  #renew() {
    this.renewAt = Infinity;
    if (!this.#canRenew) return;
    this.#renewedAt = monotonic();
    this.#getToken(this.#current, (token) => this.#owner.sendToken(token), () => {
      this.#renewIn(this.#backoff.timeout);
      this.#owner.tick();
    });
  }

  /**
   * Get the token, if there is one. The function that returns it may also end the client.
   *
   * @param {object} attempt or socket that needs it
   * @param {(token?: string) => void} use
   * @param {() => void} retry
   */
  async #getToken(attempt, use, retry) {
    const { token } = this.#options;
    const { timeout } = this.#backoff;
    /** @type {any} */
    let result = token ?? undefined;
    /** @type {any} */
    let failure;
    try {
      if (typeof token === "function") {
        const late = new Promise((_, reject) => {
          this.#setTimer(timeout, () => reject(new ReactorError("timeout", `the token function has not returned within ${timeout} ms`)));
        });
        result = await Promise.race([token(), late]);
      }
      if (result === null) throw new ReactorError("closed", "the token function returned null", { permanent: true });
      if (!/^(string|undefined)$/.test(typeof result)) {
        throw new ReactorError("bad_request", `the token function returned ${typeof result}, not a token`);
      }
      if (!isAscii(result)) throw new ReactorError("bad_request", "the token function returned text that is not ASCII, not a token");
    } catch (error) {
      const { message = error, permanent } = /** @type {any} */ (Object(error));
      const isError = error instanceof ReactorError || (error instanceof Error && !permanent);
      // What ends the client is the error of its rooms too, and has a code as their other errors do.
      failure = isError
        ? error
        : new ReactorError(permanent ? "closed" : "bad_request", `the token function failed: ${shown(message)}`, { permanent });
    }
    if (this.#current !== attempt) return;
    clearTimeout(this.#timer);
    if (failure) this.#tokenFailed(failure, retry);
    else use(result);
  }

  /** @param {any} error @param {() => void} retry */
  #tokenFailed(error, retry) {
    if (error.permanent) return this.close(error);
    this.error = error;
    this.#owner.emit("error", error);
    retry();
  }

  /**
   * @param {object} message
   * @param {number} [limit] of its size in bytes
   * @returns {number} its size; 0 if no socket is open
   * @throws if it cannot be encoded, or is larger than the limit
   */
  send(message, limit = Infinity) {
    if (this.state !== "open") return 0;
    const encoded = this.#options.codec.encode(message);
    const size = typeof encoded === "string" ? byteLength(encoded) : encoded.byteLength ?? 1;
    if (size > limit) throw new ReactorError("too_big", `a message of ${size} bytes: the server accepts ${limit}`);
    this.#current.send(encoded);
    return size;
  }

  /** Drop the socket as dead, and reconnect after the backoff. @param {number} [code] by which it was closed */
  reconnect(code = 0) {
    this.drop(this.#nextDelay(code));
  }

  /**
   * Drop the socket as a lost network would.
   *
   * @param {number} pause ms until it reconnects; Infinity: only by `open`
   */
  drop(pause) {
    this.#release();
    this.#retryAt = monotonic() + pause;
    if (pause < Infinity) this.#setTimer(pause, () => this.open());
    this.#setState("waiting");
  }

  /** Close, and do not reconnect. @param {Error | null} [error] the reason */
  close(error = null) {
    this.#release();
    this.#attempts = 0;
    this.error = error;
    this.#setState("closed");
    if (error) this.#owner.emit("error", error);
  }

  /** Compare deadlines with the clock, and do what is due: timers may be late. */
  tick() {
    if (this.state === "waiting" && monotonic() >= this.#retryAt) this.open();
    if (this.state === "open" && monotonic() >= this.renewAt) this.#renew();
  }

  /** @param {number} until when the attempt has failed, by the monotonic clock @param {string} [token] */
  #connect(until, token) {
    const { WebSocket, codec } = this.#options;
    /** @type {WebSocket} */
    let socket;
    this.#setTimer(Math.max(0, until - monotonic()), () => this.#onClose(1006, ""));
    try {
      socket = this.#current = new WebSocket(this.#url, [codec.subprotocol]);
    } catch (error) {
      // An invalid address, or one that the page may not use. Firefox gives no reason if its policy forbids it.
      const { message } = /** @type {Error} */ (error);
      const sentence = message ? `cannot connect to ${this.#url}: ${message}` : failureReason(this.#url);
      this.close(new ReactorError("closed", sentence));
      return;
    }
    this.token = token;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.#openedAt = this.receivedAt = monotonic();
      this.#answered = this.#released = false;
      this.#status = undefined;
      this.error = this.banned = null;
      this.#setState("open");
    };
    socket.onmessage = ({ data }) => {
      this.receivedAt = monotonic();
      try {
        const message = codec.decode(data);
        if (message.type !== "error") this.#answered = true;
        if (/^room:(left|force-leave)$/.test(message.type)) this.#released = true;
        this.#owner.receive(message);
      } catch (error) {
        // If it was a diff, the gap in versions is noticed like that of a lost one.
        console.error(error);
      }
    };
    // `ws` on Node.js throws errors without a listener; the close event that follows has what is needed. Chromium sends
    // none where a Content-Security-Policy forbids the connection.
    socket.onerror = () => {
      if (socket.readyState === 3) setTimeout(() => this.#current === socket && this.#onClose(1006, ""), 0);
    };
    socket.onclose = ({ code, reason }) => this.#onClose(code, reason);
  }

  /** @param {number} code @param {string} reason */
  #onClose(code, reason) {
    const refused = code === UNAUTHORISED && this.refusal;
    const error = new ReactorError("closed", refused ? `the server refused the token: ${refused}` : `closed by the server: ${code} ${reason}`, { closeCode: code });
    if (this.state === "connecting") this.#explain(error);
    else this.#owner.emit("connection-error", error);
    this.error = error;
    if (code === UNAUTHORISED && !(this.#canRenew && this.#mayRenew)) return this.close(error);
    if (code === UNAUTHORISED) this.#mayRenew = false;
    if (code !== FORCE_LEAVE) return this.reconnect(code);
    // After a force-leave from the last room, that room has the error.
    if (this.banned || !this.#owner.isUsed) return this.close(this.banned);
    // Another room was being joined. A peer that closes so and has ended nothing is no reactor server with a reason.
    this.drop(this.#released ? 0 : this.#nextDelay(code));
    if (this.#released) this.open();
  }

  /** Add to an error why the server cannot be reached, and report it. @param {ReactorError} error */
  async #explain(error) {
    const url = this.#url;
    error.message = failureReason(url);
    this.#status ??= probe(url);
    const status = await this.#status;
    if (this.error !== error) return;
    if (status) Object.assign(error, { status, message: failureReason(url, status) });
    this.#owner.emit("connection-error", error);
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

  /**
   * Half of the delay is random, so that the clients of a restarted server do not all reconnect at once.
   *
   * @param {number} code by which the socket was closed, if it was
   */
  #nextDelay(code) {
    const { first, most, steady } = this.#backoff;
    const now = monotonic();
    // A server that accepts and closes at once is not available yet.
    const worked = this.state === "open" && (now - this.#openedAt >= steady || (this.#answered && !isComplaint(code)));
    if (worked || now - this.#wokeAt < WAKING) this.#attempts = 0;
    return (Math.min(most, first * 2 ** this.#attempts++) / 2) * (1 + this.#options.random());
  }

  /** @param {number} ms @param {() => void} call */
  #setTimer(ms, call) {
    clearTimeout(this.#timer);
    this.#timer = startTimer(call, ms);
  }

  /** @param {Connection["state"]} state */
  #setState(state) {
    this.state = state;
    this.#owner.stateChanged();
  }
}
