/** Whether anybody can see the page, for telling a room that its member is away. */

/**
 * How long (ms) a page stays hidden before its member is away. A page that is loaded anew hides as well, for less, and
 * nobody should notice.
 */
export const AWAY_AFTER = 1000;

/** @typedef {import("./react.js").Watch} Watch */

/**
 * The page. Where there is none, nothing is ever hidden.
 *
 * @type {Watch}
 */
export function watchPage(tell) {
  const { document } = globalThis;
  if (!document?.addEventListener) return () => {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const look = () => {
    clearTimeout(timer);
    if (document.visibilityState !== "hidden") tell(false);
    else timer = setTimeout(() => tell(true), AWAY_AFTER);
  };
  const freeze = () => {
    clearTimeout(timer);
    tell(true);
  };
  const stops = [
    listen(document, "visibilitychange", look),
    listen(document, "freeze", freeze),
    // A page that is kept to be shown again runs no timers; one that is unloaded is gone, which the grace is for.
    listen(globalThis, "pagehide", ({ persisted }) => persisted && freeze()),
    listen(globalThis, "pageshow", look),
  ];
  look();
  return () => {
    clearTimeout(timer);
    for (const stop of stops) stop();
  };
}

/**
 * Have a member be away while nobody can see the page. Who is away on purpose stays so.
 *
 * @param {import("./index.js").Room} room
 * @param {Watch} watch
 * @param {() => void} wake
 * @returns {() => void} stops it
 */
export function followVisibility(room, watch, wake) {
  let away = false;
  return watch((hidden) => {
    if (hidden === away || (hidden && room.isAway)) return;
    away = hidden;
    // Refused only where the room is over.
    (hidden ? room.away() : room.back()).catch(() => {});
  }, wake);
}

/**
 * @param {any} target
 * @param {string} name
 * @param {(event: any) => void} hear
 * @returns {() => void}
 */
function listen(target, name, hear) {
  target.addEventListener?.(name, hear);
  return () => target.removeEventListener?.(name, hear);
}
