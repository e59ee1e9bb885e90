/**
 * What an application passes to be sent: checked and copied before anything else is done with it.
 *
 * A value that JSON cannot hold is refused, also where JSON.stringify would change it silently. The copy is of plain
 * values, so the application may go on changing its own.
 */
import { ReactorError } from "./error.js";

/** The server's limit of nested lists and objects; an object that contains itself exceeds it too. */
const MAX_DEPTH = 32;
/** With the flag "u" a pair of surrogates is one character, so this finds halves of pairs. */
const HALF_PAIR = /[\ud800-\udfff]/u;
const NAME = /^[a-z_$][\w$]*$/i;

/**
 * @typedef {{message: number, data: number, id: number}} Limits of the server, in bytes
 */

/** @param {string} path @param {string} problem @returns {never} */
export function refuse(path, problem) {
  throw new ReactorError("bad_request", `${path}: ${problem}`);
}

/** @param {unknown} value @returns {string} such as "Object", "Map" or "Date", also of another frame */
const kindOf = (value) => Object.prototype.toString.call(value).slice(8, -1);

/** A value in the sentence of an error; also one that cannot be converted to text. @param {unknown} value @returns {string} */
export function shown(value) {
  try {
    return String(value);
  } catch {
    return `an ${typeof value}`;
  }
}

/** @param {unknown} options @param {string} example */
export function checkOptions(options, example) {
  if (kindOf(options) !== "Object") refuse("options", `an object is needed, as in ${example}, not ${shown(options)}`);
}

/** @param {string} path @param {string} text */
function checkText(path, text) {
  return HALF_PAIR.test(text) ? refuse(path, "half a surrogate pair cannot be sent: cut text between characters") : text;
}

/** @param {string} path @param {number} number */
function checkedNumber(path, number) {
  if (!Number.isFinite(number)) refuse(path, `${number} cannot be sent: use null`);
  // JSON has the larger ones with an exponent.
  if (number % 1 === 0 && (number >= 2 ** 64 || number <= -(2 ** 63)) && Math.abs(number) < 1e21) refuse(path, "more than 64 bits cannot be sent: use text");
  return number;
}

/** @param {string} path @param {number} size @param {number} [limit] */
function checkSize(path, size, limit = Infinity) {
  if (size > limit) throw new ReactorError("too_big", `${path}: ${size} bytes, the server accepts ${limit}: send less`);
}

/** @param {string} text without halves of pairs @returns {number} its bytes in UTF-8 */
export const byteLength = (text) => encodeURI(text).replace(/%../g, "_").length;

/**
 * A copy of a value as JSON holds it.
 *
 * @param {any} value @param {string} path what to call it in an error, which goes on to the part at fault: `data.list[3]`
 * @param {number} [depth]
 * @returns {any}
 */
export function jsonCopy(value, path, depth = 0) {
  try {
    if (kindOf(value) === "Date" && Number.isNaN(+value)) refuse(path, "an invalid date cannot be sent");
    // As JSON.stringify does: a date becomes text.
    if (typeof value?.toJSON === "function") value = value.toJSON("");
    if (value === null || typeof value === "boolean") return value;
    if (typeof value === "string") return checkText(path, value);
    if (typeof value === "number") return checkedNumber(path, value);
    if (typeof value !== "object") refuse(path, value === undefined ? "undefined cannot be sent: use null, or leave it out" : `a ${typeof value} cannot be sent`);
    if (depth === MAX_DEPTH) refuse(path, `nested deeper than ${MAX_DEPTH} levels, or contains itself`);
    if (Array.isArray(value)) return Array.from(value, (item, index) => jsonCopy(item, `${path}[${index}]`, depth + 1));
    const kind = kindOf(value);
    if (kind !== "Object") refuse(path, `a ${kind} cannot be sent: use an object or an array`);
    const symbol = Object.getOwnPropertySymbols(value).find((key) => Object.getOwnPropertyDescriptor(value, key)?.enumerable);
    if (symbol) refuse(path, `the key ${shown(symbol)} cannot be sent: use text`);
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => {
        const inner = NAME.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`;
        return [checkText(inner, key), jsonCopy(item, inner, depth + 1)];
      }),
    );
  } catch (error) {
    // A getter, a proxy or a toJSON failed.
    throw error instanceof ReactorError ? error : refuse(path, `it cannot be read: ${shown(error)}`);
  }
}

/**
 * An id as text.
 *
 * @param {string} name @param {unknown} id @param {Partial<Limits>} limits @returns {string}
 */
export function checkedId(name, id, limits) {
  if (typeof id !== "string" && !Number.isSafeInteger(id)) refuse(name, `text or a whole number is needed, not ${shown(id)}`);
  const text = checkText(name, String(id));
  checkSize(name, byteLength(text), limits.id);
  return text;
}

/**
 * A copy of data.
 *
 * @param {string} name @param {unknown} data @param {Partial<Limits>} limits @returns {any}
 */
export function checkedData(name, data, limits) {
  const copy = jsonCopy(data, name);
  checkSize(name, byteLength(JSON.stringify(copy)), limits.data);
  return copy;
}

/**
 * A member's name, and its data or a patch of it; those that are given.
 *
 * @param {{username?: unknown, data?: unknown, patch?: unknown}} given @param {Partial<Limits>} limits
 * @returns {{username?: string, data?: any, patch?: any}}
 */
export function checkedFields({ username, data, patch }, limits) {
  /** @type {{username?: string, data?: any, patch?: any}} */
  const fields = {};
  if (username !== undefined) {
    if (typeof username !== "string") refuse("username", `text is needed, not ${typeof username}`);
    fields.username = checkedId("username", username, limits);
  }
  if (data !== undefined) fields.data = checkedData("data", data, limits);
  if (patch !== undefined) {
    if (kindOf(patch) !== "Object") refuse("patch", "an object is needed");
    fields.patch = checkedData("patch", patch, limits);
  }
  return fields;
}
