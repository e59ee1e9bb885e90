/** The hooks of `reactor-presence/react` for React Native: a member is away while its app is in the background. */
export * from "./react.js";
import type { Watch } from "./react.js";

/** The app as something to watch. */
export const watchApp: Watch;
