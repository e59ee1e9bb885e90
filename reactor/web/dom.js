/** Helpers to find and create elements and to format times. Text is set as text, never as markup. */

/** @param {string} id @returns {any} the element with this id */
export const byId = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {string} className
 * @param {...(Node | string)} children
 */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** @param {number} ms @returns {string} as in "6 h", "10 min", "1 min 30 s" */
export function duration(ms) {
  const seconds = ms / 1000;
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  const parts = [
    [Math.floor(seconds / 3600), "h"],
    [Math.floor((seconds % 3600) / 60), "min"],
    [Math.round(seconds % 60), "s"],
  ];
  return parts.filter(([amount]) => amount > 0).slice(0, 2).map(([amount, unit]) => `${amount} ${unit}`).join(" ");
}

/** @param {number} ms @returns {string} as in "0:07", "5:59:59" */
export function clock(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** @param {Date} [date] @returns {string} as in "14:03:59" */
export const timeOfDay = (date = new Date()) => date.toLocaleTimeString([], { hourCycle: "h23" });
