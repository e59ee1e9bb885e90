/** After these a page may have slept or have another network: timers of a hidden page are late, and a lost network is
 * noticed only by sending. `pagehide` is the last that a page sees before it is closed or frozen. */
const PAGE_EVENTS = ["online", "offline", "pageshow", "visibilitychange", "resume", "pagehide"];

/**
 * Add or remove a listener for events of the page and its network. Without a page it does nothing.
 *
 * @param {"addEventListener" | "removeEventListener"} method
 * @param {(event: any) => void} listener
 */
export function watchNetwork(method, listener) {
  // `resume` does not bubble from the document, but is captured on its way there.
  for (const name of PAGE_EVENTS) globalThis[method]?.(name, listener, true);
}
