/** React hooks for rooms: who is there, and being there oneself. */
import type { ReactNode } from "react";
import type { ForceLeave, Member, ReactorClient, Room, RoomEvents, Status } from "./index.js";

/** A room or a user. Null, undefined or empty: not known yet; nothing happens until it is. */
export type Id = string | number | null | undefined;

/** Which server; by default that of the `ReactorProvider` around, or else the page's own. */
export interface RoomOptions {
  /** As in `wss://example.org/ws`. */
  url?: string;
  /** What proves who one is; the newest is used at each connecting. */
  token?: string | (() => string | Promise<string>);
  /** A client of one's own. */
  client?: ReactorClient;
}

export interface ReactorProviderProps extends RoomOptions {
  children?: ReactNode;
}

/** Names the server for all components in it. */
export function ReactorProvider(props: ReactorProviderProps): ReactNode;

/** Tells when what is on the screen goes out of sight (true) and comes back (false); returns what stops it. */
export type Watch = (tell: (hidden: boolean) => void, wake: () => void) => () => void;

export interface HeartbeatOptions extends RoomOptions {
  /** What others see; the user id if there is no other name. */
  username?: string;
  /** Any small JSON for others to see. */
  data?: unknown;
  /** `members` by default; `count` where nobody is shown by name. */
  view?: "members" | "count";
  /** Milliseconds that the room stays joined after the last component that wants it; 300 by default. */
  linger?: number;
  /** By what the member is away; by default whether the page is hidden, or the app in the background. null: never. */
  watch?: Watch | null;
}

/** How one's own stay in a room stands. */
export interface Presence {
  /** `idle`: no component asks for the room, or it is not known yet who one is. */
  readonly status: Status | "idle";
  /** What was refused, or why the stay is over. */
  readonly error: Error | null;
  /** To say things of oneself: `room.update(data)`, `room.away()`, `room.back()`; null while one is not in it. */
  readonly room: Room | null;
  /** Join again after the server has ended the stay. */
  rejoin(): void;
}

/**
 * Be in a room, with heartbeats, for as long as the component is there. Any number of components may do so for one room:
 * the first joins, the last one leaves.
 *
 * @param onForceLeave called when the server ends the stay, with the text that the user is to read
 */
export function useRoomHeartbeat(
  roomId: Id,
  userId: Id,
  onForceLeave?: (message: string, event: ForceLeave) => void,
  options?: HeartbeatOptions,
): Presence;

// What follows shows a room that a component is in by `useRoomHeartbeat`, this one or any other, and is empty before.
// The same value is given until it changes, so it may be depended upon.

/** Who is in a room, in the order of their coming. */
export function useRoomMembers(roomId: Id, options?: RoomOptions): readonly Member[];
/** How many are in a room. */
export function useRoomCount(roomId: Id, options?: RoomOptions): number;
/** One member of a room, if present. */
export function useMember(roomId: Id, userId: Id, options?: RoomOptions): Member | undefined;
/** Who else is in a room. */
export function useOthers(roomId: Id, options?: RoomOptions): readonly Member[];
/** Oneself in a room. */
export function useSelf(roomId: Id, options?: RoomOptions): Member | undefined;

/** Have a function called for each event of a room, as in `useRoomEvent(roomId, "join", ({ member }) => …)`. */
export function useRoomEvent<Event extends keyof RoomEvents>(
  roomId: Id,
  kind: Event,
  hear: (news: RoomEvents[Event]) => void,
  options?: RoomOptions,
): void;
