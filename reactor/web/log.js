/** The event log: what happened, when, in plain words. */
import { byId, element, timeOfDay } from "./dom.js";
import { avatar, nameOf } from "./people.js";

const MOST = 200;

const GONE = {
  left: "left",
  disconnected: "lost the connection and did not come back",
  inactivity_timeout: "was silent for too long",
  kicked: "was removed",
};

export class Log {
  #list = byId("log");

  /** Something about oneself or the connection. @param {string} sentence @param {string} [code] the wire's word */
  own(sentence, code) {
    this.#add(element("span", "own-dot"), [sentence], code);
  }

  /** Tell what happened in the room. `userId` is one's own. */
  tell(events, before, userId) {
    for (const { kind, member, reason } of events) {
      const own = member?.userId === userId;
      if (kind === "leave" && !own) this.#person(member, GONE[reason] ?? "is gone", reason === "left" ? undefined : reason);
      if (kind === "join" && !own) this.#person(member, "joined");
      if (kind !== "update") continue;
      for (const words of changes(before.get(member.userId), member, own)) this.#person(member, words, undefined, own);
    }
  }

  #person(member, words, code, own = false) {
    const who = own ? "You" : nameOf(member.username);
    this.#add(avatar(member, "avatar mini"), [who, ` ${words}`], code);
  }

  #add(face, words, code) {
    const sentence = element("span", "sentence", ...words);
    if (code) sentence.append(" ", element("code", "reason", code));
    this.#list.prepend(element("li", "", element("time", "", timeOfDay()), face, sentence));
    while (this.#list.childElementCount > MOST) this.#list.lastElementChild.remove();
    byId("happened").hidden = false;
  }
}

function changes(before, after, own) {
  if (!before) return [];
  const words = [];
  if (before.username !== after.username) words.push(`${own ? "were" : "was"} called “${before.username}” until now`);
  if (!before.away && after.away) words.push("stepped away");
  if (before.away && !after.away) words.push(own ? "are back" : "is back");
  if (before.connections < after.connections) words.push(`opened another connection, ${after.connections} now`);
  if (before.connections > after.connections) words.push(`closed a connection, ${after.connections} left`);
  if (JSON.stringify(before.data) !== JSON.stringify(after.data)) words.push("changed the data");
  return words;
}
