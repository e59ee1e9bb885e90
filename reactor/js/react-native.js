"use client";
/** The hooks of react.js for React Native: a member is away while the app is in the background. */
import { AppState } from "react-native";
import * as react from "./react.js";

export {
  ReactorProvider, useMember, useOthers, usePeople, useRoomCount, useRoomEvent, useRoomMembers, useRoomView, useSelf, useStatus,
} from "./react.js";

/**
 * Watches the app. The state "inactive" (an incoming call, the app switcher) changes nothing.
 *
 * @type {import("./options.js").Watch}
 */
export function watchApp(report, wake) {
  const onState = (/** @type {string} */ state) => {
    if (state === "background") report(true);
    if (state !== "active") return;
    report(false);
    wake();
  };
  if (AppState.currentState === "background") report(true);
  const subscription = AppState.addEventListener("change", onState);
  return () => subscription.remove();
}

/** @type {typeof react.useRoomHeartbeat} */
export function useRoomHeartbeat(roomId, userId, onForceLeave, options) {
  return react.useRoomHeartbeat(roomId, userId, onForceLeave, { watch: watchApp, ...options });
}
