/** Named events, with nothing from the platform: React Native has no EventTarget. */
export class Emitter {
  /** @type {{event: string, hear: (detail: any) => void}[]} */
  #listeners = [];

  /**
   * Call `hear` at each such event.
   *
   * @param {string} event
   * @param {(detail: any) => void} hear
   * @returns {() => void} stops it
   */
  on(event, hear) {
    const listener = { event, hear };
    this.#listeners = [...this.#listeners, listener];
    return () => {
      this.#listeners = this.#listeners.filter((other) => other !== listener);
    };
  }

  /** @param {string} event @param {any} [detail] */
  emit(event, detail) {
    for (const listener of this.#listeners) {
      try {
        if (listener.event === event) listener.hear(detail);
      } catch (error) {
        // The others hear the event all the same.
        console.error(error);
      }
    }
  }
}
