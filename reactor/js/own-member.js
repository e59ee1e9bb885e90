/**
 * The client's own member of a room: what the server is known to have of it, and the changes that it has not acknowledged.
 *
 * The two are kept apart, so that a refused change leaves no trace, and a return neither repeats what was acknowledged nor
 * reverts what another device of the user has changed.
 */
import { OutgoingChanges } from "./outgoing.js";
import { applyPatch, joinPatches } from "./patch.js";

/**
 * @typedef {{username?: string, data?: any, patch?: any}} Fields
 * @typedef {{send: (request: any, callback: (error: any) => void, lost: () => void) => boolean, defer: (call: () => void, error: any) => void}} Wire
 */

export class OwnMember {
  /** The name and data that the server is known to have. @type {Fields} */
  confirmed = {};
  /** Whether the server knows the member as away on this connection. */
  #confirmedAway = false;
  #updates;
  #awayChanges;

  /** @param {Wire} wire */
  constructor(wire) {
    this.#updates = new OutgoingChanges({
      ...wire,
      send: (fields, ...answer) => wire.send({ type: "room:update", ...fields }, ...answer),
      merge: mergeFields,
      // A patch of data that is not known is applied to none.
      acknowledged: ({ patch, ...fields }) => {
        this.confirmed = { ...this.confirmed, ...fields };
        if (patch !== undefined) this.confirmed.data = applyPatch(this.confirmed.data, patch);
      },
    });
    this.#awayChanges = new OutgoingChanges({
      ...wire,
      send: ({ away }, ...answer) => wire.send({ type: away ? "room:away" : "room:back" }, ...answer),
      merge: (_, later) => later,
      acknowledged: ({ away }) => (this.#confirmedAway = away),
    });
  }

  /** Whether the application wants it to be away. */
  get isAway() {
    return this.#awayChanges.last?.away ?? this.#confirmedAway;
  }

  /** Whether changes of name or data wait for an answer. */
  get changes() {
    return this.#updates.last !== undefined;
  }

  /** @param {Fields} fields @param {boolean} [first] as of `OutgoingChanges.push` */
  update(fields, first) {
    return this.#updates.push(fields, first);
  }

  /** @param {boolean} away */
  setAway(away) {
    return this.#awayChanges.push({ away });
  }

  /** On a new connection no member is away. */
  repeatAway() {
    if (this.isAway && !this.#awayChanges.last) this.setAway(true);
  }

  flush() {
    this.#awayChanges.flush();
    this.#updates.flush();
  }

  /** The connection is lost, and with it the requests under way. */
  lost() {
    this.#awayChanges.lost();
    this.#updates.lost();
  }

  /** @param {Error} error rejects all changes */
  end(error) {
    this.#awayChanges.end(error);
    this.#updates.end(error);
  }
}

/**
 * One change with the effect of two; undefined if there is none.
 *
 * @param {Fields} former @param {Fields} later @returns {Fields | undefined}
 */
function mergeFields(former, { patch, ...later }) {
  const merged = { ...former, ...later };
  if ("data" in later) delete merged.patch;
  if (patch === undefined) return merged;
  if ("data" in merged) return { ...merged, data: applyPatch(merged.data, patch) };
  const joined = former.patch === undefined ? patch : joinPatches(former.patch, patch);
  return joined && { ...merged, patch: joined };
}
