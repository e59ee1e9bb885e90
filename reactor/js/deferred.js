import { startTimer } from "./clock.js";

/** Calls that are delayed for a while, unless the connection is lost before. */
export class DeferredCalls {
  /** @type {Map<any, () => void>} by their timers */
  #calls = new Map();

  /** @param {() => void} call @param {number} ms */
  add(call, ms) {
    const timer = startTimer(() => {
      this.#calls.delete(timer);
      call();
    }, ms);
    this.#calls.set(timer, call);
  }

  /** Cancel all timers, and make the calls now or never. @param {boolean} now */
  end(now) {
    const calls = [...this.#calls];
    this.#calls.clear();
    for (const [timer, call] of calls) {
      clearTimeout(timer);
      if (now) call();
    }
  }
}
