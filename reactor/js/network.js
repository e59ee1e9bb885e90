const EVENTS = ["online", "offline", "pageshow", "visibilitychange"];

/**
 * Add or remove a listener for the events after which a page may have slept or have another network: timers of a hidden
 * page are delayed, and a lost network is noticed only by sending. Without a page it does nothing.
 *
 * @param {"addEventListener" | "removeEventListener"} method
 * @param {() => void} listener
 */
export function watchNetwork(method, listener) {
  for (const name of EVENTS) globalThis[method]?.(name, listener);
}
