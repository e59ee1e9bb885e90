// How a program in TypeScript uses the client, and what it must not do.
import { ReactorClient, ReactorError, type Member, type Room } from "reactor-presence";
import { people } from "reactor-presence/people";

export async function use(): Promise<Room> {
  const client = new ReactorClient("wss://example.org/ws", {
    token: async () => "token",
    backoff: { first: 100, most: 5000 },
  });
  client.on("status", (status) => status === "idle");
  client.on("connection-error", ({ code, status, closeCode }) => [code, status?.toFixed(), closeCode?.toFixed()]);
  client.on("error", ({ message }) => message);
  new ReactorClient("/ws", { token: async () => null, requestTimeout: 5000, backoff: undefined });
  const room = await client.join("lobby", { userId: 7, username: "Ada", data: { mood: "blue" }, view: "members" });
  const stop: () => void = room.on("leave", ({ member, reason }) => `${member.username} ${reason === "kicked"}`);
  room.on("change", (events) => {
    for (const event of events) if (event.kind === "sync") event.members.map((member: Member) => member.away);
  });
  room.on("force-leave", ({ message, timestamp }) => new Date(timestamp).toISOString() + message);
  stop();
  await room.update({ mood: "red" }, { username: "Ada L." });
  await room.away();
  await room.back();
  const { count } = await client.request({ type: "room:count", roomId: "den" });
  const { present } = await client.request({ type: "room:is_present", roomId: "den", userId: 7 });
  const me: Member | undefined = room.me;
  const error: ReactorError | null = room.error;
  console.log(count.toFixed(), present === true, me, error?.code, room.others.length);

  await room.patch({ mood: null });
  await room.send({ typing: true }, { to: ["7", 8] });
  room.on("message", ({ userId, data }) => `${userId} ${data.typing}`);
  const stopped: () => void = room.subscribe(({ members, count, status }) => members.length + count + status.length);
  stopped();

  const typed = await client.join<{ mood: string; list?: number[] }>("den", { data: { mood: "blue" } });
  const mood: string | undefined = typed.me?.data?.mood;
  typed.on("update", ({ member }) => member.data?.list?.map((one) => one.toFixed()));
  await typed.patch({ list: null });
  console.log(mood, typed.getSnapshot().members[0]?.data?.mood);
  // @ts-expect-error: not of this room's type
  await typed.update({ colour: "red" });
  // @ts-expect-error: nor is this part
  await typed.patch({ mood: 5 });
  // @ts-expect-error: there is no such event
  room.on("leaves", () => {});
  // @ts-expect-error: members are the client's to change
  room.members.clear();
  // @ts-expect-error: a wrong view
  client.join("lobby", { userId: "7", view: "all" });
  // @ts-expect-error: a question without its room
  client.request({ type: "room:count" });
  client.close({ leave: false });
  return room;
}

const friends = people(new ReactorClient("/ws"), ["7", 8]);
friends.on("change", (changed) => changed.map(({ userId, status, lastSeen }) => [userId, status === "away", lastSeen?.toFixed()]));
friends.on("error", ({ code, userIds }) => friends.remove(userIds ?? [code]));
export const seenRooms: readonly string[] | undefined = friends.get(7)?.rooms;
// @ts-expect-error: a list of ids is needed
friends.add(7);
