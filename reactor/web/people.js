/** The list of who is here: one row a member, which comes in, changes, and goes with its reason. */
import { byId, element } from "./dom.js";

/** How long (ms) a row stays to say why its member is gone. */
const LINGER = 2600;

const GONE = {
  left: "left",
  disconnected: "connection lost",
  inactivity_timeout: "silent for too long",
  kicked: "removed",
};

const segments = globalThis.Intl?.Segmenter ? new Intl.Segmenter() : null;

function firstCharacter(word) {
  // A flag or a family is one character to a reader, and many to a string.
  return segments ? (segments.segment(word)[Symbol.iterator]().next().value?.segment ?? "") : ([...word][0] ?? "");
}

/** @param {string} name @returns {string} one or two initials */
export function initials(name) {
  const words = name.trim().split(/\s+/u);
  const chosen = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return chosen.map(firstCharacter).join("").toLocaleUpperCase();
}

/** @param {string} userId @returns {number} a hue that this user has everywhere, in degrees */
export function hueOf(userId) {
  let hash = 2166136261; // FNV-1a
  for (const character of userId) hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  return ((hash >>> 8) % 24) * 15;
}

/** @param {{userId: string, username: string}} member */
export function avatar({ userId, username }, className = "avatar") {
  const made = element("span", className, initials(username));
  made.style.setProperty("--hue", String(hueOf(userId)));
  made.setAttribute("aria-hidden", "true");
  return made;
}

/** @param {string} text @param {string} [className] a name as somebody else wrote it, in any direction */
export const nameOf = (text, className = "name") => element("bdi", className, text);

export class People {
  #list = byId("people");
  #hint = byId("people-hint");
  /** @type {Map<string, HTMLElement>} */
  #rows = new Map();
  /** @type {Map<string, HTMLElement>} of those gone, while they say why */
  #going = new Map();
  #userId = "";

  /** Show a room anew, without any motion. @param {import("../js/index.js").Room} room */
  reset(room) {
    this.#userId = room.userId;
    this.#rows.clear();
    this.#list.replaceChildren(...this.#ordered(room.members.values()).map((member) => this.#make(member)));
    this.hint(room);
  }

  /** Show what changed. @param {import("../js/index.js").Room} room @param {import("../js/index.js").RoomEvent[]} events */
  change(room, events) {
    for (const { kind, member, reason } of events) {
      if (kind === "leave") this.#goes(member.userId, reason);
      if (kind === "join") this.#comes(member);
      const row = kind === "update" && this.#rows.get(member.userId);
      if (row) this.#fill(row, member);
    }
    this.hint(room);
  }

  hint(room) {
    this.#list.classList.toggle("stale", room.status === "reconnecting");
    let text = "";
    if (room.view !== "members") text = "This room is too big to be served by name: you see its count.";
    else if (room.count === 1 && room.members.size === 1) text = "You are alone here. Open another tab to see somebody come in.";
    this.#hint.textContent = text;
    this.#hint.hidden = !text;
  }

  #ordered(members) {
    return [...members].sort(
      (a, b) => (b.userId === this.#userId) - (a.userId === this.#userId) || a.joinedAt - b.joinedAt,
    );
  }

  #make(member) {
    const row = element("li", "person");
    row.dataset.user = member.userId;
    this.#rows.set(member.userId, row);
    this.#fill(row, member);
    return row;
  }

  #fill(row, member) {
    const { userId, username, away, connections, joinedAt, data } = member;
    row.dataset.state = away ? "away" : "here";
    const name = nameOf(username);
    name.title = userId;
    const tags = element("span", "tags");
    if (userId === this.#userId) tags.append(element("span", "tag you-tag", "you"));
    if (connections > 1) tags.append(element("span", "tag", `${connections} connections`));
    const since = new Date(joinedAt).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const state = element("span", "state", away ? "away" : "here");
    const detail = element("span", "detail", state, element("span", "soft", ` since ${since}`));
    if (away) detail.lastChild.textContent = ` · joined ${since}`;
    const text = element("span", "person-text", element("span", "person-name", name, tags), detail);
    if (data !== undefined) text.append(element("code", "data", JSON.stringify(data)));
    row.replaceChildren(element("span", "face", avatar(member), element("span", "dot")), text);
  }

  #comes(member) {
    const row = this.#make(member);
    row.classList.add("comes");
    this.#going.get(member.userId)?.remove();
    this.#list.append(row);
  }

  #goes(userId, reason) {
    const row = this.#rows.get(userId);
    if (!row) return;
    this.#rows.delete(userId);
    row.dataset.state = "gone";
    delete row.dataset.user;
    row.classList.remove("comes");
    row.classList.add("goes");
    row.querySelector(".detail").replaceChildren(element("span", "state", GONE[reason] ?? "gone"));
    this.#going.set(userId, row);
    setTimeout(() => {
      row.remove();
      if (this.#going.get(userId) === row) this.#going.delete(userId);
    }, LINGER);
  }
}
