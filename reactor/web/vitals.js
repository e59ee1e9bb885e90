/** One's own signs of life: the TTL running down since the last acknowledged heartbeat, and each heartbeat. */
import { byId, clock, duration, element } from "./dom.js";

const BARS = 28;
const TALL = 100; // ms of round trip that fill a bar

function readable(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 9.95 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Vitals {
  #ring = byId("ring");
  #strip = byId("strip");
  #acknowledged = 0;

  reset() {
    this.#acknowledged = 0;
    this.#strip.replaceChildren();
    byId("beat-last").textContent = "–";
    byId("beat-hint").textContent = "No heartbeat yet";
  }

  /**
   * Show where the TTL stands.
   *
   * @param {import("../js/index.js").Room} room
   * @param {number} refreshedAt when it last began anew
   * @param {boolean} silent
   */
  tick(room, refreshedAt, silent) {
    const down = room.status === "reconnecting" || room.status === "connecting";
    const left = down ? 0 : Math.max(0, refreshedAt + room.ttl - Date.now());
    const share = room.ttl ? left / room.ttl : 0;
    const time = down ? "–" : clock(left);
    this.#ring.dataset.level = down ? "down" : share < 0.2 ? "low" : share < 0.5 ? "half" : "full";
    this.#ring.style.setProperty("--left", share.toFixed(4));
    this.#ring.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    this.#ring.setAttribute("aria-valuetext", down ? "the socket is down" : time);
    byId("ring-time").textContent = time;
    byId("ring-time").classList.toggle("long", time.length > 5);
    byId("ring-word").textContent = down ? "socket down" : silent ? "until you are out" : "left";
  }

  /** A heartbeat was acknowledged. @param {number} roundTrip in ms */
  beat(roundTrip) {
    this.#acknowledged += 1;
    const bar = element("span", "beat");
    const height = Math.min(1, Math.log1p(roundTrip) / Math.log1p(TALL));
    bar.style.setProperty("--height", height.toFixed(3));
    this.#strip.append(bar);
    if (this.#strip.childElementCount > BARS) this.#strip.firstElementChild.remove();
    byId("beat-last").textContent = readable(roundTrip);
    byId("beat-hint").textContent = `${this.#acknowledged} acknowledged`;
    if (still.matches) return;
    byId("ripple").animate(
      [{ opacity: 0.55, strokeWidth: "3px", transform: "scale(1)" }, { opacity: 0, strokeWidth: "1px", transform: "scale(1.14)" }],
      { duration: 900, easing: "cubic-bezier(.2,.6,.3,1)" },
    );
  }

  /** Say what silence will come to. @param {number} ttl in ms; 0 while heartbeats go on */
  silence(ttl) {
    const long = ttl > 10 * 60_000;
    byId("silent-hint").textContent = !ttl
      ? "Stops the heartbeats, until time is up."
      : long
        ? `Out in ${duration(ttl)}. Start the server with --ttl 30s to see it sooner.`
        : "At 0:00 the server puts you out.";
  }
}
