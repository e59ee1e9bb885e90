const NEWS = ["online", "offline", "pageshow", "visibilitychange"];

/**
 * Have `hear` called, or not any more, when a page may have slept or its network be another one: hidden pages have
 * their timers late, and a lost network shows itself only to who speaks. Where there is no page nothing happens.
 *
 * @param {"addEventListener" | "removeEventListener"} how
 * @param {() => void} hear
 */
export function news(how, hear) {
  for (const name of NEWS) globalThis[how]?.(name, hear);
}
