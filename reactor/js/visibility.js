/** Reports to a room that its member is away while the page is hidden. */

/**
 * How long (ms) a page is hidden before its member is away. A page that is reloaded is hidden too, for less than that,
 * which must not be reported.
 */
export const AWAY_AFTER = 1000;

/** @typedef {import("./react.js").Watch} Watch */

/**
 * Watches the page. Without a page nothing is ever hidden.
 *
 * @type {Watch}
 */
export function watchPage(report) {
  const { document } = globalThis;
  if (!document?.addEventListener) return () => {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const onVisibility = () => {
    clearTimeout(timer);
    if (document.visibilityState !== "hidden") report(false);
    else timer = setTimeout(() => report(true), AWAY_AFTER);
  };
  const freeze = () => {
    clearTimeout(timer);
    report(true);
  };
  const cleanups = [
    listen(document, "visibilitychange", onVisibility),
    listen(document, "freeze", freeze),
    // A page in the back/forward cache runs no timers; an unloaded page is removed after the disconnect grace.
    listen(globalThis, "pagehide", ({ persisted }) => persisted && freeze()),
    listen(globalThis, "pageshow", onVisibility),
  ];
  onVisibility();
  return () => {
    clearTimeout(timer);
    for (const cleanup of cleanups) cleanup();
  };
}

/**
 * Set a member away while the page is hidden. An away state that the application set is kept.
 *
 * @param {import("./index.js").Room} room
 * @param {Watch} watch
 * @param {() => void} wake
 * @returns {() => void} stops following
 */
export function followVisibility(room, watch, wake) {
  let away = false;
  return watch((hidden) => {
    if (hidden === away || (hidden && room.isAway)) return;
    away = hidden;
    // It is refused only if the room has ended.
    (hidden ? room.away() : room.back()).catch(() => {});
  }, wake);
}

/**
 * @param {any} target
 * @param {string} name
 * @param {(event: any) => void} listener
 * @returns {() => void}
 */
function listen(target, name, listener) {
  target.addEventListener?.(name, listener);
  return () => target.removeEventListener?.(name, listener);
}
