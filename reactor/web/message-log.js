/** The drawer with the last WebSocket messages, to read and to copy. */
import { byId, element, timeOfDay } from "./dom.js";

const MAX_MESSAGES = 200;
const ARROW = { sent: "↑", received: "↓" };

export class MessageLog {
  #frames = [];
  #total = 0;
  #list = byId("wire-list");
  #drawer = byId("wire");

  constructor() {
    this.#drawer.addEventListener("toggle", () => this.#renderAll());
    byId("wire-clear").addEventListener("click", () => {
      this.#frames = [];
      this.#total = 0;
      this.#renderAll();
    });
    byId("wire-copy").addEventListener("click", (event) => this.#copy(event.currentTarget));
  }

  /** @param {{direction: "sent" | "received", text: string}} frame */
  add({ direction, text }) {
    const frame = { direction, text, time: timeOfDay() };
    this.#frames.push(frame);
    this.#total += 1;
    if (this.#frames.length > MAX_MESSAGES) this.#frames.shift();
    byId("wire-count").textContent = String(this.#total);
    // Rows are rendered only while the drawer is open.
    if (!this.#drawer.open) return;
    this.#list.prepend(this.#row(frame));
    if (this.#list.childElementCount > MAX_MESSAGES) this.#list.lastElementChild.remove();
  }

  #renderAll() {
    byId("wire-count").textContent = String(this.#total);
    const rows = this.#drawer.open ? this.#frames.map((frame) => this.#row(frame)).reverse() : [];
    this.#list.replaceChildren(...rows);
  }

  #row({ direction, text, time }) {
    const arrow = element("span", "arrow", ARROW[direction]);
    arrow.setAttribute("aria-hidden", "true");
    const row = element("li", "", element("time", "", time), arrow, element("span", "unseen", direction), element("code", "", text));
    row.dataset.direction = direction;
    return row;
  }

  async #copy(button) {
    const text = this.#frames.map((frame) => `${frame.time} ${ARROW[frame.direction]} ${frame.text}`).join("\n");
    const result = (await copyText(text)) ? "Copied" : "Not copied";
    button.textContent = result;
    setTimeout(() => (button.textContent = "Copy all"), 1500);
  }
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // The clipboard API is missing on plain HTTP from another machine.
    const area = element("textarea", "unseen");
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}
