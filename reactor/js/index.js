/** The client of a reactor server, for browsers, Node.js, Deno and React Native. Needs nothing at run time. */
export { ReactorClient } from "./client.js";
export { ReactorError } from "./error.js";
export { json } from "./link.js";
