/** React hooks for rooms: their members, and a membership of one's own. */
import type { ReactNode } from "react";
import type { ForceLeave, Member, MemberData, RoomEvents, View } from "./index.js";
import type { PeopleSnapshot, Person } from "./people.js";
import type { HeartbeatOptions, Id, Presence, RoomOptions } from "./options.js";

export type * from "./options.js";

export interface ReactorProviderProps extends RoomOptions {
  children?: ReactNode | undefined;
}

/** Sets the server of all components inside it. */
export function ReactorProvider(props: ReactorProviderProps): ReactNode;

/**
 * Be in a room, with heartbeats, while the component is mounted. Any number of components may do so for one room: the
 * first one joins, the last one leaves.
 *
 * @param onForceLeave called when the server ends the membership, with the text for the user to read
 */
export function useRoomHeartbeat<Data = MemberData>(
  roomId: Id,
  userId: Id,
  onForceLeave?: ((message: string, event: ForceLeave) => void) | null,
  options?: HeartbeatOptions<Data>,
): Presence<Data>;

// The hooks below read a room that any component is in by `useRoomHeartbeat`. Where none is, `useRoomMembers`, `useOthers`,
// `useMember` and `useRoomCount` watch it without being in it; for the others it is empty.
// They return the same value until it changes, so it can be a dependency.

/** The members of a room, in the order in which they joined. */
export function useRoomMembers<Data = MemberData>(roomId: Id, options?: RoomOptions): readonly Member<Data>[];
/** The number of members of a room. */
export function useRoomCount(roomId: Id, options?: RoomOptions): number;
/**
 * What is served of a room: its `members`; only their `count`, and then the hooks for members return none; or `none`, as
 * long as it is neither joined nor watched by another hook.
 */
export function useRoomView(roomId: Id, options?: RoomOptions): View;
/** One member of a room, if present. */
export function useMember<Data = MemberData>(roomId: Id, userId: Id, options?: RoomOptions): Member<Data> | undefined;
/** The members of a room without one's own. */
export function useOthers<Data = MemberData>(roomId: Id, options?: RoomOptions): readonly Member<Data>[];
/** One's own member of a room. */
export function useSelf<Data = MemberData>(roomId: Id, options?: RoomOptions): Member<Data> | undefined;

/** Call a function at each event of a room, as in `useRoomEvent(roomId, "join", ({ member }) => …)`. */
export function useRoomEvent<Event extends keyof RoomEvents>(
  roomId: Id,
  kind: Event,
  listener: (event: RoomEvents[Event]) => void,
  options?: RoomOptions,
): void;

/**
 * Users, whatever the rooms: `people` has those whose state is known. A refusal is in `error`, as with `too_many_people`.
 * Components that name the same user share what is watched. Nothing happens until the list is known.
 */
export function usePeople(userIds: readonly Id[] | null | undefined, options?: RoomOptions): PeopleSnapshot;
/** Whether a user is `online`, `away` or `offline`, whatever the rooms; undefined until it is known. */
export function useStatus(userId: Id, options?: RoomOptions): Person["status"] | undefined;
