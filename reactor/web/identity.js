/** The user of this tab: random at first, so that one click joins, and stored for the lifetime of the tab. */

const KEY = "reactor";
const ADJECTIVES = [
  "Amber", "Brave", "Calm", "Clever", "Coral", "Curious", "Gentle", "Golden", "Happy", "Hazel", "Indigo", "Jolly",
  "Kind", "Lively", "Lucky", "Mellow", "Merry", "Misty", "Noble", "Olive", "Quiet", "Rosy", "Silver", "Sunny", "Swift",
  "Tidy", "Violet", "Warm", "Witty", "Woody",
];
const ANIMALS = [
  "Badger", "Beaver", "Crane", "Deer", "Dolphin", "Falcon", "Finch", "Fox", "Gecko", "Hare", "Heron", "Ibis", "Koala",
  "Lark", "Lynx", "Marten", "Moose", "Newt", "Otter", "Owl", "Panda", "Puffin", "Robin", "Seal", "Sparrow", "Swan",
  "Tapir", "Turtle", "Walrus", "Wren",
];

function random(limit) {
  return crypto.getRandomValues(new Uint32Array(1))[0] % limit;
}

function randomIdentity() {
  const userId = `u-${random(36 ** 5).toString(36).padStart(5, "0")}`;
  return { roomId: "demo-lobby", username: `${ADJECTIVES[random(ADJECTIVES.length)]} ${ANIMALS[random(ANIMALS.length)]}`, userId };
}

/** @returns {{roomId: string, username: string, userId: string, token?: string, view?: string, joined?: boolean}} from the address, the tab, or at random */
export function recall() {
  const query = new URLSearchParams(location.search);
  const given = { roomId: query.get("room"), username: query.get("name"), userId: query.get("user") };
  const present = Object.fromEntries(Object.entries(given).filter(([, value]) => value));
  // They are stored now; left in the address they would override later input after a reload.
  if (location.search) history.replaceState(null, "", location.pathname);
  let stored = {};
  try {
    stored = JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    // Storage may be disabled; a random identity is fine then.
  }
  if (Object.keys(present).length > 0) stored.joined = false;
  return { ...randomIdentity(), ...stored, ...present };
}

export function remember(identity) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(identity));
  } catch {
    // As above.
  }
}
