// How an app in TypeScript uses the composable, and what it must not do.
import { createApp, ref } from "vue";
import type { Member } from "reactor-presence";
import * as promised from "reactor-presence/vue";
import { createReactor, usePeople, useRoom, useStatus } from "reactor-presence/vue";
import * as made from "../../../../reactor/js/vue.js";

export const composable: typeof promised = made;

createApp({}).use(createReactor({ url: "wss://example.org/ws", token: async () => "token", client: undefined }));

export function use(): (string | undefined)[] {
  const { members, me, count, room, status } = useRoom<{ mood: string }>(ref("lobby"), () => 7, {
    username: undefined, data: { mood: "blue" }, onForceLeave: (message, { reason }) => console.log(message, reason),
  });
  const mine: Member<{ mood: string }> | undefined = me.value;
  void room.value?.patch({ mood: "red" });
  useRoom(null);
  const { people } = usePeople(() => ["ann", 7, null], { url: "wss://example.org/ws" });
  const seen: number | undefined = people.value[0]?.lastSeen;
  const dot: "online" | "away" | "offline" | undefined = useStatus(ref("ann")).value;
  usePeople(ref<string[]>());
  // @ts-expect-error: not a list
  usePeople("ann");
  console.log(seen, dot);
  // @ts-expect-error: data of another type
  useRoom<{ mood: string }>("lobby", 7, { data: { mood: 7 } });
  // @ts-expect-error: there is no such status
  if (status.value === "gone") return [];
  // @ts-expect-error: it is read-only
  count.value = 7;
  return [mine?.data?.mood, ...members.value.map(({ data }) => data?.mood)];
}
