/** What the hooks and composables of all frameworks take and return. */
import type { ClientOptions, MemberData, ReactorClient, Room, Status, View } from "./index.js";

/** The id of a room or a user. Null, undefined or empty: not known yet; nothing happens until it is. */
export type Id = string | number | null | undefined;

/** The server; by default that of the provider, or else the page's own. */
export interface RoomOptions {
  /** As in `wss://example.org/ws`. */
  url?: string | undefined;
  /** The token; the newest is used at each connect. */
  token?: ClientOptions["token"];
  /** A client that the application has created. */
  client?: ReactorClient | undefined;
}

/** Reports when the page or app is hidden (true) and visible again (false). Returns the function that stops it. */
export type Watch = (report: (hidden: boolean) => void, wake: () => void, awayAfter?: number | undefined) => () => void;

export interface HeartbeatOptions<Data = MemberData> extends RoomOptions {
  /** The name that others see; the user id by default. */
  username?: string | undefined;
  /** Any small JSON value that others see. */
  data?: Data | undefined;
  /** `members` by default; `count` where no members are shown. */
  view?: "members" | "count" | undefined;
  /** Milliseconds that the room stays joined after the last component was unmounted; 300 by default. */
  linger?: number | undefined;
  /** The shortest time (ms) between two updates of `username`, `data` and `view`; 50 by default. The last value is always sent. */
  throttle?: number | undefined;
  /** Milliseconds that the page is hidden before the member is away; 3000 by default. Read when the room is joined. */
  awayAfter?: number | undefined;
  /** When the member is away; by default while the page is hidden, or the app in the background. null: never. Read when the room is joined. */
  watch?: Watch | null | undefined;
}

/** The state of the membership. */
export interface Presence<Data = MemberData> {
  /** `idle`: no component wants to be in the room, or the room or the user is not known yet. */
  readonly status: Status | "idle";
  /** What was refused last, why there is no connection, or why the membership has ended. */
  readonly error: Error | null;
  /** For `room.update(data)`, `room.away()`, `room.back()`; null while not joined. */
  readonly room: Room<Data> | null;
  /** What is served: of a room with more than 1,000 members only the `count`. */
  readonly view: View;
  /** Join again after the server has ended the membership. */
  rejoin(): void;
}
