/** The hooks of `reactor-presence/react` for React Native: a member is away while the app is in the background. */
export * from "./react.js";
import type { Watch } from "./options.js";

/** Watches whether the app is in the background. */
export const watchApp: Watch;
