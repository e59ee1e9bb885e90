// How a program in TypeScript uses the client, and what it must not do.
import { ReactorClient, ReactorError, type Member, type Room } from "reactor-presence";

export async function use(): Promise<Room> {
  const client = new ReactorClient("wss://example.org/ws", {
    token: async () => "token",
    backoff: { first: 100, most: 5000 },
  });
  client.on("status", (status) => status === "idle");
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
