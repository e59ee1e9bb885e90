// The composable on a real server: Vue renders, and another member observes the room.
import assert from "node:assert/strict";
import { test } from "node:test";
import { page, url } from "../react/dom.mjs";
import { newRoom, until, watcher } from "../react/members.mjs";

// Vue looks for these when it is imported.
Object.assign(globalThis, { Element: page.Element, SVGElement: page.SVGElement, ShadowRoot: page.ShadowRoot, MathMLElement: page.Element });
const { createApp, createSSRApp, effectScope, h, nextTick, reactive, ref } = await import("vue");
const { renderToString } = await import("vue/server-renderer");
const { createReactor, usePeople, useRoom, useStatus } = await import("reactor-presence/vue");
const { ReactorClient } = await import("reactor-presence");

/** Mount a component on a client of the test's own. */
function show(t, setup) {
  const client = new ReactorClient(url);
  const container = document.createElement("div");
  const app = createApp({ setup }).use(createReactor({ client }));
  app.mount(container);
  let mounted = true;
  const unmount = () => mounted && ((mounted = false), app.unmount());
  t.after(() => {
    unmount();
    client.close();
  });
  return {
    client,
    unmount,
    reads: (text) => until(() => container.textContent === text, () => `"${text}", not "${container.textContent}"`),
  };
}

const names = (members) => members.value.map(({ username }) => username).join(" ");

test("a mounted component is in the room, and an unmounted one is not", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const screen = show(t, () => {
    const { status, members, others, me, count, view } = useRoom(roomId, "ann", { username: "Ann" });
    return () => h("p", [status.value, names(members), names(others), me.value?.userId, count.value, view.value].join(","));
  });
  await screen.reads("connected,bob Ann,bob,ann,2,members");
  screen.unmount();
  await bob.sees("join ann", "leave ann left");
  await until(() => screen.client.status === "idle");
});

test("ids and options may change: the room, the user, the data", async (t) => {
  const [one, two] = [newRoom(), newRoom()];
  const [bob, cleo] = [await watcher(t, url, one, "bob"), await watcher(t, url, two, "cleo")];
  const roomId = ref(null);
  const data = reactive({ mood: "fine", list: [1] });
  const screen = show(t, () => {
    const { status, members, error } = useRoom(roomId, () => "ann", () => ({ data }));
    return () => h("p", `${status.value} ${names(members)} ${error.value?.code}`);
  });
  await screen.reads("idle  undefined");
  roomId.value = one;
  await screen.reads("connected bob ann undefined");
  assert.deepEqual(bob.room.members.get("ann").data, { mood: "fine", list: [1] });
  data.list.push(2);
  await until(() => bob.room.members.get("ann").data.list.length === 2);
  data.list = 1n;
  await screen.reads("connected bob ann bad_request");
  data.list = [];
  await screen.reads("connected bob ann undefined");
  roomId.value = two;
  await screen.reads("connected cleo ann undefined");
  await until(() => bob.seen.at(-1) === "leave ann left");
  assert.deepEqual(await cleo.all(), ["join ann"]);
});

test("several components share one membership, and one without a user watches the room", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const Stay = { setup: () => (useRoom(roomId, "ann"), () => null) };
  const Count = {
    setup() {
      const { count } = useRoom(roomId);
      return () => h("b", count.value);
    },
  };
  const stays = ref(2);
  const screen = show(t, () => () => [h(Count), ...Array.from({ length: stays.value }, (_, key) => h(Stay, { key }))]);
  await screen.reads("2");
  stays.value = 1;
  await nextTick();
  assert.deepEqual(await bob.all(), ["join ann"]);
  stays.value = 0;
  await bob.sees("join ann", "leave ann left");
  await screen.reads("1");
});

test("a force-leave is reported with its text, and rejoin joins again", async (t) => {
  const roomId = newRoom("brief");
  const received = [];
  let rejoin;
  const screen = show(t, () => {
    const used = useRoom(roomId, "ann", { onForceLeave: (message) => received.push(message) });
    rejoin = used.rejoin;
    return () => h("p", used.status.value);
  });
  await screen.reads("connected");
  screen.client.silent = true;
  await screen.reads("closed");
  assert.deepEqual(received, ["You were away too long."]);
  screen.client.silent = false;
  rejoin();
  await screen.reads("connected");
});

test("users are shown with their states, and may change", async (t) => {
  const [ann, bob] = [newRoom("ann"), newRoom("bob")];
  const other = new ReactorClient(url);
  t.after(() => other.close());
  const online = await other.online({ userId: ann });
  const ids = ref(undefined);
  const Status = {
    props: ["userId"],
    setup(props) {
      const status = useStatus(() => props.userId);
      return () => h("b", ` ${status.value}`);
    },
  };
  const shown = ref(true);
  const screen = show(t, () => {
    const { people, status, error } = usePeople(ids);
    const text = () => [status.value, error.value?.code, ...people.value.map((each) => `${each.userId} ${each.status}`)];
    return () => [text().filter(Boolean).join(", "), shown.value && h(Status, { userId: ann })];
  });
  await screen.reads("idle online");
  ids.value = [ann, null, bob];
  await screen.reads(`connected, ${ann} online, ${bob} offline online`);
  ids.value = [bob];
  await screen.reads(`connected, ${bob} offline online`);
  await online.away();
  await screen.reads(`connected, ${bob} offline away`);
  await online.leave();
  await screen.reads(`connected, ${bob} offline offline`);
  screen.unmount();
  await until(() => screen.client.status === "idle");
});

test("it works in an effect scope without a component", async (t) => {
  const roomId = newRoom();
  const bob = await watcher(t, url, roomId, "bob");
  const scope = effectScope();
  t.after(() => scope.stop());
  const { count } = scope.run(() => useRoom(roomId, "ann", { url }));
  await until(() => count.value === 2);
  scope.stop();
  await until(() => bob.seen.at(-1) === "leave ann left");
});

test("server rendering joins and watches nothing", async () => {
  const setup = () => {
    const { status, count } = useRoom("lobby", "ann");
    const { people } = usePeople(["bob"]);
    const bob = useStatus("bob");
    return () => h("p", `${status.value} ${count.value} ${people.value.length} ${bob.value}`);
  };
  assert.equal(await renderToString(createSSRApp({ setup }).use(createReactor({ url }))), "<p>idle 0 0 undefined</p>");
});

test("mistakes are named in the words of the caller", () => {
  const scope = effectScope();
  const message = (call) => {
    try {
      scope.run(call);
    } catch (error) {
      return error.message;
    }
    return "";
  };
  assert.equal(message(() => createReactor({ url: 1 })), "createReactor: `url` takes an address, as in wss://example.org/ws; it is 1.");
  assert.match(message(() => useRoom("lobby", {}, { url })), /^useRoom: `userId` takes text or a whole number/);
  assert.equal(message(() => usePeople("ann", { url })), 'usePeople: `userIds` takes a list of ids; it is "ann".');
  assert.match(message(() => useStatus({}, { url })), /^useStatus: `userId` takes text or a whole number/);
  assert.match(message(() => useRoom("lobby", "ann", { url, view: "all" })), /^useRoom: `view` takes "members"/);
  scope.stop();
});
