// How an app in TypeScript uses the hooks, and what it must not do.
import { ReactorClient, type ForceLeave, type Member } from "reactor-presence";
import * as promised from "reactor-presence/react";
import { ReactorProvider, useMember, useOthers, useRoomCount, useRoomEvent, useRoomHeartbeat, useRoomMembers, useSelf } from "reactor-presence/react";
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
  if (status === "closed") rejoin();
  void room?.update({ typing: false });
  return <p title={error?.message}>{useRoomCount(roomId) + useOthers(roomId).length}</p>;
}

export const app = (
  <ReactorProvider url="wss://example.org/ws" token={async () => "token"}>
    <ReactorProvider client={new ReactorClient("wss://example.org/ws")}>
      <Chat roomId="lobby" />
    </ReactorProvider>
  </ReactorProvider>
);
