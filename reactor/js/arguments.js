/** Checks what components pass, so that a mistake is named in their own words, where it was made. */
import { ReactorClient } from "./index.js";

const VIEWS = ["members", "count", "none"];

/** @param {unknown} value */
const isNumber = (value) => typeof value === "number" && value >= 0;
/** @param {unknown} value */
const isFunction = (value) => typeof value === "function";

/** What each option takes, and whether a value is that. @type {Record<string, [string, (value: any) => boolean]>} */
const OPTIONS = {
  url: ["an address, as in wss://example.org/ws", (value) => typeof value === "string"],
  token: ["a token, or a function that returns one: pass the function itself, without calling it",
    (value) => typeof value === "string" || isFunction(value)],
  client: ["a ReactorClient; an address is `url`", (value) => value instanceof ReactorClient],
  username: ["a name, as text", (value) => typeof value === "string" && value.trim() !== ""],
  view: [VIEWS.map((view) => `"${view}"`).join(" or "), (value) => VIEWS.includes(value)],
  linger: ["a number of milliseconds", isNumber],
  throttle: ["a number of milliseconds", isNumber],
  awayAfter: ["a number of milliseconds", isNumber],
  watch: ["a function, or null", isFunction],
  onForceLeave: ["a function; the options come after it", isFunction],
  listener: ["a function", isFunction],
};

/**
 * Check the options of a server, a hook or a composable; undefined and null are not given.
 *
 * @param {string} caller the public name of what was called
 * @param {any} options
 */
export function checkOptions(caller, options) {
  if (typeof options !== "object") throw new TypeError(`${caller}: options are an object, as in { url }; they are ${shown(options)}.`);
  for (const [name, value] of Object.entries(options)) {
    const [takes, isValid] = OPTIONS[name] ?? [];
    if ((value != null || name === "listener") && isValid && !isValid(value)) {
      throw new TypeError(`${caller}: \`${name}\` takes ${takes}; it is ${shown(value)}.`);
    }
  }
  if (options.client && (options.url || options.token)) {
    throw new TypeError(`${caller}: \`client\` has its own address and token; pass \`url\` and \`token\` where it is created.`);
  }
}

/**
 * @param {string} caller
 * @param {string} name "roomId" or "userId"
 * @param {unknown} id
 */
export function checkId(caller, name, id) {
  if (id == null || typeof id === "string" || Number.isInteger(id)) return;
  throw new TypeError(`${caller}: \`${name}\` takes text or a whole number; it is ${shown(id)}.`);
}

/**
 * Several user ids as text, without those that are not known yet.
 *
 * @param {string} caller @param {unknown} userIds @returns {string[]}
 */
export function checkedIds(caller, userIds) {
  if (userIds != null && !Array.isArray(userIds)) throw new TypeError(`${caller}: \`userIds\` takes a list of ids; it is ${shown(userIds)}.`);
  const ids = userIds ?? [];
  for (const id of ids) checkId(caller, "userId", id);
  return ids.map(idText).filter(Boolean);
}

/** @param {import("./options.js").Id} id @returns {string} empty while it is not known */
export const idText = (id) => String(id ?? "");

/** @param {unknown} value */
function shown(value) {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 50));
  if (value == null) return "missing";
  if (value instanceof Promise) return "a promise";
  return typeof value === "object" ? "an object" : typeof value === "function" ? "a function" : String(value);
}
