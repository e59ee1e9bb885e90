// What the code is has to be what index.d.ts promises.
import type * as promised from "reactor-presence";
import { ReactorClient } from "../../../reactor/js/client.js";
import { ReactorError } from "../../../reactor/js/error.js";
import { json } from "../../../reactor/js/connection.js";
import { people as watchPeople } from "../../../reactor/js/people.js";
import type { People as PromisedPeople } from "reactor-presence/people";
import type { People } from "../../../reactor/js/people.js";
import type { Room } from "../../../reactor/js/room.js";

export const client: typeof promised.ReactorClient = ReactorClient;
export const error: typeof promised.ReactorError = ReactorError;
export const codec: typeof promised.json = json;
export const room = (made: Room): promised.Room => made;
export const someone = (made: People): PromisedPeople => made;
export const watching: (...all: any[]) => PromisedPeople = watchPeople;
