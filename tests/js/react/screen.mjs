// Renders a screen of React Native, lets the member expire, and checks what the user sees.
// It is copied beside the screen, so that both import the same React.
import assert from "node:assert/strict";
import { url } from "./dom.mjs";
import { until } from "./members.mjs";
import { StrictMode, createElement as h } from "react";
import { createRoot } from "react-dom/client";
import { went } from "expo-router";
import { alerts } from "react-native";
import { ReactorClient } from "reactor-presence";
import { ReactorProvider } from "reactor-presence/react-native";
import { ChatScreen } from "./ChatScreen.js";

const client = new ReactorClient(url);
const container = document.createElement("div");
const root = createRoot(container);
root.render(h(StrictMode, null, h(ReactorProvider, { client }, h(ChatScreen, { roomId: "brief-chat", userId: "ann" }))));
await until(() => container.textContent === "ann");
client.silent = true;
await until(() => went.length);
assert.deepEqual(alerts, [["You left the room", "You were away too long."]]);
assert.deepEqual(went, ["back"]);
root.unmount();
client.close();
