/** Reports to a room that its member is away while the page is hidden. */
import { startTimer } from "./clock.js";

/**
 * How long (ms) a page is hidden before its member is away: longer than a reload and a glance at another tab, and short
 * enough that the browser of a phone, which stops the timers of a page in the background after some seconds, reports it.
 */
export const AWAY_AFTER = 3000;

/** @typedef {import("./options.js").Watch} Watch */

/**
 * Watches the page. Without a page nothing is ever hidden.
 *
 * @type {Watch}
 */
export function watchPage(report, _wake, awayAfter = AWAY_AFTER) {
  const { document } = globalThis;
  if (!document?.addEventListener) return () => {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  // The client closes its connection when the page is left, be it for the back/forward cache: there is nothing to report.
  let left = false;
  const onVisibility = () => {
    clearTimeout(timer);
    if (document.visibilityState !== "hidden") report(false);
    else if (!left) timer = startTimer(() => report(true), awayAfter);
  };
  const freeze = () => {
    clearTimeout(timer);
    if (!left) report(true);
  };
  const turnTo = (/** @type {boolean} */ leaving) => () => {
    left = leaving;
    onVisibility();
  };
  const cleanups = [
    listen(document, "visibilitychange", onVisibility),
    // A frozen page runs no timers.
    listen(document, "freeze", freeze),
    listen(globalThis, "pagehide", turnTo(true)),
    listen(globalThis, "pageshow", turnTo(false)),
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
 * @param {number} [awayAfter] ms
 * @returns {() => void} stops following
 */
export function followVisibility(room, watch, wake, awayAfter) {
  let away = false;
  return watch((hidden) => {
    if (hidden === away || (hidden && room.isAway)) return;
    away = hidden;
    // It is refused only if the room has ended.
    (hidden ? room.away() : room.back()).catch(() => {});
  }, wake, awayAfter);
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
