/** The list of members: one row for each, which appears, changes, and disappears with the reason of the departure. */
import { byId, element, timeOfDay } from "./dom.js";

/** How long (ms) the row of a departed member shows the reason. */
const LINGER = 2600;

const LEAVE_LABELS = {
  left: "left",
  disconnected: "connection lost",
  inactivity_timeout: "expired",
  kicked: "removed",
  banned: "banned",
};

const segments = globalThis.Intl?.Segmenter ? new Intl.Segmenter() : null;

function firstCharacter(word) {
  // Emoji such as flags are one character to a reader, and several code points in a string.
  return segments ? (segments.segment(word)[Symbol.iterator]().next().value?.segment ?? "") : ([...word][0] ?? "");
}

/** @param {string} name @returns {string} one or two initials */
export function initials(name) {
  const words = name.trim().split(/\s+/u);
  const chosen = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return chosen.map(firstCharacter).join("").toLocaleUpperCase();
}

/** @param {string} userId @returns {number} the user's hue in degrees, the same in every browser */
export function hueOf(userId) {
  let hash = 2166136261; // FNV-1a
  for (const character of userId) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  return ((hash >>> 8) % 24) * 15;
}

/** @param {{userId: string, username: string}} member @returns {string} the name, if it is more than blanks */
export const nameOf = ({ userId, username }) => (username.trim() ? username : userId);

/** @param {{userId: string, username: string}} member */
export function avatar(member, className = "avatar") {
  const { userId } = member;
  const made = element("span", className, initials(nameOf(member)));
  made.style.setProperty("--hue", String(hueOf(userId)));
  made.setAttribute("aria-hidden", "true");
  return made;
}

/** @param {string} text a name, in any writing direction @param {string} [className] */
export const nameElement = (text, className = "name") => element("bdi", className, text);

export class MemberList {
  #list = byId("members");
  #hint = byId("members-hint");
  #asOf = byId("members-as-of");
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();
  /** @type {Map<string, HTMLElement>} rows of departed members, while they show the reason */
  #leaving = new Map();
  #userId = "";

  /** Render the whole list, without animation. @param {import("../js/index.js").Room} room */
  reset(room) {
    this.#userId = room.userId;
    this.#rows.clear();
    this.#list.replaceChildren(...this.#ordered(room.members.values()).map((member) => this.#make(member)));
    this.hint(room);
  }

  /** Apply events to the list. @param {import("../js/index.js").Room} room @param {import("../js/index.js").RoomEvent[]} events */
  change(room, events) {
    for (const { kind, member, reason } of events) {
      if (kind === "leave") this.#removeRow(member.userId, reason);
      if (kind === "join") this.#addRow(member);
      const row = kind === "update" && this.#rows.get(member.userId);
      if (row) this.#fill(row, member);
    }
    this.hint(room);
  }

  /**
   * Say what the list does not show by itself.
   *
   * @param {import("../js/index.js").Room} room
   * @param {number} [asOf] when the last message arrived (ms since 1970), if the list may be out of date
   */
  hint(room, asOf = 0) {
    this.#list.classList.toggle("stale", asOf > 0);
    this.#asOf.hidden = !asOf;
    this.#asOf.textContent = asOf ? `As of ${timeOfDay(new Date(asOf))}: who is here now is not known.` : "";
    let text = "";
    if (room.view !== "members") text = "Only the number of members is shown: you chose it, or the room has too many to list.";
    else if (room.count === 1 && room.members.size === 1) text = "You are the only member. Open another tab to see someone join.";
    this.#hint.textContent = text;
    this.#hint.hidden = !text;
  }

  #ordered(members) {
    return [...members].sort(
      (a, b) => (b.userId === this.#userId) - (a.userId === this.#userId) || a.joinedAt - b.joinedAt,
    );
  }

  #make(member) {
    const row = element("li", "member");
    row.dataset.user = member.userId;
    this.#rows.set(member.userId, row);
    this.#fill(row, member);
    return row;
  }

  #fill(row, member) {
    const { userId, away, connections, joinedAt, data } = member;
    row.dataset.state = away ? "away" : "here";
    const name = nameElement(nameOf(member));
    name.title = userId;
    const tags = element("span", "tags");
    if (userId === this.#userId) tags.append(element("span", "tag you-tag", "you"));
    if (connections > 1) tags.append(element("span", "tag", `${connections} connections`));
    const since = new Date(joinedAt).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const state = element("span", "state", away ? "away" : "here");
    const detail = element("span", "detail", state, element("span", "soft", ` since ${since}`));
    if (away) detail.lastChild.textContent = ` · joined ${since}`;
    const text = element("span", "member-text", element("span", "member-name", name, tags), detail);
    if (data !== undefined) text.append(element("code", "data", JSON.stringify(data)));
    row.replaceChildren(element("span", "face", avatar(member), element("span", "dot")), text);
  }

  #addRow(member) {
    const row = this.#make(member);
    row.classList.add("joining");
    this.#leaving.get(member.userId)?.remove();
    this.#list.append(row);
  }

  #removeRow(userId, reason) {
    const row = this.#rows.get(userId);
    if (!row) return;
    this.#rows.delete(userId);
    row.dataset.state = "left";
    delete row.dataset.user;
    row.classList.remove("joining");
    row.classList.add("leaving");
    row.querySelector(".detail").replaceChildren(element("span", "state", LEAVE_LABELS[reason] ?? "removed"));
    this.#leaving.set(userId, row);
    setTimeout(() => {
      row.remove();
      if (this.#leaving.get(userId) === row) this.#leaving.delete(userId);
    }, LINGER);
  }
}
