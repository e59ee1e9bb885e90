// Helpers to find and create elements and to format values. Text is set as text, never as markup.

export const byId = (id) => document.getElementById(id);
export const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** @param {number} ms since 1970 @returns {string} as in "14:03:59" */
export const timeOfDay = (ms) => new Date(ms).toLocaleTimeString([], { hourCycle: "h23" });

export function row(...cells) {
  const created = document.createElement("tr");
  created.append(...cells);
  return created;
}

export const number = (text) => element("td", text, "number");

export function element(name, text, kind = "") {
  const created = document.createElement(name);
  created.textContent = text;
  if (kind) created.className = kind;
  return created;
}

export const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");
