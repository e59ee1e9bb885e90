// The members of one room, as of a moment: a large room is listed only when the operator asks for it.

import { byId, element, number, row, sentence, timeOfDay, whole } from "./dom.js";

const PAGE = 100;

export class RoomPanel {
  #ask;
  #roomId = "";
  #cursor = "";

  /** @param {(path: string) => Promise<any>} ask requests the API */
  constructor(ask) {
    this.#ask = ask;
    byId("room-refresh").addEventListener("click", () => this.open(this.#roomId));
    byId("room-close").addEventListener("click", () => this.close());
    byId("room-more").addEventListener("click", () => this.#load(this.#cursor));
  }

  /** @param {string} roomId */
  async open(roomId) {
    this.#roomId = roomId;
    await this.#load("");
    byId("room").scrollIntoView({ block: "nearest" });
    byId("room-title").focus({ preventScroll: true });
  }

  close() {
    this.#roomId = "";
    byId("room").hidden = true;
    byId("room-members").replaceChildren();
  }

  /** @param {string} cursor of the page before; empty for the first one */
  async #load(cursor) {
    const roomId = this.#roomId;
    byId("room").hidden = false;
    byId("room-title").textContent = roomId;
    try {
      const page = await this.#ask(`v1/rooms/${encodeURIComponent(roomId)}/members?limit=${PAGE}&cursor=${cursor}`);
      if (roomId === this.#roomId) this.#show(page, cursor);
    } catch (error) {
      byId("room-error").textContent = sentence(error.message);
      byId("room-error").hidden = false;
    }
  }

  #show({ count, members, cursor }, former) {
    if (!former) byId("room-members").replaceChildren();
    byId("room-members").append(...members.map(memberRow));
    this.#cursor = cursor ?? "";
    byId("room-error").hidden = true;
    byId("room-more").hidden = !cursor;
    byId("no-members").hidden = count > 0;
    byId("room-scroll").hidden = count === 0;
    byId("room-as-of").textContent = `${whole.format(count)} ${count === 1 ? "member" : "members"} as of ${timeOfDay(Date.now())}`;
  }
}

function memberRow({ userId, username, away, joinedAt, lastActiveAt, connections }) {
  const name = element("td", username);
  name.dir = "auto";
  const id = element("td", userId, "mono");
  id.dir = "auto";
  return row(
    name, id, element("td", away ? "away" : "here"), element("td", timeOfDay(joinedAt)), element("td", timeOfDay(lastActiveAt)),
    number(whole.format(connections)),
  );
}
