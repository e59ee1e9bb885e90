/**
 * One WebSocket that comes back: it opens, is lost, waits a jittered while, and opens again. Knows no rooms.
 *
 * States: closed -> connecting -> open -> waiting -> connecting ...; `close` leads to closed from anywhere.
 * Moments are judged by the clock, not by counting ticks: a sleeping or hidden page has its timers late, and `wake`
 * makes up for it.
 */
import { Emitter } from "./emitter.js";

/** Times in milliseconds. A tenth of the server's default grace comes first, so that a short loss stays unseen. */
export const BACKOFF = { first: 500, most: 15_000, connectTimeout: 10_000, steadyAfter: 10_000 };

/** Close codes after which the same client may come again; after any other it would meet the same end. */
const MAY_RETURN = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 4008, 4029]);

/**
 * Events: `status` (the state has changed), `message` (text), `frame` ({direction, text}: all that goes over the
 * wire), `ended` ({code, reason}: the server wants no return).
 */
export class Link extends Emitter {
  /** @type {"closed" | "connecting" | "open" | "waiting"} */
  state = "closed";
  /** When the next attempt begins (ms since 1970) while waiting; Infinity for never by itself. */
  retryAt = 0;
  /** When something last came from the server (ms since 1970). */
  heardAt = 0;
  #url;
  #WebSocket;
  #random;
  #attempts = 0;
  #openedAt = 0;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /**
   * @param {string} url
   * @param {{WebSocket?: typeof globalThis.WebSocket, random?: () => number}} [options]
   */
  constructor(url, { WebSocket = globalThis.WebSocket, random = Math.random } = {}) {
    super();
    if (!WebSocket) throw new TypeError("no WebSocket here: pass one, as { WebSocket }");
    this.#url = url;
    this.#WebSocket = WebSocket;
    this.#random = random;
  }

  /** Connect now, unless it is connected or on its way. */
  open() {
    if (this.state === "open" || this.state === "connecting") return;
    clearTimeout(this.#timer);
    const socket = new this.#WebSocket(this.#url, ["reactor.json"]);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.lost(), BACKOFF.connectTimeout);
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.#openedAt = this.heardAt = Date.now();
      this.#enter("open");
    };
    socket.onmessage = ({ data }) => {
      this.heardAt = Date.now();
      this.emit("frame", { direction: "received", text: data });
      this.emit("message", data);
    };
    socket.onclose = ({ code, reason }) => {
      this.#letGo();
      if (MAY_RETURN.has(code)) {
        this.#comeBack(this.#pause());
      } else {
        this.#enter("closed");
        this.emit("ended", { code, reason });
      }
    };
    this.#enter("connecting");
  }

  /**
   * @param {object} message
   * @returns {boolean} whether it was handed to an open socket
   */
  send(message) {
    if (this.state !== "open") return false;
    const text = JSON.stringify(message);
    this.#socket?.send(text);
    this.emit("frame", { direction: "sent", text });
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
    const socket = this.#letGo();
    socket?.close();
    this.#comeBack(pause);
  }

  /** Be done. */
  close() {
    this.#letGo()?.close(1000);
    this.#attempts = 0;
    this.#enter("closed");
  }

  /** Look at the clock: an attempt may be due whose timer was held back. */
  wake() {
    if (this.state === "waiting" && Date.now() >= this.retryAt) this.open();
  }

  #letGo() {
    const socket = this.#socket;
    clearTimeout(this.#timer);
    this.#socket = null;
    // A dead network's close may come minutes later, and is no news then.
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    return socket;
  }

  /** @param {number} pause */
  #comeBack(pause) {
    this.retryAt = Date.now() + pause;
    if (Number.isFinite(pause)) this.#timer = setTimeout(() => this.open(), pause);
    this.#enter("waiting");
  }

  /** Half fixed, half by chance: a server that restarts is not met by all of its clients at once. */
  #pause() {
    // One that accepts and closes at once is not a server that is back.
    if (this.state === "open" && Date.now() - this.#openedAt >= BACKOFF.steadyAfter) this.#attempts = 0;
    const whole = Math.min(BACKOFF.most, BACKOFF.first * 2 ** this.#attempts);
    this.#attempts += 1;
    return (whole / 2) * (1 + this.#random());
  }

  /** @param {Link["state"]} state */
  #enter(state) {
    this.state = state;
    this.emit("status", state);
  }
}
