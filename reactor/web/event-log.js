/** The log of events in the room, and of the page's own connection. */
import { byId, element, timeOfDay } from "./dom.js";
import { avatar, nameElement, nameOf } from "./member-list.js";

const MAX_ENTRIES = 200;

const LEAVE_SENTENCES = {
  left: "left",
  disconnected: "lost the connection and did not return within the grace",
  inactivity_timeout: "expired without a heartbeat",
  kicked: "was removed",
  banned: "was banned",
};

export class EventLog {
  #list = byId("log");

  /** Add a sentence about this client. @param {string} sentence @param {string} [code] as on the wire */
  addOwn(sentence, code) {
    this.#add(element("span", "own-dot"), [sentence], code);
  }

  /** Add events of the room. `userId` is this client's own user. */
  addEvents(events, before, userId) {
    for (const { kind, member, reason } of events) {
      const own = member?.userId === userId;
      if (kind === "leave" && !own) this.#addMember(member, LEAVE_SENTENCES[reason] ?? `was removed (${reason})`, reason === "left" ? undefined : reason);
      if (kind === "join" && !own) this.#addMember(member, "joined");
      if (kind !== "update") continue;
      for (const words of changes(before.get(member.userId), member, own)) this.#addMember(member, words, undefined, own);
    }
  }

  /** @param {{userId: string, username: string} | null} member null: the application @param {unknown} data */
  addMessage(member, data, own = false) {
    const text = element("q", "", typeof data === "string" ? data : JSON.stringify(data));
    if (!member) this.#add(element("span", "own-dot"), ["The application: ", text]);
    else this.#add(avatar(member, "avatar mini"), [own ? "You" : nameElement(nameOf(member)), ": ", text]);
  }

  #addMember(member, words, code, own = false) {
    const who = own ? "You" : nameElement(nameOf(member));
    this.#add(avatar(member, "avatar mini"), [who, ` ${words}`], code);
  }

  #add(face, words, code) {
    const sentence = element("span", "sentence", ...words);
    if (code) sentence.append(" ", element("code", "reason", code));
    this.#list.prepend(element("li", "", element("time", "", timeOfDay()), face, sentence));
    while (this.#list.childElementCount > MAX_ENTRIES) this.#list.lastElementChild.remove();
    byId("events").hidden = false;
  }
}

function changes(before, after, own) {
  if (!before) return [];
  const words = [];
  if (before.username !== after.username) words.push(`changed ${own ? "your" : "the"} name from “${before.username}”`);
  if (!before.away && after.away) words.push("stepped away");
  if (before.away && !after.away) words.push(own ? "are back" : "is back");
  if (before.connections < after.connections) words.push(`opened another connection, ${after.connections} now`);
  if (before.connections > after.connections) words.push(`closed a connection, ${after.connections} left`);
  if (JSON.stringify(before.data) !== JSON.stringify(after.data)) words.push("changed the data");
  return words;
}
