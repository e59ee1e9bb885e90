/**
 * Shows the time until expiry, counted from the last acknowledged heartbeat, and the time after which each heartbeat was
 * known to be stored in Redis: the server collects heartbeats for up to 100 ms and acknowledges them when Redis has them.
 */
import { byId, clock, duration, element } from "./dom.js";

const MAX_BARS = 28;
const FULL_BAR = 250; // ms

function formatTime(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 9.95 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export class HeartbeatPanel {
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
   * Show the time until expiry.
   *
   * @param {import("../js/index.js").Room} room
   * @param {number} refreshedAt when the TTL was last refreshed (ms since 1970)
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
    this.#ring.setAttribute("aria-valuetext", down ? "disconnected" : time);
    byId("ring-time").textContent = time;
    byId("ring-time").classList.toggle("long", time.length > 5);
    byId("ring-word").textContent = down ? "disconnected" : silent ? "until expiry" : "left";
  }

  /** Show an acknowledged heartbeat. @param {number} storedAfter ms from sending it to its acknowledgement */
  heartbeat(storedAfter) {
    this.#acknowledged += 1;
    const bar = element("span", "beat");
    const height = Math.min(1, Math.log1p(storedAfter) / Math.log1p(FULL_BAR));
    bar.style.setProperty("--height", height.toFixed(3));
    this.#strip.append(bar);
    if (this.#strip.childElementCount > MAX_BARS) this.#strip.firstElementChild.remove();
    byId("beat-last").textContent = formatTime(storedAfter);
    byId("beat-hint").textContent = `${this.#acknowledged} acknowledged`;
    if (reducedMotion.matches) return;
    byId("ripple").animate(
      [{ opacity: 0.55, strokeWidth: "3px", transform: "scale(1)" }, { opacity: 0, strokeWidth: "1px", transform: "scale(1.14)" }],
      { duration: 900, easing: "cubic-bezier(.2,.6,.3,1)" },
    );
  }

  /** Show what happens without heartbeats. @param {number} ttl in ms; 0 while heartbeats are sent */
  showSilence(ttl) {
    const long = ttl > 10 * 60_000;
    byId("silent-hint").textContent = !ttl
      ? "Stops heartbeats until expiry."
      : long
        ? `Expires in ${duration(ttl)}; in a room named demo-… after 30 s.`
        : "At 0:00 your membership expires.";
  }
}
