// A document for React to render into, at the address of the server under test. Import this before React.
import { Window } from "happy-dom";

export const url = process.env.REACTOR_URL;
export const page = new Window({ url: url.replace(/^ws/, "http").replace(/\/ws$/, "/chat") });
const { WebSocket } = await import("ws");

const globals = {
  window: page,
  document: page.document,
  location: page.location,
  navigator: page.navigator,
  addEventListener: page.addEventListener.bind(page),
  removeEventListener: page.removeEventListener.bind(page),
  WebSocket,
};
for (const [name, value] of Object.entries(globals)) {
  // Some of them are read-only properties of Node.js.
  Object.defineProperty(globalThis, name, { value, writable: true, configurable: true });
}

/** Hide or show the page, as another tab in front of it does. */
export function setHidden(hidden) {
  Object.defineProperty(document, "visibilityState", { configurable: true, value: hidden ? "hidden" : "visible" });
  document.dispatchEvent(new page.Event("visibilitychange"));
}
