// How an app in TypeScript uses the hooks, and what it must not do.
import { ReactorClient, type ForceLeave, type Member } from "reactor-presence";
import * as promised from "reactor-presence/react";
import { ReactorProvider, useMember, useOthers, useRoomCount, useRoomEvent, useRoomHeartbeat, useRoomMembers, useRoomView, useSelf, usePeople, useStatus } from "reactor-presence/react";
import * as native from "reactor-presence/react-native";
import * as made from "../../../../reactor/js/react.js";
import * as madeForPhones from "../../../../reactor/js/react-native.js";

export const hooks: typeof promised = made;
export const hooksOfPhones: typeof native = madeForPhones;

export function Chat({ roomId, userId }: { roomId: string; userId?: number }) {
  const { status, error, room, rejoin } = useRoomHeartbeat(
    roomId,
    userId,
    (message, event: ForceLeave) => console.log(message.length, event.reason, event.timestamp.toFixed()),
    { username: "Ada", data: { typing: true }, view: "members", linger: 0, watch: null },
  );
  useRoomHeartbeat(roomId, "7", (message) => message.trim());
  useRoomHeartbeat(roomId, null);
  // Under exactOptionalPropertyTypes too, an option may be undefined.
  const unknown = undefined;
  useRoomHeartbeat(roomId, unknown, unknown, {
    url: unknown, token: unknown, client: unknown, username: unknown, data: unknown, view: unknown, linger: unknown,
    throttle: unknown, awayAfter: unknown, watch: unknown,
  });
  const shown: "members" | "count" | "none" = useRoomView(roomId, { url: unknown });
  native.useRoomHeartbeat(roomId, 7, () => {}, { url: "wss://example.org/ws", watch: native.watchApp });
  const members: readonly Member[] = useRoomMembers(roomId);
  const one: Member | undefined = useMember(roomId, 7) ?? useSelf(roomId);
  useRoomEvent(roomId, "leave", ({ member, reason }) => console.log(member.username, reason === "kicked"));
  // @ts-expect-error: one who comes has no reason
  useRoomEvent(roomId, "join", ({ reason }) => reason);
  // @ts-expect-error: the list belongs to the room
  members.push(one);
  // @ts-expect-error: there is no such status
  if (status === "gone") rejoin();
  // @ts-expect-error: an event is asked for where there is only a text
  useRoomHeartbeat(roomId, userId, (event: ForceLeave) => event.reason);
  const typed = useRoomHeartbeat<{ mood: string }>(roomId, 7, null, { data: { mood: "blue" } });
  void typed.room?.patch({ mood: "red" });
  const moods: (string | undefined)[] = useRoomMembers<{ mood: string }>(roomId).map(({ data }) => data?.mood);
  // @ts-expect-error: data of another type
  useRoomHeartbeat<{ mood: string }>(roomId, 7, null, { data: { mood: 7 } });
  // @ts-expect-error: no such field
  useSelf<{ mood: string }>(roomId)?.data?.colour;
  const friends: readonly string[] = usePeople([7, "8", null]).people.map(({ userId: id, lastSeen }) => `${id} ${lastSeen}`);
  // @ts-expect-error: there is no such status
  if (useStatus(friends[0]) === "gone") rejoin();
  if (status === "closed") rejoin();
  void room?.update({ typing: false });
  return <p title={error?.message ?? moods[0] ?? shown}>{useRoomCount(roomId) + useOthers(roomId).length}</p>;
}

export const app = (
  <ReactorProvider url="wss://example.org/ws" token={async () => "token"}>
    <ReactorProvider client={new ReactorClient("wss://example.org/ws")}>
      <Chat roomId="lobby" />
    </ReactorProvider>
  </ReactorProvider>
);
