/** Changes of a part of an object, as RFC 7396 (JSON Merge Patch) describes them. */

/** @param {unknown} value */
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * @param {any} value @param {any} patch its fields replace those of the value, null removes one
 * @returns {any} the changed copy
 */
export function applyPatch(value, patch) {
  if (!isObject(patch)) return patch;
  // A Map, since assigning "__proto__" to an object would change its prototype.
  const fields = new Map(Object.entries(isObject(value) ? value : {}));
  for (const [name, change] of Object.entries(patch)) {
    if (change === null) fields.delete(name);
    else fields.set(name, applyPatch(fields.get(name), change));
  }
  return Object.fromEntries(fields);
}

/**
 * One patch with the effect of two.
 *
 * @param {any} former @param {any} later
 * @returns {any} undefined if there is none: a field that was replaced is then changed in part
 */
export function joinPatches(former, later) {
  const fields = new Map(Object.entries(former));
  for (const [name, change] of Object.entries(later)) {
    const earlier = fields.get(name);
    const joined = earlier === undefined || !isObject(change) ? change : isObject(earlier) && joinPatches(earlier, change);
    if (joined === false || joined === undefined) return undefined;
    fields.set(name, joined);
  }
  return Object.fromEntries(fields);
}
