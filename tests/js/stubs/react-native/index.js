// As much of the platform as an example needs, where there is no phone; the test plays the system and the user.
import { createElement } from "react";

const listeners = new Set();

export const AppState = {
  currentState: "active",
  addEventListener(type, hear) {
    if (type !== "change") throw new Error(`no such event: ${type}`);
    listeners.add(hear);
    return { remove: () => listeners.delete(hear) };
  },
};

/** What the user was shown. */
export const alerts = [];
export const Alert = { alert: (title, message) => alerts.push([title, message]) };

export const Text = ({ children }) => createElement("span", null, children);
export const FlatList = ({ data, renderItem, keyExtractor }) =>
  data.map((item, index) => createElement("li", { key: keyExtractor(item) }, renderItem({ item, index })));

/** The system moves the app. */
export function appBecomes(state) {
  AppState.currentState = state;
  for (const hear of [...listeners]) hear(state);
}
export const watchers = () => listeners.size;
