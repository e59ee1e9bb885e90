/** Who this tab is: kept for the tab's life, and friendly chance at first, so that one click joins. */

const KEY = "reactor";
const FIRST = [
  "Amber", "Brave", "Calm", "Clever", "Coral", "Curious", "Gentle", "Golden", "Happy", "Hazel", "Indigo", "Jolly",
  "Kind", "Lively", "Lucky", "Mellow", "Merry", "Misty", "Noble", "Olive", "Quiet", "Rosy", "Silver", "Sunny", "Swift",
  "Tidy", "Violet", "Warm", "Witty", "Woody",
];
const SECOND = [
  "Badger", "Beaver", "Crane", "Deer", "Dolphin", "Falcon", "Finch", "Fox", "Gecko", "Hare", "Heron", "Ibis", "Koala",
  "Lark", "Lynx", "Marten", "Moose", "Newt", "Otter", "Owl", "Panda", "Puffin", "Robin", "Seal", "Sparrow", "Swan",
  "Tapir", "Turtle", "Walrus", "Wren",
];

function random(limit) {
  return crypto.getRandomValues(new Uint32Array(1))[0] % limit;
}

function stranger() {
  const userId = `u-${random(36 ** 5).toString(36).padStart(5, "0")}`;
  return { roomId: "lobby", username: `${FIRST[random(FIRST.length)]} ${SECOND[random(SECOND.length)]}`, userId };
}

/** @returns {{roomId: string, username: string, userId: string, inside?: boolean}} from the address, the tab, or chance */
export function recall() {
  const asked = new URLSearchParams(location.search);
  const given = { roomId: asked.get("room"), username: asked.get("name"), userId: asked.get("user") };
  const present = Object.fromEntries(Object.entries(given).filter(([, value]) => value));
  // Once taken they are the tab's; left in the address they would undo what is typed later.
  if (location.search) history.replaceState(null, "", location.pathname);
  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    // Storage may be forbidden; a stranger is fine then.
  }
  if (Object.keys(present).length > 0) kept.inside = false;
  return { ...stranger(), ...kept, ...present };
}

export function remember(identity) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(identity));
  } catch {
    // As above.
  }
}
