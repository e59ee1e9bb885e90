/** Composables for Vue: the members of a room, a membership of one's own, and whether users are online. */
import type { ComputedRef, MaybeRefOrGetter, Plugin } from "vue";
import type { ForceLeave, Member, MemberData, Room, View } from "./index.js";
import type { PeopleSnapshot, Person } from "./people.js";
import type { HeartbeatOptions, Id, Presence, RoomOptions } from "./options.js";

export type * from "./options.js";

/** Sets the server of all components: `createApp(App).use(createReactor({ url, token }))`. */
export function createReactor(options?: RoomOptions): Plugin;

export interface UseRoomOptions<Data = MemberData> extends HeartbeatOptions<Data> {
  /** Called when the server ends the membership, with the text for the user to read. */
  onForceLeave?: ((message: string, event: ForceLeave) => void) | undefined;
}

/** The state of a room; each ref has the same value until it changes. */
export interface UsedRoom<Data = MemberData> {
  readonly status: ComputedRef<Presence["status"]>;
  /** What was refused last, why there is no connection, or why the membership has ended. */
  readonly error: ComputedRef<Error | null>;
  /** For `room.update(data)`, `room.away()`, `room.on(…)`; null while not joined. */
  readonly room: ComputedRef<Room<Data> | null>;
  /** What is served: of a room with more than 1,000 members only the `count`. */
  readonly view: ComputedRef<View>;
  /** The members, in the order in which they joined. */
  readonly members: ComputedRef<readonly Member<Data>[]>;
  /** The members without one's own. */
  readonly others: ComputedRef<readonly Member<Data>[]>;
  readonly me: ComputedRef<Member<Data> | undefined>;
  readonly count: ComputedRef<number>;
  /** Join again after the server has ended the membership. */
  rejoin(): void;
}

/**
 * Be in a room, with heartbeats, while the component is mounted. Any number of components may do so for one room: the
 * first one joins, the last one leaves. Without `userId` the room is watched without being in it (with `view: "count"` only its
 * count), unless another component is in it.
 */
export function useRoom<Data = MemberData>(
  roomId: MaybeRefOrGetter<Id>,
  userId?: MaybeRefOrGetter<Id>,
  options?: MaybeRefOrGetter<UseRoomOptions<Data>>,
): UsedRoom<Data>;

/** Users; each ref has the same value until it changes. */
export interface UsedPeople {
  readonly status: ComputedRef<PeopleSnapshot["status"]>;
  /** The last refusal, as with `too_many_people`, or why it has ended. */
  readonly error: ComputedRef<PeopleSnapshot["error"]>;
  /** Those whose state is known, each the same object until it changes. */
  readonly people: ComputedRef<readonly Person[]>;
}

/**
 * Users, whatever the rooms, while the component is mounted. Components that name the same user share what is watched.
 * Nothing happens until the list is known.
 */
export function usePeople(
  userIds: MaybeRefOrGetter<readonly Id[] | null | undefined>,
  options?: MaybeRefOrGetter<RoomOptions>,
): UsedPeople;
/** Whether a user is `online`, `away` or `offline`, whatever the rooms; undefined until it is known. */
export function useStatus(
  userId: MaybeRefOrGetter<Id>,
  options?: MaybeRefOrGetter<RoomOptions>,
): ComputedRef<Person["status"] | undefined>;
