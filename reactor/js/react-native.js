"use client";
/** The hooks of react.js for React Native: a member is away while its app is in the background. */
import { AppState } from "react-native";
import * as react from "./react.js";

export {
  ReactorProvider, useMember, useOthers, useRoomCount, useRoomEvent, useRoomMembers, useSelf,
} from "./react.js";

/**
 * The app. "inactive" (a call comes in, the app switcher is open) is neither.
 *
 * @type {import("./react.js").Watch}
 */
export function watchApp(tell, wake) {
  const follow = (/** @type {string} */ state) => {
    if (state === "background") tell(true);
    if (state !== "active") return;
    tell(false);
    wake();
  };
  if (AppState.currentState === "background") tell(true);
  const subscription = AppState.addEventListener("change", follow);
  return () => subscription.remove();
}

/** @type {typeof react.useRoomHeartbeat} */
export function useRoomHeartbeat(roomId, userId, onForceLeave, options) {
  return react.useRoomHeartbeat(roomId, userId, onForceLeave, { watch: watchApp, ...options });
}
