/** The client of a reactor server, for browsers, Node.js, Deno and React Native. It has no dependencies. */
export { ReactorClient } from "./client.js";
export { ReactorError } from "./error.js";
export { json } from "./connection.js";
