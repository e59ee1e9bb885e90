/** Named events, with nothing from the platform: React Native has no EventTarget. */
export class Emitter {
  /** @type {Map<string, Set<{hear: (detail: any) => void}>>} */
  #listeners = new Map();

  /**
   * Call `hear` at each such event.
   *
   * @param {string} event
   * @param {(detail: any) => void} hear
   * @returns {() => void} stops it
   */
  on(event, hear) {
    const listener = { hear };
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return () => {
      listeners.delete(listener);
    };
  }

  /** @param {string} event @param {any} [detail] */
  emit(event, detail) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        listener.hear(detail);
      } catch (error) {
        // Reported as the platform reports what nobody catches; the others hear the event all the same.
        Promise.reject(error);
      }
    }
  }
}
