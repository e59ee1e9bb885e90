/** What is to be done a while from now, unless the socket is lost before. */
export class Postponed {
  /** @type {Map<any, () => void>} by its timer */
  #acts = new Map();

  /** @param {() => void} act @param {number} ms */
  add(act, ms) {
    const timer = setTimeout(() => {
      this.#acts.delete(timer);
      act();
    }, ms);
    this.#acts.set(timer, act);
  }

  /** Do all of it now, or nothing of it any more. @param {boolean} now */
  end(now) {
    const acts = [...this.#acts];
    this.#acts.clear();
    for (const [timer, act] of acts) {
      clearTimeout(timer);
      if (now) act();
    }
  }
}
