// Types that an application registers once.
import { ReactorClient, type Member } from "reactor-presence";

declare module "reactor-presence" {
  interface Register {
    data: { mood: string };
    message: { typing: boolean };
  }
}

export async function use(): Promise<string | undefined> {
  const room = await new ReactorClient("/ws").join("lobby", { data: { mood: "blue" } });
  room.on("message", ({ data }) => data.typing === true);
  await room.send({ typing: true });
  // @ts-expect-error: not as registered
  await room.send({ typed: true });
  // @ts-expect-error: not as registered
  await room.update({ mood: 5 });
  const me: Member | undefined = room.me;
  return me?.data?.mood.trim();
}
