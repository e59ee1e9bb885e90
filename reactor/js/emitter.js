/** Named events, without the platform's EventTarget, which React Native does not have. */
export class Emitter {
  /** @type {[string, (detail: any) => void][]} */
  #listeners = [];
  #events;

  /** @param {string[]} events their names */
  constructor(events) {
    this.#events = events;
  }

  /**
   * Call `listener` at each such event.
   *
   * @param {string} event
   * @param {(detail: any) => void} listener
   * @returns {() => void} removes the listener
   */
  on(event, listener) {
    if (!this.#events.includes(event)) throw new TypeError(`no event "${event}": there are ${this.#events.join(", ")}`);
    if (typeof listener !== "function") throw new TypeError(`on("${event}"): a function is needed, not ${typeof listener}`);
    /** @type {[string, (detail: any) => void]} */
    const entry = [event, listener];
    this.#listeners = [...this.#listeners, entry];
    return () => {
      this.#listeners = this.#listeners.filter((other) => other !== entry);
      entry[1] = () => {}; // for an event that is being emitted
    };
  }

  /** @param {string} event @param {any} [detail] */
  emit(event, detail) {
    for (const [name, listener] of this.#listeners) {
      try {
        if (name === event) listener(detail);
      } catch (error) {
        // The remaining listeners are still called.
        console.error(error);
      }
    }
  }
}
